"""Ctrl-C and SIGTERM, answered within a second wherever the process is, and by saving the state where a run has one."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_PATIENCE = 0.8  # seconds in which a handler should have had its turn
INTERRUPTED = 130  # exit code

terminated: list[int] = []  # signals that `terminate` was called for
_answered: list[int] = []  # signals of which a Python handler has taken notice
_saving: list[int] = []  # one item for each `StopSignals` block: what may not be cut off


def listen() -> None:
    """Handle both signals by `terminate`; Ctrl-C stays ignored where it is, as in the background of a script."""
    terminated.clear()  # of an earlier call in this process
    for number in _heard():
        signal.signal(number, terminate)


def _heard() -> list[signal.Signals]:
    return [s for s in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(s) is not signal.SIG_IGN]


def terminate(number: int, frame: FrameType | None) -> None:
    """Handler of both signals outside `StopSignals`: KeyboardInterrupt, or the end at once during an import.

    Libraries swallow exceptions while they are imported, or are left half imported; and there is nothing to save yet.
    """
    _answered.append(number)
    terminated.append(number)
    if _is_import(frame):
        leave()
    raise KeyboardInterrupt


def _is_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def leave() -> NoReturn:
    """Say so and end, without waiting for anything."""
    os.write(2, b"Error: interrupted.\n")
    os._exit(INTERRUPTED)


def watch() -> None:
    """Leave also from a computation that takes longer than `_PATIENCE` and lets no Python handler have its turn.

    Python runs handlers between its own instructions only; a large singular value decomposition is one. Files are
    written under another name and renamed when whole, so nothing is left cut off.
    """
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)

    def wait() -> None:
        while signals := os.read(ear, 64):
            if {signal.SIGINT, signal.SIGTERM} & set(signals):
                time.sleep(_PATIENCE)
                if not _answered and not _saving:
                    leave()
                _answered.clear()

    threading.Thread(target=wait, daemon=True).start()


class StopSignals:
    """Within the block, Ctrl-C and SIGTERM set `received` instead of ending the process; a second Ctrl-C ends it.

    Args:
        patience: seconds after which KeyboardInterrupt is raised all the same; None waits for the block to ask.
    """

    received = False

    def __init__(self, patience: float | None = None) -> None:
        self._patience = patience

    def __enter__(self) -> StopSignals:
        _saving.append(1)
        if terminated:  # earlier, and an import has swallowed it
            self.received = True
        self._before = {s: signal.signal(s, self._receive) for s in _heard()}
        if self._patience is not None:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self._patience is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        _saving.pop()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        _answered.append(number)
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True
        if self._patience is not None:
            signal.setitimer(signal.ITIMER_REAL, self._patience)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def finish(code: int) -> NoReturn:
    """Exit; after an interruption at once, for taking torch down takes a second."""
    if code == INTERRUPTED:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
