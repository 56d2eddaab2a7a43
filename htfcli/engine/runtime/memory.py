"""Memory: how much is available, and a one-line error for what does not fit, before the system kills the process."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from htfcli.config.units import format_bytes
from htfcli.errors import DataError

T = TypeVar("T")


def available_memory() -> int | None:
    """Bytes that this process can still allocate, by machine, container and process limits; None if all are unknown."""
    found = [read() for read in (_machine, _container, _limits)]
    known = [size for size in found if size is not None]
    return max(0, min(known)) if known else None


def refuse_unless_fits(what: str, needed: int, shape: str, next_step: str = "") -> None:
    """Raise DataError if something does not fit in memory.

    Args:
        what: its name. needed: bytes. shape: its sizes, as the user knows them. next_step: advice for the user.
    """
    available = available_memory()
    if available is not None and needed > available:
        got = f"{shape}: {format_bytes(needed)}"
        raise DataError(f"{what} does not fit in memory", got=got, allowed=format_bytes(available), next_step=next_step)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, numpy or torch means that memory could not be allocated."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error)


def requested_bytes(error: BaseException) -> str:
    """The size that torch or numpy could not allocate, from its error message; empty if it is not given."""
    torch_said = re.search(r"tried to allocate (\d+) bytes", str(error))
    if torch_said:
        return format_bytes(int(torch_said[1]))
    numpy_said = re.search(r"Unable to allocate ([\d.]+ \w+)", str(error))
    return numpy_said[1] if numpy_said else ""


def _machine() -> int | None:
    lines = _read("/proc/meminfo", lambda text: dict(line.split(":") for line in text.splitlines() if ":" in line))
    if lines and "MemAvailable" in lines:
        return sum(int(lines[key].split()[0]) * 1024 for key in ("MemAvailable", "SwapFree") if key in lines)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _container() -> int | None:
    limit = _read("/sys/fs/cgroup/memory.max", int)
    used = _read("/sys/fs/cgroup/memory.current", int)
    return None if limit is None or used is None else limit - used


def _limits() -> int | None:
    status = _read("/proc/self/status", lambda text: dict(line.split(":") for line in text.splitlines() if ":" in line))
    left = []
    for kind, key in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            left.append(limit - (int(status[key].split()[0]) * 1024 if status else 0))
    return min(left, default=None)


def _read(path: str, parse: Callable[[str], T]) -> T | None:
    try:
        return parse(Path(path).read_text())
    except (OSError, ValueError):  # "max" means no limit
        return None
