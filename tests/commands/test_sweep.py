from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from htfcli.experiments.sweeps.summary import load_summary
from htfcli.files.own.records import read_lines

FIT = {"width": 2, "iterations": 30, "record_every": 10}
PLAN = {"command": "fit", "generate": {"order": 2, "dim": 4, "rank": 1}, "base": FIT}


@pytest.fixture
def write(tmp_path):
    def write(name="plan.yaml", **changes):
        plan = {key: value for key, value in {**PLAN, **changes}.items() if value is not None}
        (tmp_path / name).write_text(yaml.safe_dump(plan, sort_keys=False))
        return name

    return write


@pytest.fixture
def data(htf):
    assert htf("generate", "tensor", *["--order", "2", "--dim", "4", "--rank", "1", "-o", "data.safetensors"]).code == 0
    return "data.safetensors"


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_runs_of_a_plan(htf, write):
    grid = {"init-std": [0.1, 0.01], "generate.rank": [1, 2]}
    lists = {"width": [2, [3]], "lr": [0.1, None]}
    plan = write(base={"iterations": 30}, generate={"order": 2, "dim": 4}, grid=grid, zip=lists, seeds=2)
    done = htf("sweep", plan, "--dry-run")
    assert (done.code, done.err) == (0, "")
    names = [r["run"] for r in done.records]
    assert len(names) == len(set(names)) == 16
    assert names[:3] == [
        "init-std=0.1_generate.rank=1_width=2_seed=0",
        "init-std=0.1_generate.rank=1_width=2_seed=1",
        "init-std=0.1_generate.rank=1_width=3_seed=0",
    ]
    assert done.records[-1] == {
        "kind": "planned run",
        "run": "init-std=0.01_generate.rank=2_width=3_seed=1",
        "varied": {"init_std": 0.01, "generate.rank": 2, "width": [3], "lr": None, "seed": 1},
        "settings": {"iterations": 30, "init_std": 0.01, "width": [3], "seed": 1},
        "generate": {"order": 2, "dim": 4, "width": 2, "seed": 1},
    }
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sed": 1}, "unknown setting sed (Did you mean seeds?)."),
        ({"base": {"widht": 3}}, "unknown setting widht (Did you mean width?), in run seed=0."),
        ({"base": {"lr": -1}}, "lr: input should be greater than 0 (got -1), in run seed=0."),
        ({"generate": {"rnk": 3}}, "unknown setting rnk (Did you mean rank?), in run seed=0."),
        ({"grid": {"lr": []}}, "grid.lr is empty."),
        ({"seeds": []}, "seeds is empty."),
        ({"seeds": 0}, "seeds is empty."),
        ({"grid": {"lr": 0.1}}, "grid: input should be a valid list (got 0.1)."),
        ({"zip": {"lr": [1, 2], "top": [1]}}, "the lists of zip must have the same length (got lr 2, top 1)."),
        ({"grid": {"lr": [1]}, "zip": {"lr": [2]}, "base": {"seed": 1}}, "set twice: lr; set seeds instead of seed; they apply to data and runs."),
        ({"grid": {"width": [3]}}, "set twice: width."),
        ({"data": "x.npy"}, "data and generate exclude each other: give one of them."),
        ({"generate": None}, "no data: give data (a file) or generate (settings of htf generate tensor)."),
        ({"generate": None, "data": "x.npy", "grid": {"generate.rank": [1]}}, "generate.rank needs generated data: give generate."),
        ({"grid": {"lr": [0.1, 0.10]}}, "two runs would have the same folder (got lr=0.1_seed=0). Values must differ in letters, digits or . + -, and not be repeated."),
        ({"seeds": [1, 1]}, "two runs would have the same folder (got seed=1). Values must differ in letters, digits or . + -, and not be repeated."),
        ({"grid": {"tree": ["balanced", "Balanced"]}}, "two runs would have the same folder (got tree=balanced_seed=0)."),
        ({"grid": {"tree": ["b" * 200]}}, "a run's folder name is too long (got 212 characters: tree=bbb"),
        ({"command": "train-cnn"}, "generate is not for train-cnn, which generates its own images: set task in base."),
        ({"command": "measure"}, "command: input should be 'fit', 'complete', 'train-cnn' or 'measure-recovery' (got 'measure')"),
    ],
)  # fmt: skip
def test_plans_that_are_wrong(htf, write, changes, message):
    done = htf("sweep", write(**changes), "-o", "out")
    assert done.code == 2
    assert done.error.startswith(message)
    assert not Path("out").exists()


def test_folders_that_cannot_be_used(htf, write, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("x")
    assert htf("sweep", write(), "-o", "other").error.startswith("other exists and is not a sweep.")
    assert htf("sweep", "no.yaml").error == "cannot read the configuration no.yaml: No such file or directory."
    assert htf("sweep", "other").error.startswith("cannot read the configuration other/plan.yaml")


def test_a_sweep(htf, write, tmp_path):
    plan = write(grid={"init_std": [0.1, 0.3]}, seeds=2)
    done = htf("sweep", plan, "--workers", 2, "-o", "out")
    assert done.code == 0
    rows = load_summary("out")
    assert sorted(r["run"] for r in done.records) == [r["run"] for r in rows]
    assert len(rows) == 4
    assert all(r["status"] == "finished" and r["final"]["iteration"] == 30 for r in rows)
    assert len({r["data"] for r in rows}) == 2  # one for each seed, shared by both scales
    assert rows[0]["final"] == json.loads((tmp_path / "out/runs/init-std=0.1_seed=0/summary.json").read_text())
    assert rows[2]["settings"]["init_std"] == 0.3
    with open(tmp_path / "out/summary.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [float(c["train_loss"]) for c in cells] == [r["final"]["train_loss"] for r in rows]
    assert [(c["init_std"], c["seed"], c["generate.seed"]) for c in cells[:2]] == [("0.1", "0", "0"), ("0.1", "1", "1")]

    stamp = {p: p.stat().st_mtime_ns for p in tmp_path.glob("out/runs/*/summary.json")}
    again = htf("sweep", "out", "--format", "csv")
    assert (again.code, again.err.splitlines()[0]) == (0, "4 runs of htf fit, 4 of them finished before")
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("out/runs/*/summary.json")} == stamp

    changed = htf("sweep", write(grid={"init_std": [0.1, 0.3]}, base={**FIT, "lr": 0.02}), "-o", "out")
    assert changed.code == 2
    assert changed.error.startswith("out holds runs with other settings (got init-std=0.1_seed=0, init-std=0.3_seed=0)")
    forced = htf("sweep", "plan.yaml", "-o", "out", "--force")
    assert forced.code == 0
    assert [r["settings"]["lr"] for r in load_summary("out")] == [0.02, 0.02]

    figure = htf("plot", "out", "--x", "init_std", "--y", "test_error", "-o", "out.png")
    assert (figure.code, figure.err) == (0, "wrote out.png\n")


def test_completions(htf, write, tmp_path):
    base = {"tree": "star", "width": 1, "effort": "quick"}
    done = htf("sweep", write(command="complete", base=base), "-o", "out", "--format", "table")
    assert done.code == 0, done.err
    assert "finished" in done.out
    assert load_summary("out")[0]["final"]["kind"] == "completion"
    assert (tmp_path / "out/completed/seed=0.npy").exists()
    (tmp_path / "out/completed/seed=0.npy").unlink()
    assert htf("sweep", "out").code == 0
    assert (tmp_path / "out/completed/seed=0.npy").exists()


def test_failed_runs_are_tried_again_and_reported(htf, write, tmp_path):
    diverging = {**FIT, "optimizer": "sgd", "scale": "none"}
    plan = write(grid={"lr": [0.01, 1e9]}, base=diverging)
    done = htf("sweep", plan, "-o", "out", "--retries", 1)
    assert done.code == 1
    *_, error = done.err.splitlines()
    assert error.startswith("Error: 1 of 2 runs failed: lr=1000000000.0_seed=0: training diverged by iteration")
    assert [r["status"] for r in load_summary("out")] == ["finished", "failed"]
    assert "training diverged" in load_summary("out")[1]["error"]
    with open(tmp_path / "out/summary.csv", newline="") as file:
        assert [c["status"] for c in csv.DictReader(file)] == ["finished", "failed"]


def test_a_process_that_is_killed_is_tried_again(write, data, tmp_path):
    plan = write(generate=None, data=data, base={**FIT, "iterations": 10**7, "checkpoint_every": 0})
    sweep = subprocess.Popen(
        [sys.executable, "-m", "htfcli", "sweep", plan, "-o", "out", "--retries", "1"],
        cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(2):
            process = wait_for(lambda: run_process(tmp_path / "out"))
            wait_for(lambda: (tmp_path / "out/runs/seed=0/checkpoint.safetensors").exists())
            os.kill(process, signal.SIGKILL)
            wait_for(lambda gone=process: run_process(tmp_path / "out") != gone)
        _, said = sweep.communicate(timeout=300)
    finally:
        sweep.kill()
    assert sweep.returncode == 1
    assert said.splitlines()[-1] == "Error: 1 of 1 runs failed: seed=0: killed by SIGKILL."


def run_process(sweep):
    """Process id of the fit that works in a sweep's folder."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if {b"fit", b"fit-batch"} & {*words} and any(w.startswith(str(sweep).encode()) for w in words):
            return int(entry.name)
    return None


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited too long")


@pytest.mark.parametrize(
    ("number", "settings", "second"),
    [
        (signal.SIGINT, {}, "interrupted"),
        (signal.SIGTERM, {}, "interrupted"),
        (signal.SIGTERM, {"batch_size": 4}, "waiting"),
    ],
    ids=["SIGINT", "SIGTERM", "one by one"],
)
def test_interrupted(write, data, tmp_path, number, settings, second):
    plan = write(generate=None, data=data, base={**FIT, "iterations": 10**7, **settings}, seeds=2)
    sweep = subprocess.Popen(
        [sys.executable, "-m", "htfcli", "sweep", plan, "-o", "out"],
        cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for(lambda: (tmp_path / "out/runs/seed=0/records.jsonl").exists())
        sweep.send_signal(number)
        _, said = sweep.communicate(timeout=300)
    finally:
        sweep.kill()
    assert sweep.returncode == 130
    assert (
        said.splitlines()[-1] == f"Error: interrupted; 2 of 2 runs unfinished, continue with: htf sweep {tmp_path}/out."
    )
    assert (tmp_path / "out/runs/seed=0/checkpoint.safetensors").exists()
    assert [r["status"] for r in load_summary(str(tmp_path / "out"))] == ["interrupted", second]
    assert run_process(tmp_path / "out") is None


@pytest.mark.parametrize("most", [2, pytest.param(20, marks=pytest.mark.long)])
def test_killed_again_and_again(htf, write, data, tmp_path, most):
    """No finished run is lost or executed twice, and all runs end as if nothing had happened."""
    base = {"iterations": 200 * most, "record_every": 100, "checkpoint_every": 0}
    grid = {"init_std": [0.1, 0.2], **({"width": [2, [3]]} if most > 2 else {})}  # lists are not run in batches
    plan = write(generate=None, data=data, base=base, grid=grid, seeds=2)
    runs = 4 if most == 2 else 8
    generator = random.Random(0)
    stamps: dict[Path, tuple[int, bytes]] = {}

    def check():
        for path in tmp_path.glob("out/runs/*/summary.json"):
            state = (path.stat().st_mtime_ns, path.read_bytes())
            assert stamps.setdefault(path, state) == state
        assert all(path.exists() for path in stamps)

    kills = 0
    while kills < most:
        sweep = subprocess.Popen(
            [sys.executable, "-m", "htfcli", "sweep", plan, "-o", "out", "--workers", "2"],
            cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        # at most this long, so that something is left to do at the end
        deadline = time.monotonic() + generator.uniform(0.1, 4.0)
        while time.monotonic() < deadline and len(stamps) + 1 > len(list(tmp_path.glob("out/runs/*/summary.json"))):
            time.sleep(0.01)
        sweep.kill()
        kills += 1
        assert sweep.wait() == -signal.SIGKILL
        check()
    done = htf("sweep", plan, "-o", "out", "--workers", 2)
    assert done.code == 0, done.err
    check()
    assert len(stamps) == runs
    undisturbed = htf("sweep", plan, "-o", "clean", "--workers", 2)
    assert undisturbed.code == 0
    for path in tmp_path.glob("clean/runs/*/records.jsonl"):
        assert (tmp_path / "out/runs" / path.parent.name / "records.jsonl").read_text() == path.read_text()


# --- batches -------------------------------------------------------------------------------------------------------


def test_small_fits_are_one_process(htf, write, tmp_path):
    """With the files, records and results of each by itself; one that fails leaves the others alone."""
    lrs = {"lr": [0.01, 0.02, 1e9]}
    plan = write(generate={"order": 3, "dim": 4, "rank": 2}, base={**FIT, "optimizer": "sgd"}, grid=lrs, seeds=2)
    done = htf("sweep", plan, "-o", "out", "--retries", 0)
    assert done.code == 1
    assert "2 of 6 runs failed: lr=1000000000.0_seed=0: training diverged" in done.err
    assert "continue with" not in done.err
    assert [r["status"] for r in done.records] == ["finished"] * 4 + ["failed"] * 2
    out = tmp_path / "out"
    assert len(list(out.glob("jobs/*.batch.log"))) == 1
    assert sorted(path.stem for path in out.glob("jobs/*_seed=?.log")) == [r["run"] for r in done.records[4:]]
    for row in done.records[:4]:
        command = (out / "jobs" / f"{row['run']}.yaml").read_text().splitlines()[0].removeprefix("# htf ").split()
        again = htf(
            *[w.replace("runs/", "alone/") if w.startswith("runs/") else f"out/{w}" if "/" in w else w for w in command]
        )
        assert again.code == 0, again.err
        together, alone = out / "runs" / row["run"], tmp_path / "alone" / row["run"]
        assert {path.name for path in together.iterdir()} == {path.name for path in alone.iterdir()}
        for record, expected in zip(
            read_lines(together / "records.jsonl"), read_lines(alone / "records.jsonl"), strict=True
        ):
            assert record[1]["train_loss"] == pytest.approx(expected[1]["train_loss"], rel=1e-5)
            assert record[1].keys() == expected[1].keys()
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/summary.json")}
    again = htf("sweep", plan, "-o", "out", "--retries", 0)
    assert "4 of them finished before" in again.err
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/summary.json")} == before
