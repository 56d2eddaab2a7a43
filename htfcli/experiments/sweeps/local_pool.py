"""Pools: what executes the runs of a sweep, and the pool of processes on this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Protocol

from htfcli.engine.runtime.processes import usable_cores
from htfcli.experiments.sweeps.job import Job, Outcome, execute


class Task(Protocol):
    """Runs submitted to a pool; `result` raises an error if their worker was lost."""

    def done(self) -> bool: ...

    def result(self) -> list[Outcome]: ...

    def __hash__(self) -> int: ...


class Pool(Protocol):
    """Executes jobs; a context manager that waits for its workers at the end."""

    def capacity(self) -> int:
        """Number of tasks that run at the same time."""

    def submit(self, jobs: Sequence[Job]) -> Task:
        """Start jobs in one process as soon as a worker is free."""

    def stop(self) -> None:
        """End all runs; their state is saved."""


class LocalPool:
    """A pool of processes on this machine, each with a share of the cores and, if there are GPUs, one GPU.

    Args:
        workers: runs at the same time. threads: cores per run; an equal share of all cores if None.
    """

    def __init__(self, workers: int, threads: int | None = None) -> None:
        threads = threads or max(1, usable_cores() // workers)
        gpus = visible_gpus()
        self._workers = workers
        self._stopped = threading.Event()
        self._places: SimpleQueue[Mapping[str, str]] = SimpleQueue()
        for number in range(workers):
            gpu = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
            self._places.put(gpu | share_of_cores(threads))
        self._threads = ThreadPoolExecutor(workers)  # each only waits for a process

    def capacity(self) -> int:
        return self._workers

    def submit(self, jobs: Sequence[Job]) -> Task:
        return self._threads.submit(self._execute, jobs)

    def _execute(self, jobs: Sequence[Job]) -> list[Outcome]:
        place = self._places.get()
        try:
            return execute(jobs, place, self._stopped.is_set)
        finally:
            self._places.put(place)

    def stop(self) -> None:
        self._stopped.set()

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._threads.shutdown()


def share_of_cores(threads: int) -> dict[str, str]:
    """Environment variables of a process that may use this many cores."""
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def visible_gpus() -> list[str]:
    """Values of `CUDA_VISIBLE_DEVICES`, one per GPU."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    from torch import cuda

    return [str(number) for number in range(cuda.device_count())]


def default_workers() -> int:
    """One worker per GPU, or one per core if there is no GPU."""
    return len(visible_gpus()) or usable_cores()
