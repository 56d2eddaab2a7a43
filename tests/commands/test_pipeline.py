"""The command line as a user meets it: a real shell, real pipes, real signals.

A process takes seconds to start, so everything that needs no shell is run in this one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GENERATE = "generate tensor --order 4 --dim 4 --rank 2 --observed 0.5 --seed 0"
FIT = "--width 4 --iterations 40 --record-every 10"
DEADLINE = 300  # seconds; a machine that is busy is not an error


@pytest.fixture
def here(htf, shell, monkeypatch):
    """Run `htf ...` in this process, in the folder of the shell."""
    monkeypatch.chdir(shell.folder)
    return lambda line: htf(*line.split())


@pytest.fixture
def piped(here, monkeypatch):
    """The same with a file for stdin."""

    def run(line, path):
        with open(path, encoding="utf-8") as file, monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", file)
            return here(line)

    return run


def test_generate_fit_measure(shell, here):
    done = shell(f"set -o pipefail; htf {GENERATE} -o - | htf fit - {FIT} -o - | htf measure-rank -", DEADLINE)
    assert done.code == 0, done.err
    assert [r["node"] for r in done.records] == ["{0}", "{1}", "{2}", "{3}", "{0,1}", "{2,3}"]
    assert len(done.err.splitlines()) == 3  # what was generated, what is fitted, how it ended
    assert here(f"{GENERATE} -o data.safetensors -q").err == ""
    assert here(f"fit data.safetensors {FIT} -o run -q").err == ""
    assert here("measure-rank run").out == done.out


def test_files_and_stdin_are_the_same(here, piped):
    assert here(f"{GENERATE} -o data.safetensors").code == here(f"fit data.safetensors {FIT} -o run").code == 0
    Path("x.csv").write_text("0,0,1\n0,1,2\n1,0,3\n1,1,4\n")
    for command, argument, file in (
        ("measure-rank", "run", "run/model.safetensors"),
        ("measure-rank", "x.csv", "x.csv"),
        ("inspect", "data.safetensors", "data.safetensors"),
        ("inspect", "run/records.jsonl", "run/records.jsonl"),
    ):
        done = here(f"{command} {argument}")
        assert (done.code, piped(f"{command} -", file).out) == (0, done.out), (command, argument)
    assert here("plot run -o a.png").code == piped("plot - -o b.png", "run/records.jsonl").code == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_records_into_a_plot(shell, here):
    assert here(f"{GENERATE} -o data.safetensors").code == 0
    done = shell(f"set -o pipefail; htf fit data.safetensors {FIT} -o run -q | htf plot - -o - > x.png", DEADLINE)
    assert (done.code, done.err) == (0, "")
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")


def test_a_broken_pipe_leaves_no_traceback(shell, here):
    here(f"{GENERATE} -o data.safetensors")
    done = shell(
        "htf fit data.safetensors --width 4 --iterations 100000 --record-every 1 -o run | head -n 2; echo ${PIPESTATUS[0]}",
        DEADLINE,
    )
    *records, status = done.out.splitlines()
    assert [json.loads(r)["iteration"] for r in records] == [0, 1]
    assert status == "1"
    assert "Traceback" not in done.err
    assert "BrokenPipe" not in done.err
    assert Path("run/checkpoint.safetensors").exists()
    done = shell(
        "htf measure-rank data.safetensors | head -n 1; htf generate tensor -o - | head -c 5 >/dev/null", DEADLINE
    )
    assert "Traceback" not in done.err


def test_an_empty_pipe_says_so(shell):
    done = shell("htf fit nowhere.npy -o - | htf measure-rank -", DEADLINE)
    assert done.code == 1
    assert sorted(done.err.splitlines()) == [
        "Error: nowhere.npy does not exist.",
        "Error: stdin is empty. Did the command before the pipe fail?",
    ]


def test_binary_is_not_written_to_a_terminal(shell):
    """Under a pseudo-terminal, where stdout is one."""
    done = shell(f"script -qec 'htf {GENERATE} -o -' /dev/null < /dev/null", DEADLINE)
    assert "-o - writes binary data, and stdout is a terminal. Redirect it, or name a file." in done.out.replace(
        "\r\n", " "
    )
    done = shell("script -qec 'htf measure-rank -' /dev/null", DEADLINE)
    assert "Error" in done.out


def test_records_are_a_table_on_a_terminal(shell, here):
    assert here(f"{GENERATE} -o data.safetensors").code == here(f"fit data.safetensors {FIT} -o run").code == 0
    done = shell("script -qec 'htf measure-rank run' /dev/null < /dev/null", DEADLINE)
    assert "effective" in done.out
    assert "{0,1}" in done.out
    assert '"kind"' not in done.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_and_resume(shell, here, number):
    """Stopped by a signal: the state is saved, exit code 130; resumed: every byte as if nothing had happened."""
    settings = "data.safetensors --width 4 --record-every 50 --until-loss 0 -q"
    assert here(f"{GENERATE} -o data.safetensors").code == 0
    process = subprocess.Popen(
        ["htf", "fit", *settings.split(), "--iterations", "100000000", "-o", "part"],
        cwd=shell.folder, env=shell.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    records = shell.folder / "part" / "records.jsonl"
    deadline = time.monotonic() + DEADLINE
    while not (records.exists() and records.stat().st_size > 0):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, err
    assert err.startswith("Error: interrupted at iteration ")
    assert err.endswith("is saved, continue with: htf fit --resume -o part.\n")
    assert not (shell.folder / "part/model.safetensors").exists()
    end = int(err.split()[4].strip(";")) + 120
    assert here(f"fit --resume --iterations {end} -o part").code == 0
    assert here(f"fit {settings} --iterations {end} -o whole").code == 0
    for name in ("records.jsonl", "model.safetensors"):
        assert (shell.folder / "part" / name).read_bytes() == (shell.folder / "whole" / name).read_bytes(), name


def handles(process, number):
    """Whether a process has a handler for a signal."""
    mask = Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at /proc")
def test_sigterm_before_there_is_anything_to_save(shell):
    process = subprocess.Popen(
        ["htf", "fit", "-", "-o", "-"],
        cwd=shell.folder, env=shell.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + DEADLINE
    while not handles(process, signal.SIGTERM):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # waiting for stdin, or still importing: both must end well
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1


def test_an_unwritable_folder(here):
    Path("locked").mkdir(mode=0o500)
    here(f"{GENERATE} -o data.safetensors")
    if os.geteuid() == 0:
        done = here(f"fit data.safetensors {FIT} -o /proc/run -q")
        assert done.error == "cannot write the run folder /proc/run: No such file or directory."
    else:
        done = here(f"fit data.safetensors {FIT} -o locked/run -q")
        assert done.error == "cannot write the run folder locked/run: Permission denied."
    assert done.code == 1


def test_a_full_disk(shell, here):
    """A limit on file sizes stands for a disk that is full: one line, the earlier checkpoint intact."""
    here(f"{GENERATE} -o data.safetensors")
    assert here("fit data.safetensors --width 4 --iterations 20 -o run -q").code == 0
    before = Path("run/checkpoint.safetensors").read_bytes()
    done = shell(
        "ulimit -f 4; htf fit --resume -o run --iterations 100000 --checkpoint-every 0 -q > /dev/null", DEADLINE
    )
    assert done.code == 1
    assert done.error.startswith("cannot write run/records.jsonl: File too large")
    assert len(Path("run/checkpoint.safetensors").read_bytes()) == len(before)
    assert here("inspect run/checkpoint.safetensors").code == 0
    done = shell("ulimit -f 4; htf generate tensor --dim 16 -o big.safetensors", DEADLINE)
    assert done.code == 1
    assert done.error.startswith("cannot write big.safetensors: File too large")
    assert not [p.name for p in shell.folder.iterdir() if "big" in p.name]


def test_debug_shows_the_traceback(here, monkeypatch):
    monkeypatch.setenv("HTF_DEBUG", "1")
    done = here("measure-rank nowhere")
    assert "Traceback" in done.err
    assert "DataError: nowhere does not exist." in done.err
    assert done.code == 1
    assert here("measure-rank nowhere --top 0").code == 2
