"""The paper's Pathfinder experiment: test accuracy with and without the regularizer."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.gpu.setting import ROOT, Row, Setting, environment, output_of, python

NAME, TITLE, SHARE = "paths", "Pathfinder", 1.0  # all that is left
ABOUT = (
    "ResNet18, SGD with learning rate 0.01 and momentum 0.9, batch 64, random 2 x 2 patches; 10,000 train and 2,000 test "
    "images drawn at 300 x 300 and stored at 75 x 75; 60 epochs at most, three processes at a time. `last 3` is the mean "
    "test accuracy of the last three epochs. Epoch by epoch: paths_records.csv. Targets at length 9: under 0.60 without "
    "R, over 0.75 with coefficient 9."
)
_PROCESSES = 3
_LAST = 15  # seconds for a run to save its state once it is interrupted


def rows(setting: Setting) -> Iterator[Row]:
    folder = Path(tempfile.mkdtemp())  # run folders are many files; what is kept are their records
    try:
        runs = [(9, 0), (9, 9)] if setting.smoke else [(length, c) for length in (9, 7) for c in (0, 3, 9)]
        together = 1 if setting.smoke else _PROCESSES
        data: dict[int, Path] = {}
        limit = setting.deadline - _LAST  # the first turn, the paper's headline, may take it all
        while runs and setting.left > _LAST:
            turn, runs = runs[:together], runs[together:]
            data = {length: _draw(setting, folder, length) for length in dict(turn) if length not in data} | data
            running = [(length, c, *_start(setting, folder, data[length], length, c)) for length, c in turn]
            for _, _, _, process in running:
                _wait(process, limit)
            for length, c, path, _ in running:
                yield _result(setting, path, length, c)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _draw(setting: Setting, folder: Path, length: int) -> Path:
    path = folder / f"length{length}.safetensors"
    sizes = ["--size", 75, "--draw-size", 300, "--train", 10_000, "--test", 2_000]
    if setting.smoke:
        sizes = ["--size", 32, "--draw-size", 128, "--train", 12, "--test", 6, "--padding", 4, "--start-border", 8]
        length = 3
    command = python("-m", "htfcli", "generate", "pathfinder", "--path-length", length, *sizes, "-o", path)
    code, said = output_of(command, setting.left)
    if code != 0:
        raise RuntimeError(f"images were not drawn: {said.strip().splitlines()[-1] if said.strip() else code}")
    return path


def _start(setting: Setting, folder: Path, data: Path, length: int, c: int) -> tuple[Path, subprocess.Popen[bytes]]:
    path = folder / f"run-{length}-{c}"
    model = ["--model", "resnet-mini", "--epochs", 2, "--batch-size", 6] if setting.smoke else ["--epochs", 60]
    reg = ["--reg", "non-local", "--reg-coeff", c, "--patch-size", 2] if c else ["--reg", "none"]
    command = python("-m", "htfcli", "train-cnn", data, *model, *reg, "--device", setting.device.type, "--threads", 1)
    with (folder / f"{path.name}.txt").open("wb") as said:
        process = subprocess.Popen(
            [*command, "-o", str(path), "-q"], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=said
        )
    return path, process


def _wait(process: subprocess.Popen[bytes], limit: float) -> None:
    """Until it ends or is interrupted at the limit; then it saves its state, or is killed."""
    try:
        process.wait(max(0.1, limit - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_LAST)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _result(setting: Setting, path: Path, length: int, c: int) -> Row:
    """A run's row; its records are added to paths_records.csv."""
    row: Row = {"length": length, "c": c}
    lines = (path / "records.jsonl").read_text().splitlines() if (path / "records.jsonl").exists() else []
    records: list[dict[str, Any]] = [json.loads(line) for line in lines if '"epoch"' in line]
    if not records:
        said = path.with_name(f"{path.name}.txt").read_text().strip().splitlines()
        return row | {"epochs": 0, "ended": said[-1] if said else "stopped before its first epoch"}
    kept = setting.out / "paths_records.csv"
    new = not kept.exists()
    with kept.open("a", newline="") as file:
        writer = csv.DictWriter(file, ["length", "c", *(k for k in records[0] if k != "kind")])
        if new:
            writer.writeheader()
        writer.writerows({**row, **{k: v for k, v in r.items() if k != "kind"}} for r in records)
    summary = path / "summary.json"
    last = records[-1]
    return row | {
        "epochs": last["epoch"],
        "train accuracy": last["train_accuracy"],
        "test accuracy": last["test_accuracy"],
        "last 3": sum(r["test_accuracy"] for r in records[-3:]) / len(records[-3:]),
        "R": last["regularizer"],
        "images/s": last["images_per_second"],
        "ended": json.loads(summary.read_text())["stop_reason"] if summary.exists() else "stopped at the time limit",
    }
