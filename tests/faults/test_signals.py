"""SIGTERM and SIGINT: exit code 130, the state saved, and the command continues from it."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.faults.long_commands import LONG, until
from tests.faults.processes import ENVIRONMENT, whole

SOME = (0.0,)  # seconds from the first record to the signal
MORE = (0.0, 0.05, 0.2)
LATER = pytest.mark.long


@pytest.mark.parametrize(
    ("name", "number", "waits"),
    [
        pytest.param("fit", signal.SIGTERM, SOME, id="fit-SIGTERM"),
        pytest.param("train-cnn", signal.SIGINT, SOME, id="train-cnn-SIGINT"),
        *(
            pytest.param(name, number, MORE, id=f"{name}-{number.name}-often", marks=LATER)
            for name in ("fit", "train-cnn")
            for number in (signal.SIGTERM, signal.SIGINT)
        ),
    ],
)
def test_signals(server, place, name, number, waits, record_property):
    argv, sign, message = LONG[name]
    for wait in waits:
        shutil.rmtree(place / "run", ignore_errors=True)
        running = server.start(*argv, "--force", cwd=place)
        until(lambda: (place / "run" / sign).exists() and (place / "run" / sign).stat().st_size)
        time.sleep(wait)
        running.send(number)
        ended = running.wait()
        assert ended.code == 130
        assert re.match(message, ended.error), ended.error
        whole(place)
        assert server.run(*argv[:-1], 1, "--resume", cwd=place).code in (0, 1)
        record_property("fault", (number.name, name, 1))


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=LATER), signal.SIGINT], ids=["SIGTERM", "SIGINT"]
)
def test_signals_while_paths_are_drawn(server, place, number, record_property):
    """Interrupted and resumed until it is done; sooner on a machine that draws faster than the signal comes."""
    argv = shlex.split(
        "generate pathfinder --size 64 --path-length 5 --train 1000 --test 40 --workers 1 -o paths.safetensors"
    )
    output, part = place / "paths.safetensors", place / "paths.safetensors.part"
    assert server.run(*argv, cwd=place).code == 0
    wanted = output.read_bytes()
    output.unlink()
    interrupted, wait = 0, 0.3
    for _ in range(50):
        running = server.start(*argv, *(["--resume"] if part.exists() else []), cwd=place)
        if running.poll(wait) is None:
            running.send(number)
        ended = running.wait()
        assert ended.code in (0, 130), ended
        interrupted += ended.code == 130
        if output.exists():  # also where the signal came after it was in place
            if interrupted:
                break
            output.unlink()
            wait /= 2
        else:
            assert ended.code == 130
    assert interrupted
    assert output.read_bytes() == wanted
    assert not part.exists()
    record_property("fault", (number.name, "generate pathfinder", interrupted))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=LATER)], ids=["SIGTERM", "SIGINT"]
)
def test_signals_to_a_sweep(server, place, number, record_property):
    # so many iterations take seconds after the first checkpoints on any machine: the signal comes before the end
    plan = "command: fit\ndata: data.safetensors\nbase: {width: 8, iterations: 10000, checkpoint_every: 0}\nseeds: 2\n"
    (place / "plan.yaml").write_text(plan)
    running = server.start("sweep", "plan.yaml", "-o", "sweep", "--workers", 2, cwd=place)
    until(lambda: len(list(place.glob("sweep/runs/*/checkpoint.safetensors"))) == 2)
    running.send(number)
    ended = running.wait()
    assert ended.code == 130
    assert "continue with: htf sweep" in ended.error
    whole(place)
    assert server.run("sweep", "sweep", "--workers", 2, cwd=place).code == 0
    record_property("fault", (number.name, "sweep", 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("waits", [(0.4,), pytest.param((0.1, 0.8, 1.6, 3.2), marks=LATER)], ids=["once", "often"])
def test_signals_to_a_cold_process(place, number, waits, record_property):
    """At any moment from the first on, importing included."""
    for wait in waits:
        process = subprocess.Popen(
            [sys.executable, "-m", "htfcli", *LONG["fit"][0], "--force"],
            cwd=place,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            time.sleep(wait)
            process.send_signal(number)
            error = process.communicate(timeout=300)[1]
        finally:
            process.kill()
        # before the first line of htf, Python itself ends as the signal says; and also once an import that runs code
        # was interrupted, then by SIGINT, which is 130 to a shell too
        assert process.returncode in (130, -number, -signal.SIGINT), error
        whole(place)
        record_property("fault", (number.name, "fit, from its start", 1))
