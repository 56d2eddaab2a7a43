"""Sweeps with a pool that pretends: retries, summaries, interruptions and locks."""

from __future__ import annotations

import json

import pytest

from htfcli.config.plan import PlanConfig
from htfcli.errors import ConfigError, Interrupted, RunError
from htfcli.experiments.sweeps import sweep as sweeps
from htfcli.experiments.sweeps.job import Outcome
from htfcli.experiments.sweeps.summary import load_summary
from htfcli.experiments.sweeps.sweep import Sweep, Watcher

PLAN = {"data": "x.npy", "base": {"batch_size": 1}, "grid": {"lr": [0.1, 0.2, 0.3]}}  # with batches: one by one


class Done:
    """A task that has ended."""

    def __init__(self, outcomes):
        self.outcomes = outcomes

    def done(self):
        return True

    def result(self):
        if isinstance(self.outcomes, Exception):
            raise self.outcomes
        return self.outcomes


class Pool:
    """Ends every run at once, as `ends` says: name of the run -> outcomes or errors of one attempt after another."""

    def __init__(self, capacity=1, **ends):
        self.ends, self.submitted, self.stopped, self._capacity = ends, [], False, capacity

    def capacity(self):
        return self._capacity

    def submit(self, jobs):
        (job,) = jobs
        self.submitted.append(job.run.name)
        end = self.ends.get(job.run.name.removesuffix("_seed=0").replace("lr=0.", "lr"), [])
        outcome = end.pop(0) if end else Outcome("finished")
        if isinstance(outcome, Exception):
            return Done(outcome)
        if outcome.status == "finished":
            job.folder.mkdir(exist_ok=True)
            (job.folder / "summary.json").write_text(json.dumps({"kind": "fit", "iteration": 7}))
        return Done([outcome])

    def stop(self):
        self.stopped = True


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(sweeps, "_POLL", 0.0)


def run(sweep, pool, retries=1, stop=lambda: False):
    ended = []
    sweep.run(
        pool, retries, Watcher(lambda progress: None, lambda p: ended.append((p.job.run.name[:6], p.status)), stop)
    )
    return ended


def make(folder, force=False, **changes):
    return Sweep(PlanConfig.checked({**PLAN, **changes}), str(folder / "out"), force=force)


def test_all_runs_once(tmp_path):
    pool = Pool()
    assert run(make(tmp_path), pool) == [("lr=0.1", "finished"), ("lr=0.2", "finished"), ("lr=0.3", "finished")]
    assert len(pool.submitted) == 3
    assert [row["final"]["iteration"] for row in load_summary(str(tmp_path / "out"))] == [7, 7, 7]
    again = make(tmp_path)
    assert again.describe() == "3 runs of htf fit, 3 of them finished before"
    assert run(again, pool)[0] == ("lr=0.1", "finished")
    assert len(pool.submitted) == 3


def test_failed_runs_are_retried_unless_that_is_hopeless(tmp_path):
    failed, hopeless = Outcome("failed", "diverged."), Outcome("failed", "wrong.", hopeless=True)
    pool = Pool(lr1=[failed, Outcome("finished")], lr2=[failed, failed, failed], lr3=[hopeless])
    with pytest.raises(RunError) as error:
        run(make(tmp_path), pool)
    assert str(error.value) == (
        f"2 of 3 runs failed: lr=0.2_seed=0: diverged (and 1 more, see {tmp_path}/out/summary.csv)."
    )
    assert sorted(name[:6] for name in pool.submitted) == ["lr=0.1", "lr=0.1", "lr=0.2", "lr=0.2", "lr=0.3"]
    rows = load_summary(str(tmp_path / "out"))
    assert [(row["status"], row["error"]) for row in rows] == [
        ("finished", None), ("failed", "diverged."), ("failed", "wrong."),
    ]  # fmt: skip


def test_a_worker_that_is_lost_is_a_failure(tmp_path):
    with pytest.raises(RunError, match=r"1 of 3 runs failed: lr=0\.1_seed=0: worker 3 died\.$"):
        run(make(tmp_path), Pool(lr1=[OSError("worker 3 died\nsecond line")] * 2))


def test_a_pool_that_is_lost_ends_the_sweep(tmp_path):
    with pytest.raises(RunError, match="lost the scheduler"):
        run(make(tmp_path), Pool(2, lr2=[RunError("lost the scheduler")]))
    rows = load_summary(str(tmp_path / "out"))
    assert [row["status"] for row in rows] in (
        ["finished", "running", "waiting"],
        ["finished", "interrupted", "waiting"],
    )
    assert "running" not in [row["status"] for row in rows]


def test_an_interruption_keeps_what_has_finished(tmp_path):
    pool = Pool()
    with pytest.raises(Interrupted) as error:
        run(make(tmp_path), pool, stop=lambda: len(pool.submitted) > 0)
    assert str(error.value) == f"interrupted; 2 of 3 runs unfinished, continue with: htf sweep {tmp_path}/out."
    assert pool.stopped
    assert [row["status"] for row in load_summary(str(tmp_path / "out"))] == ["finished", "waiting", "waiting"]


def test_a_summary_that_is_damaged_is_a_failed_run(tmp_path):
    run(make(tmp_path), Pool())
    (tmp_path / "out/runs/lr=0.2_seed=0/summary.json").write_text("{")
    with pytest.raises(RunError, match=r"lr=0\.2_seed=0: .*summary\.json cannot be read"):
        run(make(tmp_path), Pool())


def test_runs_with_other_settings(tmp_path):
    run(make(tmp_path), Pool())
    with pytest.raises(
        ConfigError, match=r"holds runs with other settings \(got lr=0\.1_seed=0, .*, \.\.\.\)|rerun them"
    ):
        make(tmp_path, base={"batch_size": 2})
    pool = Pool()
    run(make(tmp_path, force=True, base={"batch_size": 2}), pool)
    assert len(pool.submitted) == 3
    assert [row["settings"]["batch_size"] for row in load_summary(str(tmp_path / "out"))] == [2, 2, 2]


def test_one_sweep_at_a_time(tmp_path):
    run(make(tmp_path), Pool())
    with (
        make(tmp_path)._locked(),
        pytest.raises(ConfigError, match=r"another sweep is using .*/out\. Wait for it to end\.$"),
    ):
        run(make(tmp_path), Pool())


def test_settings_of_a_run_that_never_started_do_not_stay(tmp_path):
    both = [make(tmp_path, base={"batch_size": size}) for size in (3, 4)]
    (tmp_path / "out/jobs").mkdir(parents=True)
    for sweep in both:
        sweep.jobs[0].write_settings()
    assert "batch_size: 4" in (tmp_path / "out/jobs/lr=0.1_seed=0.yaml").read_text()
