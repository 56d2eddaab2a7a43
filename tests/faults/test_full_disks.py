"""Full disks and size limits: one line says what could not be written, and what was saved before stays whole."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from htfcli.files.own.container import read
from tests.faults.long_commands import CNN, FIT
from tests.faults.processes import ENVIRONMENT, content, whole


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


@pytest.mark.parametrize("command", [FIT, pytest.param(CNN, marks=pytest.mark.long)], ids=["fit", "train-cnn"])
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
    assert found["records.jsonl"] == wanted["records.jsonl"]
    ours, theirs = (read(folder / "run" / "model.safetensors").tensors() for folder in (place, fresh))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


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
            shlex.split("generate tensor --order 5 --dim 8 --rank 2 --observed 16000 -o big.safetensors"),
            100,
            marks=pytest.mark.long,
        ),
        pytest.param(["complete", "table.csv", "-o", "out.csv", "--width", "4"], 24, marks=pytest.mark.long),
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
        ["unshare", "-rm", "bash", "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=300
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
        timeout=300,
    )
    assert done.returncode == 1, done
    assert done.stderr.splitlines()[-1].startswith("Error: ") and "No space left on device" in done.stderr, done
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    record_property("fault", ("stdout full", argv.split()[0], 1))
