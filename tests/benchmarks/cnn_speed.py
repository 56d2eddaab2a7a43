"""One training step of a ResNet18 on a CPU: plain, with the regularizer as published, and with ours.

    python -m tests.benchmarks.cnn_speed

1 x 64 x 64, batch 32, one thread, seconds of CPU time (other processes do not count); memory is how far two steps in a
fresh process raise the peak. On a GPU: python -m tests.gpu.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import torch

from htfcli.engine.runtime.precision import Precision
from tests.benchmarks.network_steps import Step, ours, plain, published, step
from tests.benchmarks.timing import machine, memory, table

SIDE, BATCH = 64, 32
ROUNDS = 7


def steps() -> dict[str, Step]:
    losses = {
        "no regularizer": plain,
        "as published": published,
        "double-backward": ours(),
        "tangent": ours(formulation="tangent"),
    }
    precision = Precision("float32", torch.device("cpu"))
    return {name: step(loss, "resnet18", BATCH, SIDE, precision) for name, loss in losses.items()}


def seconds(candidates: dict[str, Step]) -> dict[str, list[float]]:
    """CPU times of every candidate in turn A B C A B C ..., after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(ROUNDS + 1):
        for name, run in candidates.items():
            started = time.process_time()
            run()
            if turn:
                times[name].append(time.process_time() - started)
    return times


def growth(name: str) -> float:
    """MiB that two steps in this fresh process add to its peak."""
    run = steps()[name]
    before = memory("VmRSS")
    run(), run()
    return memory("VmHWM") - before


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) == 3 and sys.argv[1] == "--memory":
        print(growth(sys.argv[2]))
        return
    times = seconds(steps())
    middles = {name: statistics.median(values) for name, values in times.items()}
    rows: list[tuple[object, ...]] = []
    for name, values in times.items():
        command = [sys.executable, "-m", "tests.benchmarks.cnn_speed", "--memory", name]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        ratio = middles[name] / middles["no regularizer"]
        rows.append((name, f"{middles[name]:.3f}", f"{min(values):.3f}", f"{ratio:.1f}", f"{peak:.0f}"))
    print(f"{machine()}; 1 x {SIDE} x {SIDE}, batch {BATCH}, one thread, {ROUNDS} rounds")
    print(table(("step", "median s", "least s", "/ plain", "peak MiB"), rows))


if __name__ == "__main__":
    main()
