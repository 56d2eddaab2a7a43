"""Where, for how long and how large the jobs run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]


class Job(Protocol):
    """A module of this package: its `rows` become a CSV file and a table of the report."""

    NAME: str
    TITLE: str
    ABOUT: str
    SHARE: float

    def rows(self, setting: Setting) -> Iterator[Row]: ...


@dataclass(frozen=True)
class Setting:
    """What a job is given.

    Args:
        device: where to compute. out: folder of results. smoke: toy sizes. deadline: of the job, by time.monotonic().
    """

    device: torch.device
    out: Path
    smoke: bool
    deadline: float

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, function: Any) -> tuple[float, Any]:
        """Seconds that a function takes, to its last operation on the device, and its result."""
        self.synchronize()
        started = time.perf_counter()
        found = function()
        self.synchronize()
        return time.perf_counter() - started, found


def python(*arguments: object) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, *map(str, arguments)]


def environment() -> dict[str, str]:
    """That of child processes: the package is found wherever they start."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


def output_of(command: list[str], seconds: float) -> tuple[int | None, str]:
    """Exit code, None if it was stopped after so many seconds, and all that a command said."""
    options: dict[str, Any] = {"cwd": ROOT, "env": environment(), "text": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as process:
        try:
            said = process.communicate(timeout=max(1.0, seconds))[0]
            return process.returncode, said
        except subprocess.TimeoutExpired:
            process.kill()
            return None, process.communicate()[0]
