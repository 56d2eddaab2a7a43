from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
import yaml

from htfcli.errors import ConfigError, DataError
from htfcli.files.own.records import read_lines
from htfcli.files.own.run_folder import FILES, RunFolder, in_use, open_lock

STATE = {"weights": torch.arange(3.0)}


def fill(path, records=4, **options):
    """A folder with everything in it."""
    with RunFolder(str(path), **options) as folder:
        folder.write_config({"lr": 0.5, "tree": [[0, 1], 2]}, {"torch": "x", "data": {"path": "a\nb"}})
        folder.start_records()
        for iteration in range(records):
            folder.append({"iteration": iteration, "loss": math.nan})
        folder.save_checkpoint(STATE, {"lr": 0.5}, {"digest": "d"})
        folder.write_summary({"loss": math.inf, "iterations": records})


def test_what_is_in_it(tmp_path):
    path = tmp_path / "runs" / "a"
    fill(path)
    assert {entry.name for entry in path.iterdir()} == {*FILES, ".lock"} - {"model.safetensors"}
    text = (path / "config.yaml").read_text()
    assert yaml.safe_load(text) == {"lr": 0.5, "tree": [[0, 1], 2]}
    assert "# torch: x" in text.splitlines()
    assert json.loads((path / "summary.json").read_text()) == {"loss": None, "iterations": 4}
    assert [record["loss"] for _, record in read_lines(path / "records.jsonl")] == [None] * 4
    with RunFolder(str(path), resume=True) as folder:
        checkpoint = folder.checkpoint()
    assert torch.equal(checkpoint.tensors()["weights"], STATE["weights"])
    assert (checkpoint.config, checkpoint.content) == ({"lr": 0.5}, {"digest": "d"})


def test_records_after_the_checkpoint_are_dropped_on_resuming(tmp_path):
    fill(tmp_path / "a")
    with RunFolder(str(tmp_path / "a"), resume=True) as folder:
        assert folder.start_records(before=2) == {"iteration": 1, "loss": None}
        folder.append({"iteration": 2})
    assert [r["iteration"] for _, r in read_lines(tmp_path / "a" / "records.jsonl")] == [0, 1, 2]


def test_replacing_a_run(tmp_path):
    fill(tmp_path / "a")
    (tmp_path / "a" / "mine.txt").write_text("mine")
    with RunFolder(str(tmp_path / "a"), force=True):
        assert {entry.name for entry in (tmp_path / "a").iterdir()} == {".lock", "mine.txt"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("run", {}, "run contains a run. Continue it with --resume, or replace it with --force."),
        ("run", {"resumable": False}, "run contains a run. Choose another name, or replace it with --force."),
        ("early", {}, "early contains a run. Choose another name, or replace it with --force."),
        ("early", {"resume": True}, "early has no checkpoint to resume from. Start the run without --resume, with --force."),
        ("nowhere", {"resume": True}, "nowhere has no checkpoint to resume from. Start the run without --resume."),
        ("photos", {"force": True}, "photos exists and is not a run folder. Choose another name."),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, monkeypatch, name, options, message):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "run")
    for folder, file in (("early", "config.yaml"), ("photos", "cat.jpg")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError) as error:
        RunFolder(name, **options)
    assert str(error.value) == message
    assert sorted(tmp_path.rglob("*")) == before


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "a"
    assert not in_use(path)
    with RunFolder(str(path)):
        assert in_use(path)
        code = f"from htfcli.files.own.run_folder import RunFolder\nRunFolder({str(path)!r}, force=True)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f"another process is using {path}. Wait for it, or choose another folder." in done.stderr
    assert not in_use(path)


def test_temporary_files_of_killed_writers_go(tmp_path):
    fill(tmp_path / "a")
    left = tmp_path / "a" / ".summary.json.123.tmp"
    left.mkdir()
    with RunFolder(str(tmp_path / "a"), resume=True):
        assert not left.exists()


def test_discarding(tmp_path):
    for extra in (False, True):
        fill(tmp_path / "a")
        if extra:
            (tmp_path / "a" / "mine.txt").touch()
        with RunFolder(str(tmp_path / "a"), resume=True) as folder:
            folder.discard()
        assert (tmp_path / "a").exists() == extra
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["mine.txt"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"^cannot write the run folder .*/file/a: Not a directory\.$"):
        RunFolder(str(tmp_path / "file" / "a"))


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("x")
    (tmp_path / ".lock").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic link"):
        open_lock(tmp_path / ".lock")
    assert (tmp_path / "target").read_text() == "x"
