"""Tables with one row per entry, whose columns are named and whose indices are labels.

Columns that are modes contain labels of any kind, mapped to 0..d-1 (in the order of `axes.axis_of`) and back. A table
is written as it was read, row by row, with values filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.files.foreign.cells import each_once, known_at, lacking, lacking_blocks
from htfcli.files.foreign.parquet_table import ParquetTable
from htfcli.files.foreign.readers import holes_at, suffix_of
from htfcli.files.foreign.text_table import MISSING, Filled, Floats, Head, Rows, TextTable
from htfcli.files.own.axes import Axis, axis_of

TABLES: dict[str, Callable[[Path, str], TextTable | ParquetTable]] = {
    ".csv": lambda path, name: TextTable(path, name, ","),
    ".tsv": lambda path, name: TextTable(path, name, "\t"),
    ".tns": lambda path, name: TextTable(path, name, None),
    ".tns.gz": lambda path, name: TextTable(path, name, None),
    ".parquet": ParquetTable,
}
Values = Callable[[Tensor], Tensor]  # (n, N) indices -> (n,) values
Bounds = Callable[[Tensor], tuple[Tensor, Tensor]]  # (n, N) indices -> lower and upper ends (n,)
BOUNDS = ("lower", "upper")  # names of the columns


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Args:
        file: where it stands. head: its columns. index_at, value_at: positions of those that are modes and of the
            value, None if it has none. value_name: what the value is called.
        axes: the modes. index: (n, N) int32, -1 for a label that its axis does not have. value: (n,) float64, NaN in
            rows without one. std: (n,) float64 standard deviations of the values, if known.
        unknown: per axis that lacks labels: its name, the first of them, how many rows have one.
    """

    file: TextTable | ParquetTable
    head: Head
    index_at: list[int]
    value_at: int | None
    value_name: str
    axes: tuple[Axis, ...]
    index: Tensor
    value: Tensor
    std: Tensor | None = None
    unknown: tuple[tuple[str, str, int], ...] = ()

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def suffix(self) -> str:
        return suffix_of(self.file.path)

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    def place(self, row: int) -> str:
        """The line of a row, for messages."""
        return f"line {self.file.line_of(self.head, row)}"

    def without(self, missing_value: float) -> Table:
        """The same table, with rows of this value as rows without one.

        Raises:
            ConfigError: if there are none.
        """
        return replace(self, value=holes_at(self.value, missing_value, self.name))

    def on(self, axes: Sequence[Axis], unknown_labels: bool = False) -> Table:
        """The same rows as indices of other axes, found by their labels.

        Args:
            unknown_labels: take a label that an axis does not have for index -1.
        Raises:
            DataError: otherwise, for such a label, with its line.
        """
        index = self.index.clone()
        for mode, (own, axis) in enumerate(zip(self.axes, axes, strict=True)):
            places = [-1 if (at := axis.find(own.label(i))) is None else at for i in range(own.size)]
            index[:, mode] = torch.tensor(places, dtype=index.dtype)[self.index[:, mode]]
            strange = torch.nonzero(index[:, mode] < 0).flatten()
            if len(strange) and not unknown_labels:
                row = int(strange[0])
                label = own.label(int(self.index[row, mode]))
                raise DataError(
                    f"{self.name} {self.place(row)}: column {own.name} has an unknown value",
                    got=repr(label),
                    allowed=_some([repr(axis.label(i)) for i in range(min(axis.size, 4))], axis.size),
                )
        return replace(self, axes=tuple(axes), index=index)

    def entries(self, average: bool = False) -> Entries:
        """The entries that have a value, each once; see `observed`."""
        return self.observed(average)[0]

    def observed(self, average: bool = False) -> tuple[Entries, Tensor | None]:
        """The entries that have a value, each once, and their standard deviations (n,), if known.

        Args:
            average: take the mean of rows that disagree about an entry; rows that agree always count once.
        Raises:
            DataError: for the first two rows that disagree, or if no row has a value, or one has no deviation.
        """
        return each_once(
            self.index, self.value, self.dims, std=self.std, average=average, name=self.name, place=self.place
        )

    def remarks(self) -> list[str]:
        """Remarks about columns that seem not to be modes, such as row numbers and notes."""
        rows = len(self.value)
        odd = [axis.name for axis in self.axes if axis.size == rows > 9]
        return [
            f"column {name} has a different value in every row; if it is not a mode, name the modes with --index"
            for name in odd
        ]

    def lacking(self) -> int:
        """Number of combinations of labels without a row."""
        return lacking(self.index, self.dims)

    def asked(self, entries: Entries | None = None, *, everywhere: bool = False, further: bool = False) -> Tensor:
        """Indices (n, N) that `write`, with the same arguments, asks for the values of, in its order."""
        unknown = torch.isnan(self._to_fill(entries, everywhere)[1])
        added = list(lacking_blocks(self.index, self.dims)) if further else []
        return torch.cat([self.index[unknown].long(), *added])

    def write(
        self,
        destination: str,
        values: Values,
        entries: Entries | None = None,
        *,
        everywhere: bool = False,
        further: bool = False,
        bounds: Bounds | None = None,
    ) -> None:
        """Write the table with values filled in.

        Args:
            destination: a file, or `-`. values: of given entries.
            entries: what is known; a row without value whose entry is known from another row gets that one.
            everywhere: replace the values that are there too. further: add a row for every combination that has none.
            bounds: of the values filled in, for two more columns; empty in rows whose value is known.
        """
        holes, value = self._to_fill(entries, everywhere)

        def fill(start: int, stop: int) -> tuple[list[bool], list[float], list[list[float]]]:
            block = value[start:stop]
            unknown = torch.isnan(block)
            beside = [torch.full_like(block, math.nan) for _ in BOUNDS] if bounds is not None else []
            if bool(unknown.any()):
                index = self.index[start:stop][unknown]
                block[unknown] = values(index)
                for column, ends in zip(beside, bounds(index) if bounds is not None else (), strict=True):
                    column[unknown] = ends
            return holes[start:stop].tolist(), block.tolist(), [column.tolist() for column in beside]

        added = self._further(values, bounds) if further else iter(())
        names = BOUNDS if bounds is not None else ()
        filled = Filled(self.head, self.index_at, self.value_at, self.value_name, fill, added, names)
        self.file.write(destination, filled)

    def _to_fill(self, entries: Entries | None, everywhere: bool) -> tuple[Tensor, Tensor]:
        """Rows (n,) that get a value, and the values (n,) that are known, NaN for those to be predicted."""
        holes = torch.ones_like(self.value, dtype=torch.bool) if everywhere else torch.isnan(self.value)
        value = torch.where(holes, math.nan, self.value)
        if entries is not None:
            value[holes] = known_at(entries, self.index[holes], self.dims)
        return holes, value

    def _further(self, values: Values, bounds: Bounds | None) -> Rows:
        """Labels, values and bounds of every combination that has no row, block by block."""
        for index in lacking_blocks(self.index, self.dims):
            labels = [list(map(axis.label, index[:, k].tolist())) for k, axis in enumerate(self.axes)]
            filled = values(index).tolist()
            yield labels, filled, [ends.tolist() for ends in bounds(index)] if bounds is not None else []


def read_table(
    path: Path,
    name: str,
    suffix: str,
    value: str | None = None,
    index: Sequence[str] | None = None,
    *,
    std: str | None = None,
    ordered: Sequence[str] = (),
) -> Table:
    """Read a table of entries.

    Args:
        path: the file. name: what to call it in messages. suffix: key of `TABLES`.
        value: its column of values (the last one). index: the columns that are modes (all others).
        std: its column of standard deviations. ordered: modes whose text labels stand in the order of the file.
    Raises:
        ConfigError: if a column does not exist. DataError: if a row cannot be used, with its line.
    """
    file = TABLES[suffix](path, name)
    head = file.head()
    std_at = None if std is None else _position(name, head, std)
    columns = range(len(head.names) - head.padding)
    others = [at for at in columns if at != std_at]
    value_at = _position(name, head, value) if value is not None else others[-1] if others else 0
    index_at = [at for at in others if at != value_at]
    if index is not None:
        index_at = [_position(name, head, column) for column in index]
        if value_at in index_at:
            raise ConfigError(
                "the last column is a mode, so it does not contain the values",
                next_step="Name their column with --value.",
            )
    if len(index_at) < 2:
        got = len(columns)
        hint = "Fields are separated by commas in .csv and by tabs in .tsv." if got == 1 else ""
        allowed = "2 indices or more and a value" + ("" if std is None else ", beside its standard deviation")
        raise DataError(f"{name} has too few columns", got=got, allowed=allowed, next_step=hint)
    table = _read(file, head, index_at, value_at, head.names[value_at], ordered)
    if std_at is None:
        return table
    deviations = [block for _, block in file.blocks(head, [], std_at)]
    return replace(table, std=torch.from_numpy(np.concatenate(deviations)))


def read_queries(path: Path, name: str, suffix: str, axes: Sequence[Axis], value_name: str) -> Table:
    """Read a table of entries to predict; its columns have the names of the axes, or their order.

    Labels that an axis does not have become index -1.

    Raises:
        DataError: if a column is missing.
    """
    file = TABLES[suffix](path, name)
    head = file.head()
    wanted = [axis.name for axis in axes]
    if head.padding and not set(wanted) <= set(head.names):  # all values are asked for: the first row may be one
        head = Head.numbered(len(head.names))
    if head.named and set(wanted) <= set(head.names):
        index_at = [head.names.index(column) for column in wanted]
    elif (head.named and not all(column.isdigit() for column in wanted)) or len(head.names) < len(axes):
        missing = [column for column in wanted if column not in head.names]
        raise DataError(f"{name} lacks columns", got=", ".join(head.names), allowed=", ".join(missing or wanted))
    else:
        index_at = list(range(len(axes)))
    value_at = head.names.index(value_name) if head.named and value_name in head.names else None
    if not head.named and len(head.names) > len(axes):
        value_at = len(head.names) - 1
    read = _read(file, head, index_at, value_at, value_name)
    table = read.on(axes, unknown_labels=True)
    unknown = [
        (axis.name, own.label(int(read.index[rows[0], mode])), len(rows))
        for mode, (axis, own) in enumerate(zip(axes, read.axes, strict=True))
        if len(rows := torch.nonzero(table.index[:, mode] < 0).flatten())
    ]
    return replace(table, unknown=tuple(unknown))


def _read(
    file: TextTable | ParquetTable,
    head: Head,
    index_at: list[int],
    value_at: int | None,
    value_name: str,
    ordered: Sequence[str] = (),
) -> Table:
    codes = [_Codes() for _ in index_at]
    numbers: list[list[np.ndarray]] = [[] for _ in index_at]
    values: list[Floats] = []
    rows = 0
    for columns, block in file.blocks(head, index_at, value_at):
        for code, column, at, parts in zip(codes, columns, index_at, numbers, strict=True):
            before = len(code.labels)
            parts.append(np.fromiter(map(code.__getitem__, column), np.int32, len(column)))
            absent = [n for n in range(before, len(code.labels)) if code.labels[n].lower() in MISSING]
            if absent:
                row = rows + int(np.argmax(parts[-1] == absent[0]))
                where = f"{file.name} line {file.line_of(head, row)}"
                what = f"{where} has no label in column {head.names[at]}"
                raise DataError(what, got=repr(code.labels[absent[0]]), next_step="Give it one, or leave the row out.")
        values.append(block)
        rows += len(block)
    if rows == 0:
        raise DataError(f"{file.name} has no entries")
    axes = []
    index = torch.empty((rows, len(index_at)), dtype=torch.int32)
    for mode, (code, at) in enumerate(zip(codes, index_at, strict=True)):
        axis, position = axis_of(head.names[at], code.labels, as_met=head.names[at] in ordered)
        axes.append(axis)
        places, start = np.array(position, dtype=np.int32), 0
        for part in numbers[mode]:
            index[start : start + len(part), mode] = torch.from_numpy(places[part])
            start += len(part)
        numbers[mode].clear()
    value = torch.from_numpy(np.concatenate(values))
    return Table(file, head, index_at, value_at, value_name, tuple(axes), index, value)


class _Codes(dict[str, int]):
    """Numbers of labels, in the order in which they appear; spaces around a label are ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[str] = []

    def __missing__(self, text: str) -> int:
        label = text.strip()
        if label != text:
            self[text] = code = self[label]
            return code
        self.labels.append(label)
        self[label] = code = len(self.labels) - 1
        return code


def _position(name: str, head: Head, column: str) -> int:
    names = head.names[: len(head.names) - head.padding]
    if column in names:
        return names.index(column)
    guess = did_you_mean(column, names)
    raise ConfigError(f"{name} has no such column", got=column, allowed=_some(names, len(names)), next_step=guess)


def _some(names: Sequence[str], count: int) -> str:
    """The first 20 names, and the number of all if there are more."""
    shown = ", ".join(names[:20])
    return shown if count <= len(names[:20]) else f"{shown}, ... ({count} in all)"
