"""Text tables written back: only the cells that are filled in change, everything else is copied as it stands."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import IO

from htfcli.files.own.container import text_destination
from htfcli.files.tables.encoding import open_text, readable
from htfcli.files.tables.table_file import BLOCK, Filled, Rows
from htfcli.files.tables.text_rows import RawRow, TextSource, raw_rows


def write_text_table(table: TextSource, destination: str, new: Filled) -> None:
    """Write a text table with changes to a file, whole or not at all, or to stdout for `-`."""
    encoding = table.dialect.encoding
    compressed = destination.lower().endswith(".gz")
    with readable(table.name), text_destination(destination, compressed, encoding.codec) as file:
        file.write("\ufeff" if encoding.mark else "")
        _Writer(table, new, file).write()


@dataclass
class _Writer:
    table: TextSource
    new: Filled
    file: IO[str]
    kept: dict[int, str] = field(default_factory=dict)  # text of rows whose labels added ones have

    def __post_init__(self) -> None:
        self.delimiter, self.end = self.table.dialect.delimiter, self.table.line_end
        self.sign = " " if self.delimiter is None else self.delimiter
        self.cells, self.number = cells_of(self.delimiter), self.table.dialect.notation.text

    def write(self) -> None:
        blocks = (self.new.fill(start, start + BLOCK) for start in count(0, BLOCK))
        wanted = {int(row) for rows in self.new.like for row in rows}
        row, block, last = 0, None, ""
        for part, (path, scanned) in enumerate(zip(self.table.paths, self.table.scans, strict=True)):
            with open_text(path, self.table.name, scanned.encoding) as source:
                for number, raw in enumerate(raw_rows(source, self.delimiter, scanned.quotes)):
                    if not raw.text:
                        self.file.write(raw.before)
                    elif number == 0 and self.table.head.named:
                        if part == 0:
                            self.names(raw)
                    else:
                        if row % BLOCK == 0:
                            block = next(blocks)
                        assert block is not None
                        self.row(raw, block, row % BLOCK)
                        if row in wanted:
                            self.kept[row] = raw.text
                        row, last = row + 1, raw.text
        self.added(last)

    def names(self, raw: RawRow) -> None:
        names = [*([] if self.new.values_at else [self.new.value_name]), *self.new.beside]
        self.file.write(raw.before + self.extended(raw.text, names))

    def row(self, raw: RawRow, block: Rows, at: int) -> None:
        text = raw.text
        if not self.new.values_at:
            text = self.extended(text, [self.number(block.values[at, 0])])
        elif block.replaced[at].any():
            cells, end = self.cells(text)
            for place, wanted, value in zip(self.new.values_at, block.replaced[at], block.values[at], strict=True):
                if wanted:
                    cells[place].text = self.quote(self.number(value), cells[place].text.startswith('"'))
            text = "".join(cell.before + cell.text for cell in cells) + end
        text = self.extended(text, ["" if value != value else self.number(value) for value in block.beside[at]])
        self.file.write(raw.before + text)

    def extended(self, text: str, fields: Sequence[str]) -> str:
        """A row with further fields, and with a line end, which the last one may lack."""
        body = text.rstrip("\r\n")
        return self.sign.join([body, *map(self.quote, fields)]) + (text[len(body) :] or self.end)

    def quote(self, text: str, quoted: bool = False) -> str:
        special = self.delimiter is not None and any(sign in text for sign in (self.delimiter, '"', "\n", "\r"))
        return '"' + text.replace('"', '""') + '"' if quoted or special else text

    def added(self, last: str) -> None:
        """Rows for combinations that have none, with all fields in quotes if those of the last row are."""
        quoted = bool(last) and all(cell.text.startswith('"') for cell in self.cells(last)[0])
        width = len(self.table.head.names) + (not self.new.values_at)
        labels = [
            [self.fields(self.kept[int(row)])[at] for row in rows]
            for at, rows in zip(self.new.labels_at, self.new.like, strict=False)
        ]
        for block in self.new.added:
            for index, values, beside in zip(block.index, block.values, block.beside, strict=True):
                fields = [""] * width
                for at, texts, number in zip(self.new.labels_at, labels, index, strict=True):
                    fields[at] = texts[number]
                for at, value in zip(self.new.values_at or [width - 1], values, strict=True):
                    fields[at] = self.number(value)
                fields += ["" if value != value else self.number(value) for value in beside]
                self.file.write(self.sign.join(self.quote(text, quoted) for text in fields) + self.end)

    def fields(self, text: str) -> list[str]:
        return text.split() if self.delimiter is None else next(csv.reader([text], delimiter=self.delimiter))


@dataclass
class Cell:
    """A field as it stands, with quotes, and what separates it from the one before."""

    before: str
    text: str


def cells_of(delimiter: str | None) -> Callable[[str], tuple[list[Cell], str]]:
    """A function that splits the text of a row into cells and what follows the last one, such as the line end."""
    if delimiter is None:
        first = rest = re.compile(r"(\s*)([^\s#]+)")
    else:
        sign = re.escape(delimiter)
        cell = rf'("(?:[^"]|"")*"[^{sign}\r\n]*|[^{sign}\r\n]*)'
        first, rest = re.compile(rf"(){cell}"), re.compile(rf"({sign}){cell}")

    def split(text: str) -> tuple[list[Cell], str]:
        found, at, pattern = [], 0, first
        while match := pattern.match(text, at):
            found.append(Cell(match[1], match[2]))
            at, pattern = match.end(), rest
        return found, text[at:]

    return split
