from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from htfcli.commands.sweep_progress import _view, latest, time_left
from htfcli.config.plan import PlanConfig
from htfcli.experiments.sweeps.sweep import Sweep


@pytest.fixture
def sweep(tmp_path):
    return Sweep(PlanConfig.checked({"data": "x.npy", "grid": {"lr": [0.1, 0.2, 0.3, 0.4]}}), str(tmp_path / "out"))


def test_the_table(sweep):
    done, failed, running, _ = sweep.progress
    done.status, done.seconds = "finished", 12.0
    failed.status, failed.error, failed.tries = "failed", "training diverged", 2
    running.status, running.started, running.tries = "running", time.monotonic() - 5, 1
    folder = running.job.folder
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text(json.dumps({"iteration": 300, "train_loss": 0.012345}) + '\n{"iterat')
    text = io.StringIO()
    Console(file=text, width=100).print(_view(sweep.progress, 20.0))
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines() if line.strip()]
    assert lines[2:] == [
        "lr=0.3_seed=0 running 1 5 s iteration 300, train loss 0.01235",
        "lr=0.2_seed=0 failed 2 training diverged",
        "lr=0.1_seed=0 finished 12 s",
        "lr=0.4_seed=0 waiting",
        "1 running, 1 failed, 1 finished, 1 waiting; about 20 s left",
    ]


def test_time_left(sweep):
    assert time_left(sweep.progress, 60.0) == ""
    sweep.progress[0].status, sweep.progress[0].kept = "finished", True  # took none of the time
    sweep.progress[1].status = "finished"
    assert time_left(sweep.progress, 61.0) == "; about 2 min 2 s left"


def test_the_latest_record_of_nothing(tmp_path):
    assert latest(tmp_path) == ""
    (tmp_path / "records.jsonl").write_text('{"iteration": 0}')
    assert latest(tmp_path) == ""


def test_a_run_ends_with_whoever_holds_its_leash(htf, tmp_path):
    """Its state saved, as after SIGTERM."""
    assert htf("generate", "tensor", "--dim", 3, "--rank", 1, "-o", "data.safetensors").code == 0
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HTF_LEASH": "1"}
    command = [
        sys.executable,
        "-m",
        "htfcli",
        "fit",
        "data.safetensors",
        "--iterations",
        "100000000",
        "--until-loss",
        "0",
    ]
    run = subprocess.Popen(
        [*command, "-o", "run"],
        cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "run/records.jsonl").exists() and time.monotonic() < end:
            time.sleep(0.05)
        _, said = run.communicate(timeout=60)  # which closes stdin first
    finally:
        run.kill()
    assert run.returncode == 130
    assert b"interrupted at iteration" in said
    assert (tmp_path / "run/checkpoint.safetensors").exists()
