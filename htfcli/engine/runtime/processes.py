"""Work on several cores, by processes that neither outlive their parent nor die of its Ctrl-C.

This module needs no torch, so that processes whose work does not either start fast.
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
LEASH = "HTF_LEASH"  # environment variable of processes that must not outlive the one at the other end of their stdin


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    workers: int, function: Callable[..., Result], calls: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[int, Result]]:
    """Number and result of each call function(*call) as it is done, in any order; calls not done are dropped when the
    iteration is closed.

    Args:
        workers: processes; with one or none, this process does it all, in order.
    Raises:
        BrokenProcessPool: if a process was killed. Whatever `function` raises.
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
    except BaseException:  # closed, or failed: what still runs is not wanted
        for process in list(pool._processes.values()):
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Leave Ctrl-C, which a terminal sends to all, to the parent, and end when it has ended, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def follow_leash() -> None:
    """With `LEASH` set, end as by SIGTERM, which saves the state, once the other end of stdin is closed.

    A parent that is killed closes it too.
    """
    if os.environ.pop(LEASH, "") != "1":
        return

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
