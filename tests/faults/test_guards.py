"""The checks of the fault tests can fail: bounded reading, one-line errors, whole files, equal results."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from htfcli.errors import DataError, HtfError
from tests.faults import fuzzing
from tests.faults.processes import Ended, content, whole


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: subprocess.run([sys.executable, "--version"], capture_output=True, check=True),
        lambda folder: os.symlink(folder, folder / "link"),
        lambda folder: (folder.parent / "outside").write_text(""),
        lambda folder: os.system("true"),
    ],
    ids=["a process", "a link", "a file elsewhere", "a shell"],
)
def test_what_reading_may_not_do_is_noticed(tmp_path, act):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(AssertionError), fuzzing.guarded(folder):
        act(folder)


def test_a_file_in_the_folder_may_be_written(tmp_path):
    with fuzzing.guarded(tmp_path):
        (tmp_path / "inside").write_text("")


def test_memory_is_bounded(tmp_path):
    with pytest.raises(MemoryError), fuzzing.guarded(tmp_path):
        bytearray(2 * fuzzing.MORE_MEMORY)
    assert len(bytearray(2 * fuzzing.MORE_MEMORY)) > 0  # and no longer afterwards


@pytest.mark.parametrize("limit", ["SECONDS", "CPU_SECONDS"])
def test_time_is_bounded(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(fuzzing, limit, 0.05)

    def hang() -> None:
        while True:
            time.sleep(0.01 if limit == "SECONDS" else 0)

    with pytest.raises(fuzzing.Hang), fuzzing.guarded(tmp_path):
        hang()


def raising(error: BaseException):
    def read() -> None:
        raise error

    return read


def test_errors_are_one_line(tmp_path):
    assert fuzzing.survives(tmp_path, lambda: 3)
    assert not fuzzing.survives(tmp_path, raising(DataError("x is damaged")))
    for text in ("", "two\nlines"):
        with pytest.raises(AssertionError):
            fuzzing.survives(
                tmp_path, raising(type("Odd", (HtfError,), {"__str__": lambda self, text=text: text})("x"))
            )
    with pytest.raises(ValueError, match="no line"):
        fuzzing.survives(tmp_path, raising(ValueError("no line")))


@pytest.mark.parametrize(
    ("code", "printed"),
    [(1, ""), (1, "Error: a\nError: b\n"), (1, "Error: internal error\n"), (70, "Error: a\n"), (1, "Error: a\nmore\n")],
)
def test_a_command_must_end_with_one_error(tmp_path, monkeypatch, code, printed):
    monkeypatch.setattr(fuzzing, "main", lambda argv: print(printed, end="", file=sys.stderr) or code)
    with pytest.raises(AssertionError):
        fuzzing.command(tmp_path, "inspect")


def test_the_error_of_a_process_is_one_line():
    assert Ended(1, "", "3 x 3 observed\nError: x is damaged.\n").error == "x is damaged."
    for printed in ("", "Error: a\nError: b\n", "Traceback (most recent call last):\nError: a\n"):
        with pytest.raises(AssertionError):
            _ = Ended(1, "", printed).error


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.json", b'{"a": '),
        ("x.jsonl", b'{"a"\n{"a": 1}\n'),
        ("x.safetensors", b"\x10\0\0\0\0\0\0\0{}"),
        ("x.npy", b"\x93NUMPY"),
        ("x.png", b"\x89PNG\r\n\x1a\n"),
        ("summary.csv", b"a,b\n1"),
        (".hidden", b""),
    ],
)
def test_files_that_are_not_whole_are_noticed(tmp_path, name, data):
    np.save(tmp_path / "good.npy", np.ones((2, 2)))
    (tmp_path / ".x.npy.123.tmp").write_bytes(b"")  # of a process that was killed
    whole(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises((AssertionError, HtfError, ValueError, OSError)):
        whole(tmp_path)


def test_results_that_differ_are_noticed(tmp_path):
    def folder(name: str, **summary: object) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
        return tmp_path / name

    one = content(folder("a", loss=0.5, seconds=3.0))
    assert one == content(folder("b", loss=0.5, seconds=4.0))
    assert one != content(folder("c", loss=0.5000001, seconds=3.0))


def test_mutations_are_reproducible_and_change_something():
    data = bytes(range(256))
    one, two = ([fuzzing.mutate(data, g) for _ in range(50)] for g in (random.Random(1), random.Random(1)))
    assert one == two
    assert sum(mutated != data for mutated in one) > 25
    assert not any(re.fullmatch(rb"\x00*", mutated) for mutated in one if len(mutated) > 8)
