"""Tables in sheets of .xlsx files. Formats, formulas and all other sheets are kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from htfcli.config.tables import TableConfig
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.files.foreign.column_layout import Head
from htfcli.files.foreign.readers import missing_library, parsing
from htfcli.files.own.container import binary_destination
from htfcli.files.tables.header import find_head
from htfcli.files.tables.numbers import Notation
from htfcli.files.tables.objects import frame_of, sample_of
from htfcli.files.tables.table_file import BLOCK, SAMPLE, Filled

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Sheet:
    """A table in a sheet.

    Args:
        path: the file. name: in messages. title: of the sheet. sheets: titles of all. head: the columns of the table.
        rows: its cells. top, left: row and column of its first cell, counted from 1, the names of columns included.
        notation: of numbers that are text.
    """

    path: Path
    name: str
    title: str
    sheets: tuple[str, ...]
    head: Head
    rows: list[tuple[Any, ...]]
    top: int
    left: int
    notation: Notation

    suffix = ".xlsx"

    def remark(self) -> str:
        return "" if len(self.sheets) == 1 else f"sheet {self.title} of {', '.join(self.sheets)}"

    def sample(self) -> pd.DataFrame:
        return sample_of(self.rows, len(self.head.names), self.notation)

    def read(self, labels: Sequence[int], numbers: Sequence[int]) -> pd.DataFrame:
        frame = frame_of(self.rows, labels, numbers, self.notation, self.name, self.line_of)
        holes = [(row, at) for at in numbers for row in frame.index[frame[at].isna()]]
        if holes:
            with _workbook(self.path, self.name, computed=False) as book:
                sheet = book[self.title]
                for row, at in holes:
                    cell = sheet.cell(self.line_of(row), self.left + at)
                    if cell.data_type == "f":
                        raise DataError(
                            f"{self.name} cell {cell.coordinate} has a formula whose value is not stored",
                            next_step="Open the file in a spreadsheet program and save it, which computes them.",
                        )
        return frame

    def line_of(self, row: int) -> int:
        return self.top + int(self.head.named) + row

    def write(self, destination: str, new: Filled) -> None:
        with _workbook(self.path, self.name, computed=False) as book:
            sheet, width = book[self.title], len(self.head.names)
            places = list(new.values_at) or [width]
            names = [*([] if new.values_at else [new.value_name]), *new.beside]
            first = width + (not new.values_at)
            if self.head.named:
                for number, name in enumerate(names):
                    sheet.cell(self.top, self.left + width + number, name)
            for start in range(0, len(self.rows), BLOCK):
                block = new.fill(start, start + BLOCK)
                for row in range(len(block.values)):
                    line = self.line_of(start + row)
                    for number, at in enumerate(places):
                        if block.replaced[row, number] or not new.values_at:
                            sheet.cell(line, self.left + at).value = float(block.values[row, number])
                    _put_beside(sheet, line, self.left + first, block.beside[row])
            line = self.line_of(len(self.rows))
            for added in new.added:
                for index, values, beside in zip(added.index, added.values, added.beside, strict=True):
                    for number, at in enumerate(new.labels_at):
                        own = sheet.cell(self.line_of(int(new.like[number][index[number]])), self.left + at)
                        copy = sheet.cell(line, self.left + at, own.value)
                        copy.number_format = own.number_format
                    for number, at in enumerate(places):
                        sheet.cell(line, self.left + at, float(values[number]))
                    _put_beside(sheet, line, self.left + first, beside)
                    line += 1
            with binary_destination(destination) as path:
                book.save(path)


def _put_beside(sheet: Any, line: int, first: int, numbers: Any) -> None:
    for number, value in enumerate(numbers):
        if value == value:
            sheet.cell(line, first + number, float(value))


def open_sheet(paths: Sequence[Path], name: str, config: TableConfig) -> Sheet:
    """Open the sheet of an .xlsx file that is named, or the first one with a table.

    Raises:
        DataError: if there is no table. ConfigError: if there is no such sheet.
    """
    if len(paths) > 1:
        raise DataError(f"{name}: spreadsheets are read one at a time", got=f"{len(paths)} files")
    with _workbook(paths[0], name, computed=True) as book:
        titles = [sheet.title for sheet in book.worksheets]
        if config.sheet is not None and config.sheet not in titles:
            guess = did_you_mean(config.sheet, titles)
            raise ConfigError(f"{name} has no such sheet", got=config.sheet, allowed=", ".join(titles), next_step=guess)
        found = None
        for title in titles if config.sheet is None else [config.sheet]:
            cells, top, left = _cells(book[title])
            if cells and (len(cells[0]) > 1 or config.sheet is not None):
                found = title
                break
    if found is None:
        raise DataError(f"{name} has no entries")
    notation = Notation(
        config.decimal or ".", config.thousands or "", frozenset(t.strip().lower() for t in config.na or ())
    )
    texts = [["" if cell is None else str(cell) for cell in row] for row in cells[:SAMPLE]]
    head = find_head(texts, name, notation, config.header)
    rows = cells[int(head.named) :]
    return Sheet(paths[0], name, found, tuple(titles), head, rows, top, left, notation)


def _cells(sheet: Any) -> tuple[list[tuple[Any, ...]], int, int]:
    """The cells of a sheet without empty rows and columns around them, and where the first one is."""
    rows = [tuple(row) for row in sheet.iter_rows(values_only=True)]
    used = [number for number, row in enumerate(rows) if any(cell is not None for cell in row)]
    if not used:
        return [], 1, 1
    columns = [at for at in range(len(rows[0])) if any(row[at] is not None for row in rows)]
    top, left = used[0], columns[0]
    # the table ends at the first empty row: what follows is a note or another table
    end = next((number for number in range(top, len(rows)) if number not in set(used)), len(rows))
    return [row[left : columns[-1] + 1] for row in rows[top:end]], top + 1, left + 1


@contextmanager
def _workbook(path: Path, name: str, *, computed: bool) -> Iterator[Any]:
    """Open a workbook: values of formulas, or the formulas themselves."""
    try:
        import openpyxl
    except ImportError:
        raise missing_library(".xlsx", "openpyxl") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of openpyxl, about extensions that it does not know
        with parsing(name, ".xlsx file"), open(path, "rb") as file:
            book = openpyxl.load_workbook(file, data_only=computed)
        try:
            yield book
        finally:
            book.close()
