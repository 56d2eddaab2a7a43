from __future__ import annotations

import io
import json
import math
import sys

import pytest

from htfcli.errors import DataError
from htfcli.files.own.records import finite, flatten, load_records, read_lines, to_json

FIT = [{"kind": "iteration", "iteration": i, "train_loss": 1 / (i + 1)} for i in range(3)]


def write(path, records):
    path.write_text("".join(to_json(record) + "\n" for record in records))
    return str(path)


def test_json_has_no_nan():
    record = {"a": math.nan, "b": [1.5, -math.inf, {"c": math.inf}], "d": "NaN"}
    assert json.loads(to_json(record)) == {"a": None, "b": [1.5, None, {"c": None}], "d": "NaN"} == finite(record)


def test_flatten():
    record = {"a": 1, "nodes": [{"node": "{0,1}", "norms": [1.0, 2.0]}], "e": {}}
    assert dict(flatten(record)) == {
        "a": 1, "nodes.{0,1}.node": "{0,1}", "nodes.{0,1}.norms.0": 1.0, "nodes.{0,1}.norms.1": 2.0,
    }  # fmt: skip


def test_records_of_a_folder_a_file_and_stdin(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    path = write(folder / "records.jsonl", [{"kind": "start"}, *FIT, {"kind": "epoch", "epoch": 1}])
    run = load_records(str(folder))
    assert (run.name, run.kind, run.records, run.folder) == ("run", "iteration", FIT, folder)
    assert (load_records(path).name, load_records(path).folder) == ("records", None)
    monkeypatch.setattr(sys, "stdin", io.StringIO((folder / "records.jsonl").read_text()))
    run = load_records("-")
    assert (run.name, run.records, run.folder) == ("stdin", FIT, None)


def test_an_incomplete_last_line_is_ignored(tmp_path):
    path = tmp_path / "r.jsonl"
    write(path, FIT)
    with path.open("a") as file:
        file.write('{"kind": "iterat')
    assert load_records(str(path)).records == FIT
    assert [line for line, _ in read_lines(path)] == path.read_text().splitlines(keepends=True)[:3]
    assert list(read_lines(tmp_path / "nowhere")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "r.jsonl has no records of a run (got nothing, allowed iteration, complete, epoch, locality, entanglement)."),
        ('{"kind": "start"}\n{}\n', "r.jsonl has no records of a run (got None, start, allowed iteration, complete, epoch, locality, entanglement)."),
        ('{"kind": "iteration", "iteration": "x"}\n', "r.jsonl has no records of a run (got iteration, allowed "),
        ('{"kind": "iteration", "iteration": 1}\n[1]\n', "r.jsonl line 2 is not a record (got '[1]')."),
        ('{"kind": "iteration", "iteration": 1}\nx\n{}\n', "r.jsonl line 2 is not a record (got 'x')."),
        ("[" * 100_000 + "\n", "r.jsonl line 1 is not a record (got '"),
    ],
)  # fmt: skip
def test_files_that_hold_no_records(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.jsonl").write_text(content)
    with pytest.raises(DataError) as error:
        load_records("r.jsonl")
    assert str(error.value).startswith(message)


def test_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match="has no records"):
        load_records(str(tmp_path))
