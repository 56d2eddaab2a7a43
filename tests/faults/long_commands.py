"""Commands that run until they are stopped, and their input."""

from __future__ import annotations

import shlex
import time

FIT = shlex.split("fit data.safetensors --width 24 --record-every 20 --checkpoint-every 0 --until-loss 1e-300 -o run")
CNN = shlex.split(
    "train-cnn pairs.safetensors --model resnet-mini --widths 8,16 --blocks 1,1 --batch-size 8 --patience 999 -o run"
)

# name -> command line, the file that says it has begun, the error that an interrupt leads to

LONG = {
    "fit": ([*FIT, "--iterations", "1000000"], "records.jsonl", r"interrupted at iteration \d+; the state of iteration \d+ is saved"),
    "train-cnn": ([*CNN, "--epochs", "10000"], "records.jsonl", r"interrupted in epoch \d+ at step \d+; the state is saved"),
    "complete": (["complete", "table.csv", "-o", "out.csv", "--run", "run", "--tree", "balanced", "--effort", "thorough"], "config.yaml", "interrupted, nothing is written; the models fitted so far are in run/records.jsonl"),
}  # fmt: skip


def until(condition, seconds: float = 300.0) -> None:
    """Wait for something; the limit is for a machine that others use too."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
