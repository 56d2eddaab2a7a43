"""Fixtures: running a command line in this process, and in a real shell."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from htfcli.app import main

# Two threads are ten times slower than one where another process wants the second core, and the cases are small.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# The same examples in every run, however slow the machine; --hypothesis-profile=random draws others (.ci/nightly)
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", max_examples=2000, deadline=None, database=None, print_blob=True)
settings.load_profile("fixed")
# A process that a script starts in the background ignores Ctrl-C, and so do its children; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """Tests marked `long` are run only by an -m that names them."""
    if "long" not in (config.option.markexpr or ""):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_terminal_summary(terminalreporter):
    """Print how many faults were injected and broken files read, by kind."""
    tables: dict[str, dict[tuple[str, ...], float]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, row in report.user_properties:
            if name in ("fault", "fuzz"):
                key = (str(row[0]), str(row[1]).partition("-seed")[0])
                counts = tables.setdefault(name, {})
                counts[key] = counts.get(key, 0) + row[2]
    for name, counts in sorted(tables.items()):
        terminalreporter.write_sep("-", f"{name}: {sum(counts.values()):,} times")
        for (what, where), count in sorted(counts.items()):
            terminalreporter.write_line(f"{what:45} {where:35} {count:8,}")


@pytest.fixture(autouse=True)
def _seeded():
    """The same random numbers in every run, for what draws from the global generators."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_gpu_unless_asked(request, monkeypatch):
    """The same paths on every machine: only tests marked `cuda` see a GPU; the processes that others start do not."""
    if request.node.get_closest_marker("cuda") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@dataclass
class Result:
    """Exit code, stdout and stderr of a command line."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> str:
        """The error: one line, and nothing else on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("Error: ")
        return lines[0].removeprefix("Error: ")


@pytest.fixture
def htf(capfd, tmp_path, monkeypatch):
    """Run `htf ...` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> Result:
        code = main([str(arg) for arg in args])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def shell(tmp_path):
    """Run a line in bash, in an empty folder, with `htf` being the code under test."""
    scripts = tmp_path / "bin"
    scripts.mkdir()
    script = scripts / "htf"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m htfcli "$@"\n')
    script.chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "PYTHONPATH": str(root), "HTF_DEBUG": "0"}

    def run(line: str, timeout: float = 120) -> Result:
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout
        )
        return Result(done.returncode, done.stdout, done.stderr)

    run.folder, run.environment = folder, environment  # type: ignore[attr-defined]
    return run
