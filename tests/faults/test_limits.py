"""Full disks, little memory, signals, readers that go away, two processes in one place."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from htfcli.files.own.container import read
from tests.faults.processes import ENVIRONMENT, content, whole

FIT = [
    "fit",
    "data.safetensors",
    "--width",
    "24",
    "--record-every",
    "20",
    "--checkpoint-every",
    "0",
    "--until-loss",
    "1e-300",
    "-o",
    "run",
]
CNN = [
    "train-cnn",
    "pairs.safetensors",
    "--model",
    "resnet-mini",
    "--widths",
    "8,16",
    "--blocks",
    "1,1",
    "--batch-size",
    "8",
    "--patience",
    "999",
    "-o",
    "run",
]


@pytest.fixture(scope="module")
def inputs(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    rows = [
        f"{a},{b},{c},{(a + 1) * (b + 2) + c}"
        for a in range(9)
        for b in range(9)
        for c in range(9)
        if (a * 5 + b * 3 + c) % 7
    ]
    (folder / "table.csv").write_text("a,b,c,value\n" + "\n".join(rows) + "\n")
    for argv in (
        "generate tensor --order 4 --dim 6 --rank 2 --observed 600 -o data.safetensors",
        "generate is-same-class --images 120 --height 32 --width 80 --distance 8 --train 24 --test 8 -o pairs.safetensors",
    ):
        assert server.run(*argv.split(), cwd=folder).code == 0
    return folder


@pytest.fixture
def place(inputs, tmp_path):
    for file in inputs.iterdir():
        os.link(file, tmp_path / file.name)
    return tmp_path


def until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "size"),
    [
        ("generate tensor --order 4 --dim 8 --rank 2 --observed 2000 -o out.safetensors", 9_000),
        (
            "generate pathfinder --size 32 --path-length 3 --distractors 2 --train 16 --test 8 --workers 1 -o out.safetensors",
            9_000,
        ),
        ("complete table.csv -o out.csv --width 1", 2_000),
        ("plot run -o out.png", 2_000),
    ],
)
def test_a_file_that_cannot_be_written(server, place, argv, size, record_property):
    if argv.startswith("plot"):
        assert server.run(*FIT, "--iterations", 40, cwd=place).code == 0
    before = set(place.iterdir())
    ended = server.run(*argv.split(), cwd=place, file_bytes=size)
    if ended.code == 0:  # it was as small as that
        pytest.fail(f"{argv} needs less than {size} bytes")
    assert re.search(r"^cannot write out\S*: File too large", ended.error), ended.error
    left = set(place.iterdir()) - before - {place / "out.csv.run"}
    assert left == set()
    record_property("fault", ("file size limit", argv.split()[0], 1))


@pytest.mark.parametrize("command", [FIT, CNN], ids=["fit", "train-cnn"])
def test_a_full_disk_leaves_the_checkpoint(server, place, command, record_property):
    """A limit under the checkpoint's size, or under the records' that grow."""
    steps = "--iterations" if command is FIT else "--epochs"
    assert server.run(*command, steps, 100 if command is FIT else 2, cwd=place).code == 0
    checkpoint = place / "run" / "checkpoint.safetensors"
    saved, records = checkpoint.read_bytes(), (place / "run" / "records.jsonl").read_text()
    for size in (len(saved) // 2, len(records) + 1):
        ended = server.run(*command, steps, 100_000, "--resume", cwd=place, file_bytes=size)
        assert ended.code == 1
        assert re.search(r"^cannot write run/\S+: File too large", ended.error), ended.error
        whole(place)
        read(checkpoint).tensors()
        if size < len(saved):
            assert checkpoint.read_bytes() == saved
        assert list((place / "run").glob(".*.tmp")) == []
        record_property("fault", ("file size limit", command[0], 1))
    until = [steps, 160 if command is FIT else 4]
    assert server.run(*command, *until, "--resume", cwd=place).code == 0
    fresh = place / "fresh"
    fresh.mkdir()
    for file in ("data.safetensors", "pairs.safetensors"):
        os.link(place / file, fresh / file)
    assert server.run(*command, *until, cwd=fresh).code == 0
    found, wanted = (content(folder / "run") for folder in (place, fresh))
    for name in ("records.jsonl", "model.safetensors"):
        assert found[name] == wanted[name] or name == "model.safetensors"
    assert (
        read(place / "run" / "model.safetensors").tensors().keys()
        == read(fresh / "run" / "model.safetensors").tensors().keys()
    )


def tmpfs_allowed() -> bool:
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"], capture_output=True
        ).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("argv", "kib"),
    [
        ([*FIT, "--iterations", "40000"], 300),
        pytest.param([*CNN, "--epochs", "4"], 100, marks=pytest.mark.long),
        pytest.param(
            [
                "generate",
                "tensor",
                "--order",
                "5",
                "--dim",
                "8",
                "--rank",
                "2",
                "--observed",
                "16000",
                "-o",
                "big.safetensors",
            ],
            100,
            marks=pytest.mark.long,
        ),
        (["complete", "table.csv", "-o", "out.csv", "--width", "4"], 24),
    ],
    ids=["fit", "train-cnn", "generate", "complete"],
)
def test_a_full_file_system(inputs, tmp_path, argv, kib, record_property):
    """A real one, with no space left: htf runs in it, and what it leaves there is looked at before it is gone."""
    if not tmpfs_allowed():
        pytest.skip("file systems cannot be mounted here")
    script = f"""
mount -t tmpfs -o size={kib}k tmpfs /mnt && cd /mnt
for f in {inputs}/*; do ln -s $f; done
{sys.executable} -m htfcli {" ".join(argv)} > /dev/null 2> {tmp_path}/said; echo code $?
for f in $(find . -name '*.safetensors' -type f); do {sys.executable} -c "from htfcli.files.own.container import *; read(Path('$f')).tensors()" || echo broken $f; done
find . -name '.*.tmp'
"""
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    said = (tmp_path / "said").read_text()
    assert done.stdout == "code 1\n", (done, said)
    assert "Traceback" not in said
    assert re.search(r"^Error: cannot write \S+: No space left on device", said.splitlines()[-1]), said
    record_property("fault", ("tmpfs full", argv[0], 1))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "argv",
    [
        pytest.param("inspect table.csv", marks=pytest.mark.long),
        "generate tensor -o -",
        pytest.param("complete table.csv --width 1 -o -", marks=pytest.mark.long),
        pytest.param("fit data.safetensors --iterations 20 -o -", marks=pytest.mark.long),
        "--help",
        pytest.param("fit --print-config", marks=pytest.mark.long),
    ],
)
def test_stdout_that_is_full(inputs, argv, record_property):
    done = subprocess.run(
        f"{sys.executable} -m htfcli {argv} > /dev/full",
        shell=True,
        cwd=inputs,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done
    assert done.stderr.splitlines()[-1].startswith("Error: ") and "No space left on device" in done.stderr, done
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    record_property("fault", ("stdout full", argv.split()[0], 1))


# --- signals ----------------------------------------------------------------------------------------------------------

LONG = {
    "fit": ([*FIT, "--iterations", "1000000"], "records.jsonl", r"interrupted at iteration \d+; the state of iteration \d+ is saved"),
    "train-cnn": ([*CNN, "--epochs", "10000"], "records.jsonl", r"interrupted in epoch \d+ at step \d+; the state is saved"),
    "complete": (["complete", "table.csv", "-o", "out.csv", "--run", "run", "--tree", "balanced", "--effort", "thorough"], "config.yaml", "interrupted, nothing is written; the models fitted so far are in run/records.jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("name", ["fit", "train-cnn"])
def test_signals(server, place, name, number, record_property):
    argv, sign, said = LONG[name]
    for wait in (0.0, 0.05, 0.2):
        shutil.rmtree(place / "run", ignore_errors=True)
        running = server.start(*argv, "--force", cwd=place)
        until(lambda: (place / "run" / sign).exists() and (place / "run" / sign).stat().st_size)
        time.sleep(wait)
        running.send(number)
        started = time.monotonic()
        ended = running.wait()
        assert ended.code == 130
        assert re.match(said, ended.error), ended.error
        assert time.monotonic() - started < 20
        whole(place)
        assert server.run(*argv[:-1], 1, "--resume", cwd=place).code in (0, 1)
        record_property("fault", (number.name, name, 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signals_while_paths_are_drawn(server, place, number, record_property):
    argv = [
        "generate",
        "pathfinder",
        "--size",
        "64",
        "--path-length",
        "5",
        "--train",
        "2000",
        "--test",
        "40",
        "--workers",
        "1",
        "-o",
        "paths.safetensors",
    ]
    assert server.run(*argv, cwd=place).code == 0
    wanted = (place / "paths.safetensors").read_bytes()
    (place / "paths.safetensors").unlink()
    interrupted = 0
    more: list[str] = []
    for _ in range(50):
        running = server.start(*argv, *more, cwd=place)
        if running.poll(0.3) is None:
            running.send(number)
        ended = running.wait()
        assert ended.code in (0, 130), ended
        interrupted += ended.code == 130
        if (place / "paths.safetensors").exists():  # also where the signal came after it was in place
            break
        assert ended.code == 130
        more = ["--resume"] if (place / "paths.safetensors.part").exists() else []
    assert interrupted
    assert (place / "paths.safetensors").read_bytes() == wanted
    assert not (place / "paths.safetensors.part").exists()
    record_property("fault", (number.name, "generate pathfinder", interrupted))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signals_to_a_sweep(server, place, number, record_property):
    plan = "command: fit\ndata: data.safetensors\nbase: {width: 8, iterations: 3000, checkpoint_every: 0}\nseeds: 2\n"
    (place / "plan.yaml").write_text(plan)
    running = server.start("sweep", "plan.yaml", "-o", "sweep", "--workers", 2, cwd=place)
    until(lambda: len(list(place.glob("sweep/runs/*/checkpoint.safetensors"))) == 2)
    running.send(number)
    ended = running.wait()
    assert ended.code == 130
    assert "go on with: htf sweep" in ended.error
    whole(place)
    assert server.run("sweep", "sweep", "--workers", 2, cwd=place).code == 0
    record_property("fault", (number.name, "sweep", 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signals_to_a_cold_process(place, number, record_property):
    """At any moment from the first on, importing included."""
    for wait in (0.4, 1.6):
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
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
        # before the first line of htf, Python itself ends as the signal says; and also once an import that runs code
        # was interrupted, then by SIGINT, which is 130 to a shell too
        assert process.returncode in (130, -number, -signal.SIGINT), said
        whole(place)
        record_property("fault", (number.name, "fit, from its start", 1))


# --- readers that go away ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        "fit data.safetensors --iterations 3000 --record-every 1 -o run",
        pytest.param("measure-rank data.safetensors", marks=pytest.mark.long),
        pytest.param("generate tensor --observed 200000 --order 6 -o -", marks=pytest.mark.long),
        "--help",
        "sweep plan.yaml --dry-run",
        pytest.param("complete table.csv --width 1 --all -o -", marks=pytest.mark.long),
    ],
)
def test_stdout_closed_early(place, argv, record_property):
    (place / "plan.yaml").write_text("command: fit\ndata: data.safetensors\nseeds: 3000\n")
    line = f"{sys.executable} -m htfcli {argv} | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=place, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1)
    for bad in ("Traceback", "Exception ignored", "BrokenPipe", "internal error"):
        assert bad not in done.stderr, done.stderr
    whole(place)
    if argv.startswith("fit"):
        assert done.returncode == 1
        assert (place / "run" / "checkpoint.safetensors").exists()
    record_property("fault", ("stdout closed early", argv.split()[0], 1))


@pytest.mark.parametrize(
    "closed", [">&-", *(pytest.param(c, marks=pytest.mark.long) for c in ("<&-", "2>&-", "<&- >&- 2>&-"))]
)
def test_streams_that_are_closed_from_the_start(place, closed, record_property):
    line = f"{sys.executable} -m htfcli fit data.safetensors --iterations 20 -o run {closed}"
    done = subprocess.run(["bash", "-c", line], cwd=place, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done
    assert "Traceback" not in done.stderr, done.stderr
    whole(place)
    record_property("fault", ("stream closed from the start", "fit", 1))


# --- two processes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(LONG))
def test_the_second_process_is_refused(server, place, name, record_property):
    argv, sign, _ = LONG[name]
    first = server.start(*argv, cwd=place)
    until(lambda: (place / "run" / sign).exists())
    for more in ("--force", "--resume"):
        if name != "complete" or more == "--force":
            second = server.run(*argv, more, cwd=place)
            assert second.code == 2, second
            assert second.error.startswith(("another process is using run.", "run has no checkpoint")), second.error
            record_property("fault", ("second process", name, 1))
    assert first.poll() is None
    first.send(signal.SIGTERM)
    assert first.wait().code == 130
    whole(place)


def test_the_second_sweep_is_refused(server, place, record_property):
    (place / "plan.yaml").write_text(
        "command: fit\ndata: data.safetensors\nbase: {iterations: 1000000, until_loss: 1e-300}\n"
    )
    first = server.start("sweep", "plan.yaml", "-o", "sweep", cwd=place)
    until(lambda: list(place.glob("sweep/runs/*/.lock")))
    assert server.run("sweep", "sweep", cwd=place).error.startswith("another sweep is at work in")
    run = next(place.glob("sweep/runs/*"))
    assert server.run("fit", "data.safetensors", "-o", run, "--force", cwd=place).error.startswith(
        "another process is using"
    )
    first.send(signal.SIGTERM)
    assert first.wait().code == 130
    record_property("fault", ("second process", "sweep", 2))


# --- little memory ----------------------------------------------------------------------------------------------------

MIB = 1 << 20


@pytest.mark.parametrize(
    ("argv", "mib", "said"),
    [
        ("fit data.safetensors --width 3000 -o run", 64, r"(the factorization does not fit in memory \(got .*MiB, allowed .*\)\. Lower the widths|out of memory \(got .*iB more, .* free\)\. .*--width)"),
        ("fit data.safetensors --width 1500 -o run", 64, r"out of memory \(got .*iB more, .* free\)\. .*--width"),
        ("measure-rank big.npy", 40, r"big.npy does not fit in memory \(got shape \[64, 64, 64, 64\]: 128 MiB, allowed .*iB\)"),
        ("measure-rank half.npy", 170, r"matricization \{\S+\} does not fit in memory \(got \d+ x \d+: 128 MiB, allowed .*iB\)\. Ask for smaller"),
        ("inspect big.csv", 40, r"out of memory \(.*free\)"),
        ("generate tensor --order 6 --dim 12 --observed 2000000 -o x.safetensors", 64, r"out of memory \(got .*iB more, .* free\)"),
        ("train-cnn pairs.safetensors --model resnet-mini --widths 512,512 --blocks 1,1 --batch-size 24 -o run", 120, r"out of memory on cpu, .*iB more asked for; lower --batch-size \(now 24\)"),
        ("complete half.npy --mask mask.npy --width 8 -o x.npy", 60, r"(out of memory \(got .*iB more, .*free\)|does not fit in memory \(got .*allowed)"),
    ],
    ids=["weights", "optimizer", "npy", "matricization", "csv", "entries", "network", "mask"],
)  # fmt: skip
def test_little_memory(server, place, argv, mib, said, record_property):
    np.save(place / "big.npy", np.zeros((64, 64, 64, 64)))
    np.save(place / "half.npy", np.zeros((64, 64, 64, 32)) + np.arange(32.0))
    np.save(place / "mask.npy", np.random.default_rng(0).random((64, 64, 64, 32)) < 0.5)
    with open(place / "big.csv", "w") as file:
        file.writelines(f"{i},{i},{i},1.5\n" for i in range(2_000_000))
    ended = server.run(*argv.split(), cwd=place, more_memory=mib * MIB)
    assert ended.code == 1, ended
    assert re.search(said, ended.error), ended.error
    whole(place)
    record_property("fault", ("little memory", argv.split()[0], 1))
