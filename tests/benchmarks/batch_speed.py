"""Small fits trained one by one and as one batch, records included: CPU seconds of each, in turn.

OMP_NUM_THREADS=1 python tests/benchmarks/batch_speed.py
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.timing import machine, table
from tests.engine.fitting.test_batched import fits, together

PLANS = {  # of sample_configs, and two more: target, settings, runs
    "init_scale": ({"order": 4, "dim": 6, "rank": 3, "observed": "400"}, {"width": 16}, 15),
    "tree_depth": ({"order": 8, "dim": 3, "rank": 2, "observed": "1500"}, {"width": 8}, 12),
    "8 x 8 x 8 x 8, width 32": ({"order": 4, "dim": 8, "rank": 3, "observed": "2048"}, {"width": 32}, 10),
    "30 x 20, matrix": (
        {"target": "matrix", "dims": [30, 20], "rank": 3, "observed": "300"},
        {"model": "matrix", "depth": 3},
        10,
    ),
}
FURTHER = {"iterations": 1000, "record_every": 100, "dtype": "float32", "init_std": 0.1}


def seconds(work, *arguments) -> float:
    started = time.process_time()
    work(*arguments)
    return time.process_time() - started


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name, (target, settings, count) in PLANS.items():
        pairs = []
        for _ in range(4):  # the first one warms up
            alone = seconds(lambda runs: [list(fit.run()) for fit in runs], fits(target, settings, count, **FURTHER))
            pairs.append((alone, seconds(together, fits(target, settings, count, **FURTHER))))
        alone, batch = (statistics.median(times) for times in zip(*pairs[1:], strict=True))
        rows.append((name, count, f"{alone:.2f}", f"{batch:.2f}", f"{alone / batch:.1f}"))
    print(f"{machine()}\n\n{table(('plan', 'runs', 'one by one (CPU s)', 'batch', 'ratio'), rows)}")


if __name__ == "__main__":
    main()
