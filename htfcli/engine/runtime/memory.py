"""How much memory there is, and refusing in a line what does not fit, before the operating system ends the process."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from htfcli.errors import DataError

T = TypeVar("T")


def available_memory() -> int | None:
    """Bytes that this process can still get: of the machine, its container and its own limits; None if none says."""
    found = [read() for read in (_machine, _container, _limits)]
    known = [size for size in found if size is not None]
    return max(0, min(known)) if known else None


def refuse_unless_fits(what: str, needed: int, shape: str, next_step: str = "") -> None:
    """Raise DataError if there is no memory for something.

    Args:
        what: it is. needed: bytes. shape: the sizes that the user knows it by. next_step: what to do.
    """
    available = available_memory()
    if available is not None and needed > available:
        got = f"{shape}: {in_bytes(needed)}"
        raise DataError(f"{what} does not fit in memory", got=got, allowed=in_bytes(available), next_step=next_step)


def in_bytes(size: int) -> str:
    """A size in a unit that leaves it readable."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024  # type: ignore[assignment]
    return f"{size:.4g} TiB"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, numpy or torch says that memory was not to be had."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error)


def requested_bytes(error: BaseException) -> str:
    """What an error of torch or numpy says was asked for, in a readable unit; empty if it does not."""
    torch_said = re.search(r"tried to allocate (\d+) bytes", str(error))
    if torch_said:
        return in_bytes(int(torch_said[1]))
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
    except (OSError, ValueError):  # "max" is no limit
        return None
