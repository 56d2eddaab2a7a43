"""Rows of a sweep as a table, and columns by name."""

from __future__ import annotations

import csv
import io
import json

import pytest

from htfcli.errors import ConfigError, DataError
from htfcli.experiments.sweeps.summary import as_csv, column, failures, flat, load_summary, outcome, what_varies

ROW = {
    "kind": "run", "run": "a", "status": "finished", "error": None, "command": "fit", "data": "x.npy",
    "varied": {"lr": 0.1, "seed": 0}, "settings": {"lr": 0.1, "loss": "l2", "dims": [2, 3]}, "generate": {"rank": 2},
    "final": {"loss": 0.5, "effective_rank": {"{0}": 1.0, "{0,1}": 2.0}},
}  # fmt: skip
FAILED = {**ROW, "run": "b", "status": "failed", "error": "diverged", "varied": {"lr": 0.2, "seed": 0}, "final": None}


def test_flat_rows():
    cells = flat(ROW)
    assert (cells["lr"], cells["generate.rank"], cells["dims"]) == (0.1, 2, "[2, 3]")
    assert (cells["loss"], cells["final.loss"]) == ("l2", 0.5)  # the setting comes first
    assert cells["effective_rank.{0,1}"] == 2.0


def test_csv_has_the_columns_of_all_rows():
    rows = list(csv.DictReader(io.StringIO(as_csv([FAILED, ROW]))))
    assert [row["effective_rank.{0}"] for row in rows] == ["", "1.0"]
    assert [row["error"] for row in rows] == ["diverged", ""]


def test_columns():
    assert column([ROW, FAILED], "effective-rank") == [2.0, None]  # of the node with the most modes
    assert column([ROW, FAILED], "generate.rank") == [2, 2]
    with pytest.raises(ConfigError) as error:
        column([ROW], "los")
    assert str(error.value) == "no run has this setting or final number (got los). Did you mean loss?"


def test_counts():
    assert outcome([ROW, FAILED]) == "2 runs, 1 finished, 1 failed"
    assert failures([ROW, FAILED, {**FAILED, "run": "c", "error": None}]) == {"diverged": ["b"], "unknown error": ["c"]}
    assert what_varies([ROW, FAILED]) == ["lr"]
    assert what_varies([ROW, ROW]) == []


def test_loading(tmp_path):
    file = tmp_path / "summary.jsonl"
    file.write_text(json.dumps(ROW) + "\n")
    assert load_summary(str(tmp_path)) == load_summary(str(file)) == [ROW]
    file.write_text('{"kind": "iteration"}\n')
    with pytest.raises(DataError, match=r"contains no runs of a sweep\.$"):
        load_summary(str(tmp_path))
    with pytest.raises(DataError, match=r"is not a sweep\. Name a folder written by htf sweep\.$"):
        load_summary(str(tmp_path / "no"))
