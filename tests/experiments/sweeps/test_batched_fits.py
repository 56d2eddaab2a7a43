"""Which runs of a sweep share a process."""

from __future__ import annotations

import pytest

from htfcli.config.plan import PlanConfig
from htfcli.experiments.sweeps.batched_fits import in_batches
from htfcli.experiments.sweeps.job import Job
from htfcli.experiments.sweeps.plan import planned_runs

PLAN = {
    "command": "fit",
    "generate": {"order": 2, "dim": 4, "rank": 1},
    "base": {"width": 2, "iterations": 30, "record_every": 10},
}
SEVERAL = {"seeds": 2}


def jobs(folder, **changes):
    plan = PlanConfig.checked({key: value for key, value in {**PLAN, **changes}.items() if value is not None})
    return [Job(run, folder / "out") for run in planned_runs(plan)]


@pytest.mark.parametrize(
    ("changes", "processes", "sizes"),
    [
        ({"seeds": 5, "grid": {"lr": [0.1, 0.2], "init_std": [0.1, 0.2]}}, 1, [20]),
        ({"seeds": 5}, 2, [2, 3]),
        (SEVERAL, 4, [1, 1]),
        ({"seeds": 70}, 1, [23, 23, 24]),  # at most 32 per process
        ({**SEVERAL, "grid": {"top": [1, 2]}}, 1, [2, 2]),
        ({**SEVERAL, "grid": {"generate.noise": [0.0, 0.1]}}, 1, [2, 2]),
        ({**SEVERAL, "base": {"width": 100}}, 1, [1, 1]),
        ({**SEVERAL, "base": {"width": [2]}}, 1, [1, 1]),
        ({**SEVERAL, "base": {"solver": "second-order"}}, 1, [1, 1]),
        ({**SEVERAL, "base": {"batch_size": 2}}, 1, [1, 1]),
        ({**SEVERAL, "base": {"seconds": 1}}, 1, [1, 1]),
        ({**SEVERAL, "generate": {"order": 4, "dim": 12, "rank": 1}}, 1, [1, 1]),
        ({**SEVERAL, "command": "complete", "base": {}}, 1, [1, 1]),
    ],
)
def test_which_runs_make_a_batch(tmp_path, changes, processes, sizes):
    made = jobs(tmp_path, **changes)
    batches = in_batches(made, processes)
    assert [len(batch) for batch in batches] == sizes
    assert {job.run.name for batch in batches for job in batch} == {job.run.name for job in made}


def test_small_files_only(tmp_path):
    data = tmp_path / "data.npy"
    data.write_bytes(bytes(2**20))
    found = in_batches(jobs(tmp_path, generate=None, data=str(data), seeds=3), 1)
    assert [len(batch) for batch in found] == [3]
    data.write_bytes(bytes(2**20 + 1))
    assert len(in_batches(jobs(tmp_path, generate=None, data=str(data), seeds=3), 1)) == 3
