"""Timing that can be trusted: candidates in turn in one process, warmed up, medians, and what machine it was."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


def machine() -> str:
    """Processor, cores, threads, torch."""
    names = [line.split(":")[1].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    processor = names[0] if names else platform.processor()
    return f"{processor}, {len(names)} cores{gpu}, torch {torch.__version__}, Python {platform.python_version()}"


def interleaved(
    candidates: dict[str, Callable[[], None]], seconds: float = 1.0, rounds: int = 7, synchronize: bool = False
) -> dict[str, float]:
    """Median seconds a call of each candidate, measured in turn A B C A B C ...

    Each round calls a candidate as often as fits `seconds`; the first round is a warm-up and does not count.
    """
    calls: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, function in candidates.items():
            count = calls.get(name, 1)
            started = time.perf_counter()
            for _ in range(count):
                function()
            if synchronize:
                torch.cuda.synchronize()
            each = (time.perf_counter() - started) / count
            if turn:
                times[name].append(each)
            else:
                calls[name] = max(1, min(2000, int(seconds / rounds / each)))
    return {name: statistics.median(values) for name, values in times.items()}


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def memory(field: str) -> float:
    """MiB of this process from /proc: VmRSS now, VmHWM at most so far."""
    return next(int(line.split()[1]) / 1024 for line in _read("/proc/self/status") if line.startswith(field))


def _read(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
