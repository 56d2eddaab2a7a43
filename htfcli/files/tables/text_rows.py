"""Rows of text files as they stand, with the comments and blank lines between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from htfcli.files.foreign.column_layout import Head
from htfcli.files.tables.dialect import Dialect, is_no_row, records
from htfcli.files.tables.encoding import Scan, open_text
from htfcli.files.tables.table_file import format_of


@dataclass(frozen=True)
class TextSource:
    """A text file of rows, or several that continue each other.

    Args:
        paths: the files. name: in messages. scans: of the bytes of each. dialect: how they are written. head: their
            columns.
    """

    paths: tuple[Path, ...]
    name: str
    scans: tuple[Scan, ...]
    dialect: Dialect
    head: Head

    @property
    def suffix(self) -> str:
        return format_of(self.paths[0])

    @cached_property
    def line_end(self) -> str:
        """What ends its lines."""
        with open_text(self.paths[0], self.name, self.scans[0].encoding) as file:
            line = next(iter(file), "\n")
        return line[len(line.rstrip("\r\n")) :] or "\n"


@dataclass(frozen=True)
class RawRow:
    """A row as it stands: the line it ends on, comments and blank lines before it, its text."""

    line: int
    before: str
    text: str


def raw_rows(file: Iterator[str], delimiter: str | None, quotes: bool) -> Iterator[RawRow]:
    """Yield every row with its text; the last one has no text, and what stands before the end of the file."""
    number, before, text = 0, [], ""
    if not quotes or delimiter is None:
        for number, line in enumerate(file, start=1):
            if is_no_row(line):
                before.append(line)
                continue
            yield RawRow(number, "".join(before), line)
            before.clear()
        yield RawRow(number, "".join(before), "")
        return
    taken: list[str] = []

    def lines() -> Iterator[str]:
        nonlocal number
        for number, line in enumerate(file, start=1):  # noqa: B007 -- read after each row
            taken.append(line)
            yield line

    for _ in records(lines(), delimiter):
        while is_no_row(taken[0]):
            before.append(taken.pop(0))
        text = "".join(taken)
        taken.clear()
        yield RawRow(number, "".join(before), text)
        before.clear()
    yield RawRow(number, "".join([*before, *taken]), "")
