"""Sweeps that are killed, or whose runs are: continued, they end as if uninterrupted."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from htfcli.experiments.sweeps import job as jobs
from htfcli.experiments.sweeps.job import Job
from htfcli.experiments.sweeps.plan import planned_runs, read_plan
from htfcli.files.own.run_folder import RunFolder
from tests.faults.processes import Server, content, whole

PLAN = """
command: fit
generate: {order: 3, dim: 6, rank: 2, observed: 100}
base: {width: 24, iterations: 2000, record_every: 100, checkpoint_every: 0, until_loss: null}
grid: {lr: [0.01, 0.02]}
seeds: [0]
"""


@pytest.fixture(scope="module")
def sweep(server, tmp_path_factory):
    return KilledSweep(server, tmp_path_factory.mktemp("sweeps"))


class KilledSweep:
    """Sweeps of one plan, in folders of names of one length, so that paths in files have one too."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder, self.count = server, folder, 0
        (folder / "plan.yaml").write_text(PLAN)
        started = time.monotonic()
        first = self.fresh()
        assert self.start(first).wait().code == 0
        self.seconds = time.monotonic() - started
        self.wanted = self.result(first)

    def fresh(self) -> Path:
        self.count += 1
        return self.folder / f"sweep{self.count:03d}"

    def start(self, path: Path, *more: object):
        return self.server.start("sweep", "plan.yaml", "-o", path, "--workers", 2, *more, cwd=self.folder)

    def result(self, path: Path) -> dict[str, object]:
        """Contents, with the path of the sweep replaced by one that all have."""

        def common(value):
            if isinstance(value, bytes):
                return value.replace(bytes(path), b"@")
            if isinstance(value, dict):
                return {key: common(item) for key, item in value.items()}
            if isinstance(value, list):
                return [common(item) for item in value]
            return value.replace(str(path), "@") if isinstance(value, str) else value

        return {name: common(value) for name, value in content(path).items()}

    def finish(self, path: Path) -> None:
        ended = self.start(path).wait()
        assert ended.code == 0, ended
        self.same(path)

    def same(self, path: Path) -> None:
        found = self.result(path)
        assert sorted(found) == sorted(name for name in self.wanted)
        for name, value in found.items():
            if name == "summary.csv":  # has times; summary.jsonl has the same rows
                continue
            assert value == self.wanted[name], name
        assert list(path.rglob(".*.tmp")) == []


def runs_of(sweep: int) -> list[int]:
    """Process ids of the runs of a sweep, those that write already."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                continue
            found += [int(entry.name)] if parent == sweep else []
    return found


def kill_sweeps(sweep: KilledSweep, kills: int, seed: int) -> int:
    generator, path, survived = random.Random(seed), sweep.fresh(), 0
    while survived < kills:
        if not sweep.start(path).kill_after(generator.uniform(0.0, sweep.seconds)):
            sweep.same(path)
            path = sweep.fresh()
            continue
        survived += 1
        if path.exists():
            whole(path)
    sweep.finish(path)
    return survived


def kill_runs(sweep: KilledSweep, kills: int, seed: int) -> int:
    """Kill runs of one sweep, in turn while they start and once one has written; the sweep must end as if undisturbed."""
    path, killed = sweep.fresh(), set()
    generator = random.Random(seed)
    running = sweep.start(path, "--retries", kills)
    while running.poll(0.02) is None:
        for pid in set(runs_of(running.pid)) - killed:
            if len(killed) == kills:
                break
            if len(killed) % 2:
                deadline = time.monotonic() + 30
                while not list(path.glob("runs/*/checkpoint.safetensors")) and time.monotonic() < deadline:
                    time.sleep(0.01)
            time.sleep(generator.uniform(0.0, 0.3))
            with suppress(ProcessLookupError):  # it has ended by itself
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
    assert running.wait().code == 0, running.wait()
    sweep.same(path)
    return len(killed)


def test_a_killed_sweep_goes_on(sweep, record_property):
    record_property("fault", ("SIGKILL at a random moment", "sweep", kill_sweeps(sweep, 1, seed=1)))


def test_killed_runs_are_tried_again(sweep, record_property):
    kills = kill_runs(sweep, 2, seed=2)
    assert kills >= 1  # the first one while it imports; a run that has written may end before its turn
    record_property("fault", ("SIGKILL of its runs", "sweep", kills))


def test_a_run_that_another_process_begins_meanwhile(tmp_path, monkeypatch):
    """One that outlived its sweep, and made its folder only when the next sweep had looked for it."""
    (tmp_path / "plan.yaml").write_text(PLAN.replace("2000", "20"))
    job = Job(planned_runs(read_plan(str(tmp_path / "plan.yaml")))[0], tmp_path / "sweep")
    for name in ("data", "jobs", "runs"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
    job.write_settings()
    outcomes = []

    def overtaken(arguments, *more):
        if arguments[0] == "fit" and not job.folder.exists():
            with RunFolder(str(job.folder)) as folder:
                folder.write_config({}, {})
        outcomes.append(process(arguments, *more))
        return outcomes[-1]

    process = jobs._process
    monkeypatch.setattr(jobs, "_process", overtaken)
    assert [ended.status for ended in jobs.execute([job], {}, lambda: False)] == ["finished"]
    errors = [outcome.error for outcome in outcomes if outcome.status == "failed"]
    assert len(errors) == 1
    assert "contains a run" in errors[0]


@pytest.mark.long
def test_a_sweep_killed_many_times_goes_on(sweep, record_property):
    record_property("fault", ("SIGKILL at a random moment", "sweep", kill_sweeps(sweep, 40, seed=3)))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_runs_killed_many_times_are_tried_again(sweep, seed, record_property):
    kills = kill_runs(sweep, 8, seed)
    assert kills >= 4  # half of them while they import
    record_property("fault", ("SIGKILL of its runs", "sweep", kills))
