"""Records as JSON Lines: one object a line, numbers that JSON does not have written as null."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htfcli.errors import DataError


def to_json(record: Mapping[str, Any]) -> str:
    """One line of JSON; numbers that JSON does not have become null."""
    try:
        return json.dumps(record, allow_nan=False)
    except ValueError:
        return json.dumps(finite(record), allow_nan=False)


def finite(value: Any) -> Any:
    """The value with None for every number in it that is NaN or infinite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value


COUNTERS = {"iteration": "iteration", "epoch": "epoch", "locality": "distance"}  # by kind, the number that orders it


@dataclass(frozen=True)
class Records:
    """Records of one kind of `COUNTERS` in order, under the name of their run."""

    name: str
    records: list[dict[str, Any]]
    kind: str = "iteration"


def load_records(argument: str) -> Records:
    """Records of fits, trainings or locality from a run folder, a file of records, or stdin (`-`).

    The first record that is one of these decides which. A last line cut off by a kill is left out.

    Raises:
        DataError: if it does not exist, has no such records, or holds something else.
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
        records = [record for _, record in read_lines(file)]
    known = [r for r in records if isinstance(r.get(COUNTERS.get(str(r.get("kind")), "")), int)]
    if not known:
        kinds = ", ".join(sorted({str(r.get("kind")) for r in records})) or "nothing"
        raise DataError(f"{argument} has no records of a fit", got=kinds, allowed="what htf fit prints and keeps")
    kind = known[0]["kind"]
    return Records(name, [r for r in known if r["kind"] == kind], kind)


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines of a file and the records on them."""
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from _parse(file, str(path))


def _parse(lines: Iterable[str], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
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
