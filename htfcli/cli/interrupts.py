"""Handling of Ctrl-C and SIGTERM: the process ends within a second, and a run saves its state first."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_PATIENCE = 0.8  # seconds for a Python handler to run; with the time to exit, the process ends within one second
INTERRUPTED = 130  # exit code

terminated: list[int] = []  # signals for which `terminate` was called
_handled: list[int] = []  # signals for which a Python handler has run
_saving: list[int] = []  # one item for each open `StopSignals` block, which must not be cut off


def listen() -> None:
    """Handle both signals by `terminate`; Ctrl-C stays ignored where it is, as in the background of a script."""
    terminated.clear()  # of an earlier call in this process
    for number in _not_ignored():
        signal.signal(number, terminate)


def _not_ignored() -> list[signal.Signals]:
    return [s for s in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(s) is not signal.SIG_IGN]


def terminate(number: int, frame: FrameType | None) -> None:
    """Handler of both signals outside of `StopSignals`: raises KeyboardInterrupt, or exits at once during an import.

    Libraries may suppress exceptions while they are imported, or be left half imported; nothing needs saving then.
    """
    _handled.append(number)
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
    """Print the message and exit, without waiting for anything."""
    os.write(2, b"Error: interrupted.\n")
    os._exit(INTERRUPTED)


def watch() -> None:
    """Exit `_PATIENCE` seconds after a signal if no Python handler has run by then.

    Python runs handlers only between its own instructions, and a large singular value decomposition is a single one.
    Files are written under another name and renamed when complete, so that none is cut off.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def wait() -> None:
        while signals := os.read(read_end, 64):
            if {signal.SIGINT, signal.SIGTERM} & set(signals):
                time.sleep(_PATIENCE)
                if not _handled and not _saving:
                    leave()
                _handled.clear()

    threading.Thread(target=wait, daemon=True).start()


class StopSignals:
    """Within the block, Ctrl-C and SIGTERM set `received` instead of ending the process; a second Ctrl-C ends it.

    Args:
        patience: seconds from the signal to a KeyboardInterrupt, if the block has not ended; None for no limit.
    """

    received = False

    def __init__(self, patience: float | None = None) -> None:
        self._patience = patience

    def __enter__(self) -> StopSignals:
        _saving.append(1)
        if terminated:  # earlier, in an import that suppressed the exception
            self.received = True
        self._before = {s: signal.signal(s, self._receive) for s in _not_ignored()}
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
        _handled.append(number)
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True
        if self._patience is not None:
            signal.setitimer(signal.ITIMER_REAL, self._patience)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def finish(code: int) -> NoReturn:
    """Exit; after an interruption without the usual clean-up, as unloading torch takes a second."""
    if code == INTERRUPTED:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
