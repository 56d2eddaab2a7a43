"""Processes on several cores that end with their parent, and ignore its Ctrl-C.

This module does not import torch, so that processes that need no torch start fast.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

Result = TypeVar("Result")
PARENT_PIPE = "HTF_PARENT_PIPE"  # environment variable of processes whose stdin is a pipe that their parent keeps open


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    workers: int, function: Callable[..., Result], calls: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[int, Result]]:
    """Compute function(*call) for each call in several processes; yields (number, result) pairs in any order.

    Closing the iteration drops the calls that are not finished.

    Args:
        workers: number of processes; with 0 or 1 this process computes all calls, in order.
    Raises:
        BrokenProcessPool: if a process was killed. Any error of `function`.
    """
    workers = min(workers, len(calls))
    if workers <= 1:
        for number, call in enumerate(calls):
            yield number, function(*call)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_follow_parent)
    try:
        numbers = {pool.submit(function, *call): number for number, call in enumerate(calls)}
        for future in as_completed(list(numbers)):
            yield numbers.pop(future), future.result()
    except BaseException:  # closed or failed: the results of what still runs are not needed
        for process in list(pool._processes.values()):
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Ignore Ctrl-C, which a terminal sends to the parent too, and end when the parent ends, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def end_with_parent() -> None:
    """With `PARENT_PIPE` set to 1, send this process SIGTERM, upon which it saves its state, when stdin is closed.

    The parent keeps the other end of the pipe open; it is closed when the parent ends, even if it is killed.
    """
    if os.environ.pop(PARENT_PIPE, "") != "1":
        return

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
