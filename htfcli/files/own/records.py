"""Records as JSON Lines: one object per line, with null for NaN and infinity."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htfcli.config.records import Record
from htfcli.errors import DataError


def to_json(record: Mapping[str, Any]) -> str:
    """The record as one line of JSON, with null for NaN and infinity."""
    try:
        return json.dumps(record, allow_nan=False)
    except ValueError:
        return json.dumps(finite(record), allow_nan=False)


def finite(value: Any) -> Any:
    """The value with None in place of every NaN and infinity in it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, plain value) of a nested record; the key of an item of a list is its `node`, or its number."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            key = item["node"] if isinstance(item, Mapping) and "node" in item else number
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def cells(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of a record as cells of CSV; lists are JSON in one cell."""
    for key, value in record.items():
        if isinstance(value, Mapping) and value:
            yield from cells(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(finite(value)) if isinstance(value, list | dict) else value


KINDS = {  # records that can be plotted
    "iteration": "records of a fit",
    "complete": "records of a completion",
    "epoch": "records of a training",
    "locality": "records of locality",
    "entanglement": "records of entanglement",
}
# the number on the x axis
_COUNTERS = {"iteration": "iteration", "epoch": "epoch", "locality": "distance", "entanglement": "level"}


@dataclass(frozen=True)
class Records:
    """The records of one run, in order.

    Args:
        name: of the run. records: all of one kind. folder: the run folder, None for a file or stdin.
    """

    name: str
    records: list[Record]
    folder: Path | None = None

    @property
    def kind(self) -> str:
        """Key of `KINDS`."""
        return str(self.records[0]["kind"])


def load_records(argument: str) -> Records:
    """Read the records of a run from its folder, a file of records, or stdin (`-`).

    All have the kind of the first one that is in `KINDS`. An incomplete last line, left by a kill, is ignored.

    Raises:
        DataError: if there are no such records, or it is something else.
    """
    path = Path(argument)
    name = "stdin" if argument == "-" else path.resolve().name if path.is_dir() else path.stem
    if argument == "-":
        lines: Iterator[str] = iter(sys.stdin)
        records = [record for _, record in _parse(lines, name)]
    else:
        file = path / "records.jsonl" if path.is_dir() else path
        if not file.exists():
            raise DataError(f"{argument} has no records", next_step="Name a run folder or a file of records.")
        if not file.is_file():
            raise DataError(f"{file} is not a file", next_step="Pipe the records in, with - as their name.")
        records = [record for _, record in read_lines(file)]
    plotted = [r for r in records if str(r.get("kind")) in KINDS]
    plotted = [r for r in plotted if r["kind"] not in _COUNTERS or isinstance(r.get(_COUNTERS[r["kind"]]), int)]
    if not plotted:
        kinds = ", ".join(sorted({str(r.get("kind")) for r in records})) or "nothing"
        raise DataError(f"{argument} has no records of a run", got=kinds, allowed=", ".join(KINDS))
    one_kind = [r for r in plotted if r["kind"] == plotted[0]["kind"]]
    return Records(name, one_kind, path if argument != "-" and path.is_dir() else None)


def read_lines(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield the lines of a file with the records on them; none if the file does not exist."""
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from _parse(file, str(path))


def _parse(lines: Iterable[str], name: str) -> Iterator[tuple[str, Record]]:
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError
        except (ValueError, RecursionError):
            if not line.endswith("\n"):
                return
            raise DataError(f"{name} line {number} is not a record", got=repr(line[:40].strip())) from None
        yield line, record
