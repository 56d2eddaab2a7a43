from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from htfcli.engine.runtime.processes import in_processes, usable_cores


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_call_is_done_once(workers):
    calls = [(n, 10) for n in range(7)]
    assert sorted(in_processes(workers, operator.mul, calls)) == [(n, 10 * n) for n in range(7)]
    assert list(in_processes(workers, operator.mul, [])) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_a_call_are_raised(workers):
    with pytest.raises(ZeroDivisionError):
        list(in_processes(workers, operator.truediv, [(1, 2), (1, 0)]))


def test_closing_drops_what_has_not_begun():
    started = time.monotonic()
    results = in_processes(2, time.sleep, [(0,)] + [(0.2,)] * 100)
    next(results)
    results.close()
    assert time.monotonic() - started < 9


def test_usable_cores():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


SCRIPT = """
import multiprocessing, time
from htfcli.engine.runtime.processes import in_processes
if __name__ == "__main__":
    results = in_processes(2, time.sleep, [(0,), (60,), (60,)])
    next(results)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_processes_do_not_outlive_their_parent(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        assert all(map(is_running, children))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, children))
