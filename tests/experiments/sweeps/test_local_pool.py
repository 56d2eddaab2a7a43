"""The pool of processes on this machine: places, cores and GPUs."""

from __future__ import annotations

import threading

import pytest

from htfcli.experiments.sweeps import local_pool
from htfcli.experiments.sweeps.job import Outcome
from htfcli.experiments.sweeps.local_pool import LocalPool, default_workers, visible_gpus


@pytest.fixture
def places(monkeypatch):
    """Environments of the tasks, in the order in which they started."""
    seen = []

    def execute(jobs, environment, stopped):
        seen.append(dict(environment))
        return [Outcome("interrupted" if stopped() else "finished") for _ in jobs]

    monkeypatch.setattr(local_pool, "execute", execute)
    return seen


def test_cores_are_shared_equally(places, monkeypatch):
    monkeypatch.setattr(local_pool, "usable_cores", lambda: 7)
    with LocalPool(2) as pool:
        assert pool.capacity() == 2
        assert pool.submit(["a", "b"]).result() == [Outcome("finished")] * 2
    assert places == [{"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}]
    with LocalPool(9, threads=4) as pool:
        pool.submit(["a"]).result()
    assert places[1]["OMP_NUM_THREADS"] == "4"


def test_each_process_has_its_gpu(places, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    assert visible_gpus() == ["4", "6"]
    assert default_workers() == 2
    both = threading.Barrier(3, timeout=60)
    execute = local_pool.execute

    def together(jobs, environment, stopped):
        both.wait()
        return execute(jobs, environment, stopped)

    monkeypatch.setattr(local_pool, "execute", together)
    with LocalPool(3) as pool:
        for task in [pool.submit(["a"]) for _ in range(3)]:
            task.result()
    assert sorted(place["CUDA_VISIBLE_DEVICES"] for place in places) == ["4", "4", "6"]


def test_without_a_gpu_there_is_a_worker_per_core(monkeypatch):
    monkeypatch.setattr(local_pool, "usable_cores", lambda: 5)
    assert visible_gpus() == []
    assert default_workers() == 5


def test_stopping(places):
    with LocalPool(1) as pool:
        pool.stop()
        assert pool.submit(["a"]).result() == [Outcome("interrupted")]
