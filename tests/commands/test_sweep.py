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

from htfcli.experiments.figures.sweeps import default_axes, labels, plot_sweep, points
from htfcli.experiments.sweeps.batched_fits import in_batches
from htfcli.experiments.sweeps.job import Job
from htfcli.experiments.sweeps.plan import planned_runs, read_plan
from htfcli.experiments.sweeps.summary import column, failures, load_summary, outcome
from htfcli.experiments.sweeps.sweep import Sweep
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
        "generate": {"order": 2, "dim": 4, "rank": 2, "seed": 1},
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
        ({"zip": {"lr": [1, 2], "top": [1]}}, "zip wants lists of one length (got lr 2, top 1)."),
        ({"grid": {"lr": [1]}, "zip": {"lr": [2]}, "base": {"seed": 1}}, "set twice: lr; seed is set by seeds, for data and run alike."),
        ({"grid": {"width": [3]}}, "set twice: width."),
        ({"data": "x.npy"}, "data names a file, generate makes one: give one of them."),
        ({"generate": None}, "no data: give data (a file) or generate (settings of htf generate tensor)."),
        ({"generate": None, "data": "x.npy", "grid": {"generate.rank": [1]}}, "generate.rank varies data that are not generated: give generate."),
        ({"grid": {"lr": [0.1, 0.10]}}, "two runs would have the same folder (got lr=0.1_seed=0). Values must differ in letters, digits or . + -, and not be repeated."),
        ({"seeds": [1, 1]}, "two runs would have the same folder (got seed=1). Values must differ in letters, digits or . + -, and not be repeated."),
        ({"grid": {"tree": ["balanced", "Balanced"]}}, "two runs would have the same folder (got tree=balanced_seed=0)."),
        ({"grid": {"tree": ["b" * 200]}}, "a run's folder name is too long (got 212 characters: tree=bbb"),
        ({"command": "train-cnn"}, "train-cnn generates its images by itself: say task in base instead of generate."),
        ({"command": "measure"}, "command: input should be 'fit', 'complete' or 'train-cnn' (got 'measure')."),
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
    assert htf("sweep", write(), "-o", "other").error.startswith("other is there and is not a sweep.")
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


def test_settings_of_a_run_that_never_began_do_not_stay(htf, write, tmp_path):
    first, second = (Sweep(read_plan(write(base={**FIT, "lr": lr})), "out") for lr in (0.01, 0.02))
    for sweep in (first, second):
        (tmp_path / "out/jobs").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out/data").mkdir(exist_ok=True)
        sweep.jobs[0].write_settings()
    assert yaml.safe_load((tmp_path / "out/jobs/seed=0.yaml").read_text())["lr"] == 0.02


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
        _, said = sweep.communicate(timeout=30)
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


def wait_for(condition, seconds=30):
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
        _, said = sweep.communicate(timeout=30)
    finally:
        sweep.kill()
    assert sweep.returncode == 130
    assert (
        said.splitlines()[-1] == f"Error: interrupted with 0 of 2 runs finished; go on with: htf sweep {tmp_path}/out."
    )
    assert (tmp_path / "out/runs/seed=0/checkpoint.safetensors").exists()
    assert [r["status"] for r in load_summary(str(tmp_path / "out"))] == ["interrupted", second]
    assert run_process(tmp_path / "out") is None


@pytest.mark.slow
def test_killed_twenty_times(htf, write, data, tmp_path):
    """No finished run is lost or done twice, and all runs end as if nothing had happened."""
    base = {"iterations": 4000, "record_every": 100, "checkpoint_every": 0}
    plan = write(generate=None, data=data, base=base, grid={"init_std": [0.1, 0.2], "width": [2, [3]]}, seeds=2)
    generator = random.Random(0)
    stamps: dict[Path, tuple[int, bytes]] = {}

    def check():
        for path in tmp_path.glob("out/runs/*/summary.json"):
            state = (path.stat().st_mtime_ns, path.read_bytes())
            assert stamps.setdefault(path, state) == state
        assert all(path.exists() for path in stamps)

    kills = 0
    while kills < 20:
        sweep = subprocess.Popen(
            [sys.executable, "-m", "htfcli", "sweep", plan, "-o", "out", "--workers", "2"],
            cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        # at most this long, so that something is left to do after 20 kills
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
    assert len(stamps) == 8  # half of them in batches
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


def test_which_runs_make_a_batch(write, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def sizes(processes=1, **changes):
        runs = planned_runs(read_plan(write(**changes)))
        return [len(jobs) for jobs in in_batches([Job(run, tmp_path / "out") for run in runs], processes)]

    assert sizes(seeds=5, grid={"lr": [0.1, 0.2], "init_std": [0.1, 0.2]}) == [20]
    assert sizes(seeds=5, processes=2) == [2, 3]
    assert sizes(seeds=2, processes=4) == [1, 1]
    assert sizes(seeds=70) == [23, 23, 24]
    assert sizes(seeds=3, generate=None, data=data) == [3]
    assert sizes(seeds=2, grid={"top": [1, 2]}) == [2, 2]
    assert sizes(seeds=2, grid={"generate.noise": [0.0, 0.1]}) == [2, 2]
    for settings in ({"width": 100}, {"solver": "second-order"}, {"batch_size": 2}, {"seconds": 1}, {"width": [2]}):
        assert sizes(seeds=2, base=settings) == [1, 1]
    assert sizes(seeds=2, generate={"order": 4, "dim": 12, "rank": 1}) == [1, 1]
    assert sizes(seeds=2, command="complete", base={}) == [1, 1]


# --- figures ----------------------------------------------------------------------------------------------------------


def rows(**settings):
    """Rows of four seeds for each combination of settings; test_error is lr + seed."""
    values = [{}]
    for key, options in settings.items():
        values = [{**v, key: o} for v in values for o in options]
    return [
        {"kind": "run", "run": f"{v}{seed}", "status": "finished", "command": "fit", "varied": {**v, "seed": seed},
         "settings": {**v, "seed": seed}, "generate": None, "final": {"test_error": v["lr"] + seed, "rank": {"{0}": 1.0, "{0,1}": seed}}}
        for v in values for seed in range(4)
    ]  # fmt: skip


def test_points_are_means_and_standard_errors():
    (curve,) = points(rows(lr=[3, 1]), "lr", "test_error", lambda row: "").values()
    assert [(p.x, p.mean, p.count) for p in curve] == [(1, 2.5, 4), (3, 4.5, 4)]
    assert curve[0].error == pytest.approx((5 / 3) ** 0.5 / 2)  # deviation of 0, 1, 2, 3 over the root of 4
    both = rows(lr=[3, 1], width=[2, 4])
    curves = points(both, "lr", "test_error", labels(both, ["width"]))
    assert list(curves) == ["width 2", "width 4"]
    assert column(rows(lr=[3]), "rank") == column(rows(lr=[3]), "rank.{0,1}") == [0, 1, 2, 3]


def test_categories_and_single_runs():
    some = [{**row, "settings": {**row["settings"], "tree": tree}} for row in rows(lr=[3])[:1] for tree in ("b", "a")]
    (curve,) = points(some, "tree", "test_error", lambda row: "").values()
    assert [p.x for p in curve] == ["b", "a"]
    assert curve[0].error != curve[0].error
    figure = plot_sweep(some, "tree", "test_error")
    assert figure.axes[0].get_xlabel() == "tree"
    assert figure.axes[0].get_title() == ""


def test_figures_of_runs_of_which_some_failed(htf, tmp_path):
    some = rows(lr=[1, 2], width=[2, 4])
    for row in some:
        row["final"] |= {"train_loss": 0.1}
    some[0] |= {"status": "failed", "final": None, "error": "training diverged"}
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/summary.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    assert default_axes(some) == ("lr", "train_loss", ["width"])
    figure = plot_sweep(some, *default_axes(some))
    assert figure.axes[0].get_title().splitlines() == [
        "mean and standard error, 3 to 4 seeds", "not shown: 1 of 16 runs, failed or not finished",
    ]  # fmt: skip
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["1", "2"]
    assert htf("plot", "sweep", "-o", "x.png").code == 0
    assert outcome(some) == "16 runs, 15 finished, 1 failed"
    assert failures(some) == {"training diverged": [some[0]["run"]]}
    (tmp_path / "sweep/summary.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(lr=[1])))
    error = "the runs of this sweep differ in their seed only. Name --x and --y."
    assert htf("plot", "sweep", "-o", "y.png").error == error


def test_figures_that_make_no_sense(htf, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/summary.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows(lr=[1], width=[2, 4])))
    for args, message in (
        ("--x lr --y test_error", "runs at one point of the picture differ in more than their seed (got width). Tell them apart with --group width."),
        ("--x lt --y test_error", "no run has this setting or final number (got lt)."),
        ("--x lr --y run", "no run has a number run. Have they finished? See summary.csv."),
        ("--x lr", "a sweep is drawn with --x and --y (allowed beside them --group, --log-x, --log-y)."),
        ("--x lr --y test_error --top 3", "a sweep is drawn with --x and --y"),
    ):  # fmt: skip
        assert htf("plot", "sweep", *args.split(), "-o", "x.png").error.startswith(message)
    assert htf("plot", "no", *["--x", "lr", "--y", "test_error", "-o", "x.png"]).error.startswith("no is not a sweep.")
    done = htf(
        "plot", "sweep", *["--x", "lr", "--y", "test_error", "--group", "width", "--log-x", "--log-y", "-o", "x.png"]
    )
    assert done.code == 0
