"""Tables in text files: .csv, .tsv and .tns, read and rewritten in blocks, never whole.

A line that begins with `#` is a comment. Everything but the values filled in is copied unchanged, with its comments,
quotes and line ends.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count, islice, repeat
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from htfcli.errors import DataError
from htfcli.files.foreign.text_lines import not_utf8, open_text
from htfcli.files.own.axes import as_number
from htfcli.files.own.container import text_destination

BLOCK = 2**16  # rows filled in at a time: a few MiB of Python objects
_PARSED = 2**12  # rows parsed at a time: few enough not to start the garbage collector
MISSING = frozenset({"", "na", "n/a", "nan", "null"})  # fields without a value, in any case
_is_no_row = re.compile(r"#|\s*$").match  # a blank line or a comment

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
# rows start..stop -> which of them get a value, all values, and columns of further numbers, NaN where there are none
Fill = Callable[[int, int], tuple[list[bool], list[float], list[list[float]]]]
# blocks of further rows: a column of labels per mode, values, columns of further numbers
Rows = Iterator[tuple[list[list[str]], list[float], list[list[float]]]]


@dataclass(frozen=True)
class Filled:
    """Changes to a table: values filled in, and rows added at its end.

    Args:
        head, index_at, value_at: as for `TextTable.blocks`. value_name: of the column that is added where there is no
            value yet. fill: what is filled in. further: added rows; their other columns are empty.
        beside: names of columns of further numbers that are added at the end.
    """

    head: Head
    index_at: list[int]
    value_at: int | None
    value_name: str
    fill: Fill
    further: Rows
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Head:
    """The columns of a table.

    Args:
        names: of all columns. named: whether the file names them; otherwise they are numbered.
        padding: columns at the end that have neither a name nor a value, as where every line ends in a comma.
    """

    names: list[str]
    named: bool
    padding: int = 0

    @classmethod
    def numbered(cls, count: int) -> Head:
        return cls([str(number) for number in range(count)], named=False)


class _Row(NamedTuple):
    """A row: the line it ends on, comments and blank lines before it, its text, its fields."""

    line: int
    before: str
    text: str
    fields: list[str]


@dataclass(frozen=True)
class TextTable:
    """A text file of rows.

    Args:
        path: the file. name: its name in messages. delimiter: between fields; None for any number of spaces.
    """

    path: Path
    name: str
    delimiter: str | None

    def head(self) -> Head:
        """Its columns. The first row names them if none of its fields is a number and its last one is not missing.

        Empty fields at its end do not count if the other rows have nothing there either.

        Raises:
            DataError: if there is no row, or two columns have one name.
        """
        with closing(self._rows()) as rows, _readable(self.path, self.name):
            first = next(rows, None)
        if first is None:
            raise DataError(f"{self.name} has no entries")
        fields = [field.strip() for field in first.fields]
        named = fields.copy()
        while named and not named[-1]:
            named.pop()
        is_data = not named or named[-1].lower() in MISSING or any(as_number(field) is not None for field in named)
        if is_data or not self._is_empty_from(len(named), len(fields)):
            return Head.numbered(len(fields))
        twice = [field for field in named if named.count(field) > 1]
        if twice:
            raise DataError(f"{self.name} has two columns of the same name", got=twice[0])
        return Head(fields, named=True, padding=len(fields) - len(named))

    def _is_empty_from(self, start: int, stop: int) -> bool:
        """Whether the rows after the first one have nothing in the columns from `start` to before `stop`."""
        if start == stop:
            return True
        with closing(self._rows()) as rows, _readable(self.path, self.name):
            return not any(field.strip() for row in islice(rows, 1, None) for field in row.fields[start:stop])

    def blocks(
        self, head: Head, index_at: list[int], value_at: int | None
    ) -> Iterator[tuple[list[tuple[str, ...]], Floats]]:
        """Yield blocks of rows: a column of labels per mode, and the values, NaN where there is none.

        Args:
            head: of this table. index_at: columns that are modes. value_at: column of the value, if any.
        Raises:
            DataError: for a row of the wrong length, or a value that is not a finite number, with its line.
        """
        with open_text(self.path, self.name) as file, _readable(self.path, self.name):
            rows = islice(self._fields(file, lambda line: None), int(head.named), None)
            start = 0
            while block := list(islice(rows, _PARSED)):
                if set(map(len, block)) != {len(head.names)}:
                    wrong = next(row for row, fields in enumerate(block) if len(fields) != len(head.names))
                    where, got = self._where(head, start + wrong), len(block[wrong])
                    raise DataError(f"{where} has the wrong number of columns", got=got, allowed=len(head.names))
                columns = list(zip(*block, strict=True))
                if value_at is None:
                    values = np.full(len(block), math.nan)
                else:
                    values = self._values(columns[value_at], head, start)
                yield [columns[at] for at in index_at], values
                start += len(block)

    def _values(self, texts: tuple[str, ...], head: Head, start: int) -> Floats:
        try:
            if "_" not in "".join(texts):
                values = np.fromiter(map(float, texts), np.float64, len(texts))
                if not np.isinf(values).any():
                    return values
        except ValueError:
            pass
        return np.array([self._value(text, head, row) for row, text in enumerate(texts, start)])

    def _value(self, text: str, head: Head, row: int) -> float:
        text = text.partition("#")[0].strip()  # a comment may follow
        if text.lower() in MISSING:
            return math.nan
        number = as_number(text)
        if number is None:
            raise DataError(f"{self._where(head, row)} has a value that is not a number", got=repr(text[:40]))
        try:
            value = float(number)
        except OverflowError:  # integers can exceed the range of doubles
            value = math.inf
        if not math.isfinite(value):
            raise DataError(f"{self._where(head, row)} has no finite value", got=text[:40])
        return value

    def _where(self, head: Head, row: int) -> str:
        return f"{self.name} line {self.line_of(head, row)}"

    def line_of(self, head: Head, row: int) -> int:
        """The line on which a row ends, counted from 1."""
        with closing(self._rows()) as rows:
            return next(islice(rows, row + head.named, None)).line

    def write(self, destination: str, new: Filled) -> None:
        """Write the table with the changes `new` to a file, whole or not at all, or to stdout for `-`."""
        head, value_at = new.head, new.value_at
        width = len(head.names) + (value_at is None)
        place = len(head.names) if value_at is None else value_at
        gz = self.path.suffix == ".gz" and destination != "-"
        with closing(self._rows()) as rows, _readable(self.path, self.name), text_destination(destination, gz) as file:
            head_row = next(rows) if head.named else None
            end = "\r\n" if head_row is not None and head_row.text.endswith("\r\n") else "\n"
            write_rows = self._writer(file, end)
            if head_row is not None:
                file.write(head_row.before)
                if value_at is None or new.beside:
                    write_rows([[*head_row.fields, *([new.value_name] if value_at is None else []), *new.beside]])
                else:
                    file.write(_ended(head_row.text, end))
            for start in count(0, BLOCK):
                replace, values, beside = new.fill(start, start + BLOCK)
                if not replace:
                    break
                numbers = zip(*beside, strict=True) if beside else repeat(())
                for wanted, value, more, row in zip(replace, values, numbers, rows, strict=False):
                    file.write(row.before)
                    if wanted or more:
                        fields = [*row.fields, ""][:width]
                        fields[place] = repr(value) if wanted else fields[place]
                        write_rows([[*fields, *map(_number, more)]])
                    else:
                        file.write(_ended(row.text, end))
            try:
                next(rows)
            except StopIteration as ending:
                file.write(ending.value)
            for columns, values, beside in new.further:
                table = [[""] * len(values)] * width
                for at, column in zip([*new.index_at, place], [*columns, list(map(repr, values))], strict=True):
                    table[at] = column
                write_rows(zip(*table, *(list(map(_number, column)) for column in beside), strict=True))

    def _writer(self, file: IO[str], end: str) -> Callable[[Iterable[Iterable[str]]], None]:
        """A function that writes rows of fields."""
        if self.delimiter is None:
            return lambda rows: file.writelines(" ".join(fields) + end for fields in rows)
        return csv.writer(file, delimiter=self.delimiter, lineterminator=end).writerows

    def _fields(self, file: Iterable[str], on_other: Callable[[str], object]) -> Iterator[list[str]]:
        """Rows from lines. A field in quotes may hold line ends, after which `#` begins no comment.

        Args:
            on_other: called with each comment and blank line, before the row that follows it.
        """
        inside = False  # a row whose end has not been read yet

        def lines() -> Iterator[str]:
            nonlocal inside
            for line in file:
                if inside or not _is_no_row(line):
                    inside = True
                    yield line
                else:
                    on_other(line)

        parsed: Iterator[list[str]]
        if self.delimiter is None:
            parsed = (line.partition("#")[0].split() for line in lines())
        else:
            parsed = csv.reader(lines(), delimiter=self.delimiter)
        for fields in parsed:
            inside = False
            yield fields

    def _rows(self) -> Generator[_Row, None, str]:
        """Yield every row with its text and the lines before it.

        Returns: the comments after the last row.
        """
        number = 0
        before: list[str] = []
        text: list[str] = []

        def lines(file: Iterator[str]) -> Iterator[str]:
            nonlocal number
            for number, line in enumerate(file, start=1):  # noqa: B007 -- read after each row
                text.append(line)
                yield line

        def other(line: str) -> None:
            before.append(text.pop())

        with open_text(self.path, self.name) as file:
            for fields in self._fields(lines(file), other):
                yield _Row(number, "".join(before), "".join(text), fields)
                before.clear()
                text.clear()
        return "".join(before)


@contextmanager
def _readable(path: Path, name: str) -> Iterator[None]:
    """Turn the errors of reading a text file into DataErrors."""
    try:
        yield
    except UnicodeDecodeError:
        raise not_utf8(path, name) from None
    except csv.Error as error:
        raise DataError(f"{name} cannot be read: {error}") from None
    except EOFError:
        raise DataError(f"{name} is truncated") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} is damaged: {error}") from None


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def _ended(text: str, end: str) -> str:
    """The line with a line end, which the last line of a file may lack."""
    return text if text.endswith(("\n", "\r")) else text + end
