"""Time of an iteration and peak memory against the number of observed entries: order 4, dims 200, width 16, float32.

    python -m tests.benchmarks.fit_scale [--entries 100000 1000000 10000000]

Each size runs in a process of its own, on one thread; memory is the peak of the whole process, the import of torch and
the reading of the data included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import torch

from htfcli.config.tensors import FitConfig
from htfcli.engine.fitting.fit import build_model
from htfcli.engine.fitting.gradient_descent import GradientFit
from htfcli.engine.observations.observations import Observations, sample_entries
from htfcli.engine.samples import Entries
from tests.benchmarks.timing import interleaved, machine, memory, table

DIMS = (200,) * 4


def measure(entries: int) -> dict[str, float]:
    torch.set_num_threads(1)
    imported = memory("VmRSS")
    generator = torch.Generator().manual_seed(0)
    index = sample_entries(DIMS, entries, generator)
    observations = Observations(DIMS, Entries(index, torch.randn(entries, generator=generator, dtype=torch.float64)))
    config = FitConfig(width=16, init_std=0.3, until_loss=None, device="cpu")
    started = time.perf_counter()
    fit = GradientFit(build_model(config, DIMS, torch.device("cpu")), observations, config)
    planned = time.perf_counter() - started

    @torch.no_grad()
    def iterate() -> None:
        fit._descend()
        fit._advance()

    each = interleaved({"ours": iterate}, seconds=5)["ours"]
    return {"each": each, "planned": planned, "imported": imported, "peak": memory("VmHWM")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    rows = []
    for entries in args.entries:
        command = [sys.executable, "-m", "tests.benchmarks.fit_scale", "--one", str(entries)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        per_entry = 1e9 * result["each"] / entries
        cells = (f"{entries:,}", f"{1e3 * result['each']:.2f}", f"{per_entry:.1f}", f"{result['planned']:.2f}")
        rows.append((*cells, f"{result['peak']:.0f}", f"{result['imported']:.0f}"))
    head = ("entries", "ms an iteration", "ns an entry", "s to plan", "peak MiB", "of which torch, MiB")
    print(f"{machine()}, one thread, float32, medians of 7 rounds\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
