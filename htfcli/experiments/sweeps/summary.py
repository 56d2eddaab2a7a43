"""Summaries of sweeps: their rows as a flat table, and columns looked up by name."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from htfcli.config.records import Record
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.files.own.records import read_lines

Row = Record  # of a summary: one run
SUMMARY_CSV, SUMMARY_JSONL = "summary.csv", "summary.jsonl"
FINAL_SHOWN = {  # by command: how far a run got, and the final numbers to look at first
    "fit": ("iteration", "train_loss", "test_error", "reconstruction_error"),
    "train-cnn": ("epoch", "train_accuracy", "test_accuracy", "regularizer"),
    "complete": ("tree", "held_out_error", "train_error"),
    "measure-recovery": ("observations", "rate", "fitted", "determined"),
}


def load_summary(argument: str) -> list[Row]:
    """The rows of a sweep, given its folder or its summary.jsonl.

    Raises:
        DataError: if the argument is neither.
    """
    path = Path(argument)
    path = path / SUMMARY_JSONL if path.is_dir() else path
    if not path.exists():
        raise DataError(f"{argument} is not a sweep", next_step="Name a folder written by htf sweep.")
    rows = [record for _, record in read_lines(path)]
    if not rows or any(row.get("kind") != "run" for row in rows):
        raise DataError(f"{argument} contains no runs of a sweep")
    return rows


def failures(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The names of failed runs, by error message."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] == "failed":
            found.setdefault(row.get("error") or "unknown error", []).append(row["run"])
    return found


def outcome(rows: Sequence[Row]) -> str:
    """The number of runs, and how many have each status, for a message."""
    counts = Counter(row["status"] for row in rows)
    parts = [f"{counts[status]} {status}" for status in counts if status != "finished"]
    return ", ".join([f"{len(rows)} runs", f"{counts['finished']} finished", *parts])


def what_varies(rows: Sequence[Row]) -> list[str]:
    """The settings other than the seed in which runs differ, in the order of the plan."""
    varied = [key for key in rows[0]["varied"] if key != "seed"]
    return [key for key in varied if len({repr(row["varied"].get(key)) for row in rows}) > 1]


def flat(row: Row) -> Row:
    """A row as a mapping from column names to plain values.

    Columns are named after settings, `generate.NAME` for those of generated data, and after final numbers, or
    `final.NAME` if a setting has the same name. Lists become JSON text, mappings one column per key
    (`effective_rank.{0,1}`).
    """
    cells: Row = {name: row.get(name) for name in ("run", "status", "error", "command", "data")}
    cells |= {name: _plain(value) for name, value in row["settings"].items()}
    cells |= {f"generate.{name}": _plain(value) for name, value in (row.get("generate") or {}).items()}
    for name, value in (row.get("final") or {}).items():
        name = f"final.{name}" if name in cells else name
        if isinstance(value, Mapping):
            cells |= {f"{name}.{key}": _plain(item) for key, item in value.items()}
        else:
            cells[name] = _plain(value)
    return cells


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | Mapping) else value


def as_csv(rows: Sequence[Row]) -> str:
    """All rows as CSV, with the union of their columns."""
    cells = [flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if row.get(name) is None else row[name] for name in columns] for row in cells])
    return text.getvalue()


def column(rows: Sequence[Row], name: str) -> list[Any]:
    """The value of a column in each row, None where a row has none.

    `effective_rank` alone means that of the node with the most modes, the first of several.

    Raises:
        ConfigError: if no row has the column.
    """
    name = name if name.startswith("generate.") else name.replace("-", "_")
    cells = [flat(row) for row in rows]
    known = dict.fromkeys(key for row in cells for key in row)
    if name not in known:
        nodes = [key for key in known if key.startswith(f"{name}.{{")]
        if not nodes:
            guess = did_you_mean(name, known)
            raise ConfigError("no run has this setting or final number", got=name, next_step=guess.strip())
        name = max(nodes, key=lambda key: key.count(","))
    return [row.get(name) for row in cells]
