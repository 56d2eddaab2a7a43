"""The pool of a Dask cluster, whose scheduler and workers are threads of this process."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from htfcli.errors import ConfigError, RunError
from htfcli.experiments.sweeps import dask_pool
from htfcli.experiments.sweeps.dask_pool import DaskPool
from htfcli.experiments.sweeps.job import Outcome

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of dask, whose threads close their files late


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of one worker with two threads, on which runs end as `ends` says."""

    def execute(jobs, environment, stopped):
        (job,) = jobs
        if job.run.name == "waits":
            while not stopped():
                time.sleep(0.01)
            return [Outcome("interrupted")]
        if job.run.name == "breaks":
            raise OSError("no space")
        return [Outcome("finished", environment["OMP_NUM_THREADS"])]

    monkeypatch.setattr(dask_pool, "execute", execute)
    monkeypatch.setattr(dask_pool, "_ASK_EVERY", 0.0)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="tcp", host="127.0.0.1"
    ) as found:
        yield found


def job(name):
    return SimpleNamespace(run=SimpleNamespace(name=name))


def test_runs_and_their_ends(cluster):
    with DaskPool(cluster.scheduler_address, threads=3) as pool:
        assert pool.capacity() == 2
        done, broken, waiting = (pool.submit([job(name)]) for name in ("ends", "breaks", "waits"))
        assert done.result() == [Outcome("finished", "3")]
        assert broken.result() == [Outcome("failed", "no space")]
        assert not waiting.done()
        pool.stop()
        assert waiting.result() == [Outcome("interrupted")]


def test_the_scheduler_is_lost(cluster):
    with DaskPool(cluster.scheduler_address) as pool:
        task = pool.submit([job("waits")])
        task.future.cancel()
        with pytest.raises(
            RunError, match=r"lost the Dask scheduler \(got tcp://.*\)\. The state of all runs is saved"
        ):
            task.result()
        pool.stop()


def test_no_scheduler(monkeypatch):
    monkeypatch.setattr(dask_pool, "_CONNECT", "0.2s")
    with pytest.raises(
        ConfigError, match=r"no Dask scheduler answers \(got nonsense\)\. Start one with: dask scheduler"
    ):
        DaskPool("nonsense")


def test_dask_is_not_installed(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError

    monkeypatch.setattr(dask_pool.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"--dask needs dask \(got no distributed\)\. Install it with: pip install"):
        DaskPool("tcp://127.0.0.1:1")
