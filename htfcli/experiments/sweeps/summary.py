"""The rows of a sweep's summary: as a flat table, and looked up by the names that a person uses."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.files.own.records import read_lines

Row = dict[str, Any]
SUMMARY_CSV, SUMMARY_JSONL = "summary.csv", "summary.jsonl"
FINAL_SHOWN = {  # by command, how far a run went and the final numbers that a person looks at first
    "fit": ("iteration", "train_loss", "test_error", "reconstruction_error"),
    "train-cnn": ("epoch", "train_accuracy", "test_accuracy", "regularizer"),
    "complete": ("tree", "held_out_error", "train_error"),
}


def load_summary(argument: str) -> list[Row]:
    """The rows of a sweep, given its folder or its summary.jsonl.

    Raises:
        DataError: if it is neither.
    """
    path = Path(argument)
    path = path / SUMMARY_JSONL if path.is_dir() else path
    if not path.exists():
        raise DataError(f"{argument} is not a sweep", next_step="Name the folder that htf sweep made.")
    rows = [record for _, record in read_lines(path)]
    if not rows or any(row.get("kind") != "run" for row in rows):
        raise DataError(f"{argument} does not hold the runs of a sweep")
    return rows


def failures(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The runs that failed, by their error."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] == "failed":
            found.setdefault(row.get("error") or "no reason known", []).append(row["run"])
    return found


def outcome(rows: Sequence[Row]) -> str:
    """How many runs there are, and how many ended how, in a few words."""
    counts = Counter(row["status"] for row in rows)
    parts = [f"{counts[status]} {status}" for status in counts if status != "finished"]
    return ", ".join([f"{len(rows)} runs", f"{counts['finished']} finished", *parts])


def what_varies(rows: Sequence[Row]) -> list[str]:
    """Settings other than the seed in which the runs differ, in the order of the plan."""
    varied = [key for key in rows[0]["varied"] if key != "seed"]
    return [key for key in varied if len({repr(row["varied"].get(key)) for row in rows}) > 1]


def flat(row: Row) -> Row:
    """A row as name and plain value.

    Settings go by their own name and those of generated data by `generate.NAME`; a final number goes by its name too,
    or `final.NAME` where a setting is called the same. Lists are text, mappings spread (`effective_rank.{0,1}`).
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
    """All rows as a table with the columns of all."""
    cells = [flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if row.get(name) is None else row[name] for name in columns] for row in cells])
    return text.getvalue()


def column(rows: Sequence[Row], name: str) -> list[Any]:
    """The value called `name` in each row, None where a row has none.

    `effective_rank` alone means that of the node with most modes, the first one of several.

    Raises:
        ConfigError: if no row has it.
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
