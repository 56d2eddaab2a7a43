"""Runs of a sweep on a Dask cluster, whose workers have access to the sweep's folder and have htf installed.

If a worker is lost, Dask passes its runs to other workers, which continue from the checkpoints.
"""

from __future__ import annotations

import importlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from htfcli.errors import ConfigError, RunError
from htfcli.experiments.sweeps.job import Job, Outcome, execute
from htfcli.experiments.sweeps.local_pool import Task, share_of_cores

_CONNECT = "10s"  # to wait for the scheduler to answer
_ASK_EVERY = 1.0  # seconds between two requests of a worker whether the sweep has been stopped


class DaskPool:
    """A pool of the workers of a Dask scheduler; one run per thread of each worker.

    Args:
        address: of the scheduler, as tcp://host:8786. threads: cores per run (1).
    Raises:
        ConfigError: if dask is not installed, or no scheduler answers.
    """

    def __init__(self, address: str, threads: int | None = None) -> None:
        distributed = _distributed()
        self._address = address
        for name in ("distributed", "distributed.client"):  # our errors report what matters
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            self._client = distributed.Client(address, timeout=_CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError):
            advice = "Start one with: dask scheduler; and workers with: dask worker ADDRESS."
            raise ConfigError("no Dask scheduler answers", got=address, next_step=advice) from None
        self._environment = share_of_cores(threads or 1)
        self._stopped = f"htf-stopped-{uuid.uuid4().hex}"
        self._event = distributed.Event(self._stopped, client=self._client)

    def capacity(self) -> int:
        """One run per thread; at least one, which waits while there is no worker."""
        with self._scheduler():
            return sum(self._client.nthreads().values()) or 1

    def submit(self, jobs: Sequence[Job]) -> Task:
        with self._scheduler():
            key = f"{jobs[0].run.name}-{uuid.uuid4().hex[:8]}"
            future = self._client.submit(_execute, jobs, self._environment, self._stopped, key=key, pure=False)
            return _Submitted(future, self._scheduler)

    def stop(self) -> None:
        with self._scheduler():
            self._event.set()

    @contextmanager
    def _scheduler(self) -> Iterator[None]:
        """Turn the loss of the scheduler within the block into a RunError."""
        try:
            yield
        except (OSError, CancelledError, TimeoutError):
            advice = "The state of all runs is saved; start a scheduler and the same sweep again."
            raise RunError("lost the Dask scheduler", got=self._address, next_step=advice) from None

    def __enter__(self) -> DaskPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close(timeout=2)


@dataclass(frozen=True, eq=False)
class _Submitted:
    """A `Task` on the cluster; it is cancelled if the scheduler is lost."""

    future: Any
    scheduler: Callable[[], AbstractContextManager[None]]

    def done(self) -> bool:
        return bool(self.future.done())

    def result(self) -> list[Outcome]:
        with self.scheduler():
            outcomes: list[Outcome] = self.future.result()
            return outcomes


def _distributed() -> Any:
    """The module `distributed`; its functions have no type annotations."""
    try:
        return importlib.import_module("distributed")
    except ModuleNotFoundError:
        advice = "Install it with: pip install 'htf[distributed]'."
        raise ConfigError("--dask needs dask", got="no distributed", next_step=advice) from None


def _execute(jobs: Sequence[Job], environment: Mapping[str, str], stopped: str) -> list[Outcome]:
    """Run `execute` on a worker; `stopped` names the event that is set to stop the sweep."""
    event = _distributed().Event(stopped)
    asked = time.monotonic()

    def is_stopped() -> bool:
        nonlocal asked
        if time.monotonic() - asked < _ASK_EVERY:
            return False
        asked = time.monotonic()
        return bool(event.is_set())

    try:
        return execute(jobs, environment, is_stopped)
    except OSError as error:  # of this worker's disk; raised, it would read as the loss of the scheduler
        return [Outcome("failed", str(error)) for _ in jobs]
