"""The command line as a user meets it: a real shell, real pipes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

GENERATE = "htf generate tensor --order 4 --dim 4 --rank 2 --observed 0.5 --seed 0"
FIT = "--width 4 --iterations 40 --record-every 10"


def test_generate_fit_measure(shell):
    done = shell(f"set -o pipefail; {GENERATE} -o - | htf fit - {FIT} -o - | htf measure-rank -")
    assert done.code == 0, done.err
    assert [r["node"] for r in done.records] == ["{0}", "{1}", "{2}", "{3}", "{0,1}", "{2,3}"]
    assert len(done.err.splitlines()) == 3  # what was generated, what is fitted, how it ended
    quiet = shell(f"{GENERATE} -o - -q | htf fit - {FIT} -o - -q | htf measure-rank -")
    assert (quiet.out, quiet.err) == (done.out, "")


def test_files_and_stdin_are_the_same(shell):
    assert shell(f"{GENERATE} -o data.safetensors && htf fit data.safetensors {FIT} -o run").code == 0
    assert shell("htf measure-rank run").out == shell("htf measure-rank - < run/model.safetensors").out
    assert shell("htf inspect data.safetensors").out == shell("cat data.safetensors | htf inspect -").out
    assert shell("htf inspect run/records.jsonl").out == shell("htf inspect - < run/records.jsonl").out
    assert shell("htf plot run -o a.png -q && htf plot - -o b.png -q < run/records.jsonl && cmp a.png b.png").code == 0
    (shell.folder / "x.csv").write_text("0,0,1\n0,1,2\n1,0,3\n1,1,4\n")
    assert shell("htf measure-rank x.csv").out == shell("htf measure-rank - < x.csv").out


def test_records_into_a_plot(shell):
    done = shell(f"set -o pipefail; {GENERATE} -o - -q | htf fit - {FIT} -o run -q | htf plot - -o - > x.png")
    assert (done.code, done.err) == (0, "")
    assert (shell.folder / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_broken_pipe_leaves_no_traceback(shell):
    shell(f"{GENERATE} -o data.safetensors")
    done = shell(
        "htf fit data.safetensors --width 4 --iterations 100000 --record-every 1 -o run | head -n 2; echo ${PIPESTATUS[0]}"
    )
    *records, status = done.out.splitlines()
    assert [json.loads(r)["iteration"] for r in records] == [0, 1]
    assert status == "1"
    assert "Traceback" not in done.err
    assert "BrokenPipe" not in done.err
    assert (shell.folder / "run/checkpoint.safetensors").exists()
    done = shell(
        "htf measure-rank data.safetensors | head -n 1; htf generate tensor --order 6 -o - | head -c 5 >/dev/null"
    )
    assert "Traceback" not in done.err


def test_an_empty_pipe_says_so(shell):
    done = shell("htf fit nowhere.npy -o - | htf measure-rank -")
    assert done.code == 1
    assert done.err.splitlines() == [
        "Error: nowhere.npy does not exist.",
        "Error: stdin is empty. Did the command before the pipe fail?",
    ]


def test_binary_is_not_written_to_a_terminal(shell):
    """Under a pseudo-terminal, where stdout is one."""
    done = shell(f"script -qec '{GENERATE} -o -' /dev/null < /dev/null")
    assert "-o - writes binary data, and stdout is a terminal. Redirect it, or name a file." in done.out.replace(
        "\r\n", " "
    )
    done = shell("script -qec 'htf measure-rank -' /dev/null")
    assert "Error" in done.out


def test_records_are_a_table_on_a_terminal(shell):
    shell(f"{GENERATE} -o data.safetensors && htf fit data.safetensors {FIT} -o run")
    done = shell("script -qec 'htf measure-rank run' /dev/null < /dev/null")
    assert "effective" in done.out
    assert "{0,1}" in done.out
    assert '"kind"' not in done.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_and_resume(shell, number):
    """Stopped by a signal: the state is saved, exit code 130; resumed: every byte as if nothing had happened."""
    settings = "data.safetensors --width 4 --iterations 3000 --record-every 50 --until-loss 0 -q"
    assert shell(f"{GENERATE} -o data.safetensors && htf fit {settings} -o whole").code == 0
    process = subprocess.Popen(
        ["htf", "fit", *settings.split(), "-o", "part"],
        cwd=shell.folder, env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    records = shell.folder / "part" / "records.jsonl"
    deadline = time.monotonic() + 60
    while not (records.exists() and records.stat().st_size > 0):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.startswith("Error: interrupted at iteration ")
    assert err.endswith("is saved, continue with: htf fit --resume -o part.\n")
    assert not (shell.folder / "part/model.safetensors").exists()
    assert shell("htf fit --resume -o part").code == 0
    for name in ("records.jsonl", "model.safetensors"):
        assert (shell.folder / "part" / name).read_bytes() == (shell.folder / "whole" / name).read_bytes(), name


def test_sigterm_before_there_is_anything_to_save(shell):
    process = subprocess.Popen(
        ["htf", "fit", "-", "-o", "-"],
        cwd=shell.folder, env=shell.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(0.5)  # waiting for stdin, or still importing: both must end well
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1


def test_an_unwritable_folder(shell):
    (shell.folder / "locked").mkdir(mode=0o500)
    shell(f"{GENERATE} -o data.safetensors")
    if os.geteuid() == 0:
        done = shell(f"htf fit data.safetensors {FIT} -o /proc/run -q")
        assert done.error == "cannot write the run folder /proc/run: No such file or directory."
    else:
        done = shell(f"htf fit data.safetensors {FIT} -o locked/run -q")
        assert done.error == "cannot write the run folder locked/run: Permission denied."
    assert done.code == 1


def test_a_full_disk(shell):
    """A limit on file sizes stands for a disk that is full: one line, the earlier checkpoint intact."""
    shell(f"{GENERATE} -o data.safetensors && htf fit data.safetensors --width 4 --iterations 20 -o run -q")
    before = (shell.folder / "run/checkpoint.safetensors").read_bytes()
    done = shell("ulimit -f 4; htf fit --resume -o run --iterations 100000 --checkpoint-every 0 -q > /dev/null")
    assert done.code == 1
    assert done.error.startswith("cannot write run/records.jsonl: File too large")
    assert len((shell.folder / "run/checkpoint.safetensors").read_bytes()) == len(before)
    assert shell("htf inspect run/checkpoint.safetensors").code == 0
    done = shell("ulimit -f 4; htf generate tensor --dim 16 -o big.safetensors")
    assert done.code == 1
    assert done.error.startswith("cannot write big.safetensors: File too large")
    assert not [p.name for p in shell.folder.iterdir() if "big" in p.name]


def test_debug_shows_the_traceback(shell):
    done = shell("HTF_DEBUG=1 htf measure-rank nowhere")
    assert "Traceback" in done.err
    assert "DataError: nowhere does not exist." in done.err
    assert done.code == 1
    assert shell("HTF_DEBUG=1 htf measure-rank nowhere --top 0").code == 2
