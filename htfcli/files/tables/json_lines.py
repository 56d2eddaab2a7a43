"""Tables in JSON Lines: an object per line, whose keys are the columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from htfcli.config.tables import TableConfig
from htfcli.errors import DataError
from htfcli.files.foreign.column_layout import Head
from htfcli.files.own.container import text_destination
from htfcli.files.tables.encoding import Encoding, open_text, scan
from htfcli.files.tables.numbers import Notation
from htfcli.files.tables.objects import frame_of, sample_of
from htfcli.files.tables.table_file import BLOCK, Filled, format_of

if TYPE_CHECKING:
    import pandas as pd

_MARK = "\ue000"  # of the private use area: begins a number that is kept as it is written
_KEPT = re.compile(rf'"{_MARK}([^"]*)"')


@dataclass(frozen=True)
class JsonFile:
    """A table of JSON objects.

    Args:
        paths: the files. name: in messages. encoding: of the text. head: the keys of all objects, in the order in which
            they appear. rows: values by column, None where an object lacks the key. lines: where the objects stand.
        notation: of numbers that are text.
    """

    paths: tuple[Path, ...]
    name: str
    encoding: Encoding
    head: Head
    rows: list[tuple[Any, ...]]
    lines: list[int]
    notation: Notation

    @property
    def suffix(self) -> str:
        return format_of(self.paths[0])

    def remark(self) -> str:
        return self.encoding.words()

    def sample(self) -> pd.DataFrame:
        return sample_of(self.rows, len(self.head.names), self.notation)

    def read(self, labels: Sequence[int], numbers: Sequence[int]) -> pd.DataFrame:
        return frame_of(self.rows, labels, numbers, self.notation, self.name, self.line_of)

    def line_of(self, row: int) -> int:
        return self.lines[row]

    def write(self, destination: str, new: Filled) -> None:
        names = [self.head.names[at] for at in new.values_at] or [new.value_name]
        with text_destination(destination, False, self.encoding.codec) as file:
            spaced, block = True, None
            for row, (_, line) in enumerate(_lines(self.paths, self.name, self.encoding)):
                if row % BLOCK == 0:
                    block = new.fill(row, row + BLOCK)
                assert block is not None
                at, spaced = row % BLOCK, '": ' in line
                if block.replaced[at].any() or new.beside or not new.values_at:
                    entry = json.loads(line, parse_float=lambda text: _MARK + text)
                    for name, wanted, value in zip(names, block.replaced[at], block.values[at], strict=True):
                        if wanted or not new.values_at:
                            entry[name] = float(value)
                    entry |= {name: _none(value) for name, value in zip(new.beside, block.beside[at], strict=True)}
                    line = _dumped(entry, spaced)
                file.write(line if line.endswith("\n") else line + "\n")
            for added in new.added:
                for index, values, beside in zip(added.index, added.values, added.beside, strict=True):
                    entry = {
                        self.head.names[at]: self.rows[int(new.like[number][index[number]])][at]
                        for number, at in enumerate(new.labels_at)
                    }
                    entry |= dict(zip(names, map(float, values), strict=True))
                    entry |= {name: _none(value) for name, value in zip(new.beside, beside, strict=True)}
                    file.write(_dumped(entry, spaced) + "\n")


def open_json_table(paths: Sequence[Path], name: str, config: TableConfig) -> JsonFile:
    """Open a table in JSON Lines.

    Raises:
        DataError: for a line that is not an object, with its number, or if there is none.
    """
    encoding = scan(paths[0], name, config.encoding).encoding
    names: dict[str, int] = {}
    entries, lines = list[dict[str, Any]](), []
    for number, line in _lines(paths, name, encoding):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise DataError(f"{name} line {number} is not a JSON object", got=repr(line[:40].strip())) from None
        for key in entry:
            names.setdefault(key, len(names))
        entries.append(entry)
        lines.append(number)
    if not entries:
        raise DataError(f"{name} has no entries")
    rows = [tuple(_plain(entry.get(key)) for key in names) for entry in entries]
    notation = Notation(missing=frozenset(text.strip().lower() for text in config.na or ()))
    return JsonFile(tuple(paths), name, encoding, Head(list(names), True), rows, lines, notation)


def _lines(paths: Sequence[Path], name: str, encoding: Encoding) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    for path in paths:
        with open_text(path, name, encoding) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _none(value: float) -> float | None:
    return None if value != value else float(value)


def _dumped(entry: dict[str, Any], spaced: bool) -> str:
    separators = (", ", ": ") if spaced else (",", ":")
    return _KEPT.sub(r"\1", json.dumps(entry, ensure_ascii=False, separators=separators))
