from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from htfcli.experiments.sweeps.summary import load_summary

pytest.importorskip("distributed")


@pytest.fixture
def start(tmp_path):
    """Start `python -m MODULE ...` with the code under test, its output in a file; killed at the end."""
    started = []
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"}

    def start(log, *words):
        with open(tmp_path / log, "wb") as said:
            command = [sys.executable, "-m", *words]
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=said, stderr=subprocess.STDOUT)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited too long")


def test_no_scheduler(htf, tmp_path, monkeypatch):
    monkeypatch.setattr("htfcli.experiments.sweeps.dask_pool._CONNECT", "1s")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"data": "x.npy"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    done = htf("sweep", "plan.yaml", "--dask", address, "-o", "out")
    assert done.code == 2
    assert done.error == (
        f"no Dask scheduler answers (got {address}). Start one with: dask scheduler; and workers with: dask worker ADDRESS."
    )
    assert htf("sweep", "plan.yaml", "--dask", "nonsense", "-o", "out").code == 2
    both = htf("sweep", "plan.yaml", "--dask", address, "--workers", 2, "-o", "out")
    assert both.error.startswith("--workers is for local runs")


BASE = {"width": 2, "iterations": 10**6, "until_loss": 1e-30, "record_every": 1000, "checkpoint_every": 0}


@pytest.fixture
def cluster(htf, start, tmp_path):
    """Start a scheduler and workers, write a plan; scheduler, workers and address."""

    def begin(count, **plan):
        assert htf("generate", "tensor", "--order", 2, "--dim", 4, "--rank", 1, "-o", "data.safetensors").code == 0
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"data": "data.safetensors", **plan}))
        words = ["--port", "0", "--no-dashboard", "--host", "127.0.0.1"]
        scheduler = start("scheduler.log", "distributed.cli.dask_scheduler", *words)
        address = wait_for(lambda: re.search(r"tcp://127\.0\.0\.1:\d+", (tmp_path / "scheduler.log").read_text()))[0]
        words = [address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        workers = [start(f"worker{k}.log", "distributed.cli.dask_worker", *words) for k in range(count)]
        wait_for(lambda: all("Registered" in (tmp_path / f"worker{k}.log").read_text() for k in range(count)))
        return scheduler, workers, address

    return begin


@pytest.mark.long
def test_a_worker_is_killed(cluster, start, tmp_path):
    """A sweep on two workers ends complete though one is killed with a run under way."""
    _, workers, address = cluster(2, base={**BASE, "seconds": 5}, seeds=3)
    sweep = start("sweep.log", "htfcli", "sweep", "plan.yaml", "--dask", address, "-o", "out", "--retries", "0")
    run_of = {}

    def both_have_begun():
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
                parent = int((entry / "stat").read_text().rsplit(")")[-1].split()[1]) if "fit" in words else 0
            except OSError:
                continue
            if parent in [w.pid for w in workers]:
                run_of[parent] = Path(words[words.index("-o") + 1])
        return len(run_of) == 2 and all((run / "checkpoint.safetensors").exists() for run in run_of.values())

    wait_for(both_have_begun)
    workers[0].send_signal(signal.SIGKILL)
    assert sweep.wait(timeout=300) == 0, (tmp_path / "sweep.log").read_text()
    rows = load_summary(str(tmp_path / "out"))
    assert [row["status"] for row in rows] == ["finished"] * 3
    # the run of the killed worker was interrupted and went on: its records have no gap
    records = (run_of[workers[0].pid] / "records.jsonl").read_text().splitlines()
    iterations = [json.loads(line)["iteration"] for line in records]
    assert iterations == sorted(set(iterations))
    assert iterations[:-1] == list(range(0, 1000 * (len(iterations) - 1), 1000))


@pytest.mark.long
def test_the_scheduler_is_killed(cluster, start, tmp_path):
    """The sweep says so in a line; what was finished is kept, and what was begun goes on when it is started again."""
    lengths = {"iterations": [10, 10**6], "batch_size": [8, None]}
    scheduler, _, address = cluster(1, base={k: v for k, v in BASE.items() if k != "iterations"}, zip=lengths)
    sweep = start("sweep.log", "htfcli", "sweep", "plan.yaml", "--dask", address, "-o", "out")
    first, second = (tmp_path / "out/runs" / f"batch-size={n}_seed=0" for n in (8, "default"))
    wait_for(lambda: (first / "summary.json").exists() and (second / "checkpoint.safetensors").exists())
    stamp = (first / "summary.json").stat().st_mtime_ns
    scheduler.kill()
    assert sweep.wait(timeout=300) == 1
    said = (tmp_path / "sweep.log").read_text()
    assert said.splitlines()[-1] == (
        f"Error: lost the Dask scheduler (got {address}). The state of all runs is saved; start a scheduler and the same sweep again."
    )
    assert "Traceback" not in said
    assert [row["status"] for row in load_summary(str(tmp_path / "out"))] == ["finished", "interrupted"]
    reached = len((second / "records.jsonl").read_text().splitlines())
    local = start("again.log", "htfcli", "sweep", "plan.yaml", "-o", "out")
    wait_for(lambda: "1 of them finished before" in (tmp_path / "again.log").read_text())
    wait_for(lambda: len((second / "records.jsonl").read_text().splitlines()) > reached + 2)
    local.terminate()
    assert local.wait(timeout=300) == 130
    assert (first / "summary.json").stat().st_mtime_ns == stamp
    iterations = [json.loads(line)["iteration"] for line in (second / "records.jsonl").read_text().splitlines()]
    assert iterations == list(range(0, 1000 * len(iterations), 1000))
