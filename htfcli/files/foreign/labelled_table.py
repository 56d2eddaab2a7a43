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

from htfcli.engine.samples import Entries, row_keys, unravel
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.files.foreign.parquet_table import ParquetTable
from htfcli.files.foreign.readers import holes_at, suffix_of
from htfcli.files.foreign.text_table import BLOCK, MISSING, Filled, Floats, Head, Rows, TextTable
from htfcli.files.own.axes import Axis, axis_of

TABLES: dict[str, Callable[[Path, str], TextTable | ParquetTable]] = {
    ".csv": lambda path, name: TextTable(path, name, ","),
    ".tsv": lambda path, name: TextTable(path, name, "\t"),
    ".tns": lambda path, name: TextTable(path, name, None),
    ".tns.gz": lambda path, name: TextTable(path, name, None),
    ".parquet": ParquetTable,
}
Values = Callable[[Tensor], Tensor]  # maps indices (n, N) to values (n,)


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Args:
        file: the file. head: its columns. index_at, value_at: the columns that are modes, and that of the value, None
            if there is none. value_name: name of the value.
        axes: the modes. index: (n, N) int32. value: (n,) float64, NaN in rows without one.
    """

    file: TextTable | ParquetTable
    head: Head
    index_at: list[int]
    value_at: int | None
    value_name: str
    axes: tuple[Axis, ...]
    index: Tensor
    value: Tensor

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

    def on(self, axes: Sequence[Axis]) -> Table:
        """The same rows with indices of other axes, found by their labels.

        Raises:
            DataError: for a label that an axis does not have, with its line.
        """
        index = self.index.clone()
        for mode, (own, axis) in enumerate(zip(self.axes, axes, strict=True)):
            places = [-1 if (at := axis.find(own.label(i))) is None else at for i in range(own.size)]
            index[:, mode] = torch.tensor(places, dtype=index.dtype)[self.index[:, mode]]
            strange = torch.nonzero(index[:, mode] < 0).flatten()
            if len(strange):
                row = int(strange[0])
                label = own.label(int(self.index[row, mode]))
                raise DataError(
                    f"{self.name} {self.place(row)}: column {own.name} has an unknown value",
                    got=repr(label),
                    allowed=_some([repr(axis.label(i)) for i in range(min(axis.size, 4))], axis.size),
                )
        return replace(self, axes=tuple(axes), index=index)

    def entries(self, average: bool = False) -> Entries:
        """The entries that have a value, each once.

        Args:
            average: take the mean of rows that disagree about an entry; rows that agree always count once.
        Raises:
            DataError: for the first two rows that disagree, or if no row has a value.
        """
        row = torch.nonzero(~torch.isnan(self.value)).flatten()
        if len(row) == 0:
            raise DataError(f"{self.name} has no observed value", next_step="Is the value in another column? --value.")
        every = len(row) == len(self.value)  # tens of millions of rows are copied only if needed
        known = Entries(self.index, self.value) if every else Entries(self.index[row], self.value[row])
        key, order = torch.sort(row_keys(known.index, self.dims), stable=True)
        fresh = torch.ones(len(key), dtype=torch.bool)
        fresh[1:] = key[1:] != key[:-1]
        if bool(fresh.all()):
            return known
        first = torch.nonzero(fresh).flatten()
        group = fresh.cumsum(0) - 1  # the entry of each row, in sorted order
        value = known.value[order]
        mean = value[first].clone()
        other = torch.nonzero(value != mean[group]).flatten()
        if len(other) and not average:
            at = other[torch.argmin(order[other])]
            earlier, later = (int(row[order[i]]) for i in (first[group[at]], at))
            raise DataError(
                f"{self.name} {self.place(later)} disagrees with {self.place(earlier)} about one entry",
                got=f"{float(self.value[later])!r} and {float(self.value[earlier])!r}",
                next_step="Correct one of them, or average them: --duplicates mean.",
            )
        if len(other):
            count = torch.bincount(group).to(torch.float64)
            mean.zero_().index_add_(
                0, group, value / count[group]
            )  # divided first: a sum of values near 1e308 would be infinite
        kept = torch.sort(order[first])  # in the order of the file
        return Entries(known.index[kept.values], mean[kept.indices])

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
        return math.prod(self.dims) - len(torch.unique(row_keys(self.index, self.dims)))

    def write(
        self,
        destination: str,
        values: Values,
        entries: Entries | None = None,
        *,
        everywhere: bool = False,
        further: bool = False,
    ) -> None:
        """Write the table with values filled in.

        Args:
            destination: a file, or `-`. values: maps indices (n, N) to values (n,).
            entries: the known entries; a row without a value whose entry is known from another row gets that value.
            everywhere: replace known values too. further: add a row for every combination without one.
        """
        holes = torch.ones_like(self.value, dtype=torch.bool) if everywhere else torch.isnan(self.value)
        value = torch.where(holes, math.nan, self.value)
        if entries is not None:
            value[holes] = _known(entries, self.index[holes], self.dims)

        def fill(start: int, stop: int) -> tuple[list[bool], list[float]]:
            block = value[start:stop]
            unknown = torch.isnan(block)
            if bool(unknown.any()):
                block[unknown] = values(self.index[start:stop][unknown])
            return holes[start:stop].tolist(), block.tolist()

        added = self._further(values) if further else iter(())
        filled = Filled(self.head, self.index_at, self.value_at, self.value_name, fill, added)
        self.file.write(destination, filled)

    def _further(self, values: Values) -> Rows:
        """Yield labels and values of every combination without a row, in blocks."""
        taken = torch.unique(row_keys(self.index, self.dims))  # row-major positions, sorted
        total = math.prod(self.dims)
        for start in range(0, total, BLOCK):
            stop = min(start + BLOCK, total)
            low, high = torch.searchsorted(taken, torch.tensor([start, stop])).tolist()
            free = torch.ones(stop - start, dtype=torch.bool)
            free[taken[low:high] - start] = False
            position = torch.nonzero(free).flatten() + start
            if len(position):
                index = unravel(position, self.dims)
                labels = [list(map(axis.label, index[:, k].tolist())) for k, axis in enumerate(self.axes)]
                yield labels, values(index).tolist()


def _known(entries: Entries, index: Tensor, dims: Sequence[int]) -> Tensor:
    """Values (m,) of entries (m, N): the known ones, NaN for the others."""
    # keys of both together: in a large tensor a key is a rank among the given rows
    key = row_keys(torch.cat([entries.index, index]), dims)
    known, order = torch.sort(key[: len(entries)])
    wanted = key[len(entries) :]
    at = torch.searchsorted(known, wanted).clamp_(max=len(known) - 1)
    return torch.where(known[at] == wanted, entries.value[order[at]], math.nan)


def read_table(
    path: Path, name: str, suffix: str, value: str | None = None, index: Sequence[str] | None = None
) -> Table:
    """Read a table of entries.

    Args:
        path: the file. name: its name in messages. suffix: key of `TABLES`.
        value: the column of values (default: the last one). index: the columns that are modes (default: all others).
    Raises:
        ConfigError: if a column does not exist. DataError: if a row cannot be used, with its line.
    """
    file = TABLES[suffix](path, name)
    head = file.head()
    columns = range(len(head.names) - head.padding)
    value_at = columns[-1] if value is None else _position(name, head, value)
    index_at = [at for at in columns if at != value_at]
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
        allowed = "2 indices or more and a value"
        raise DataError(f"{name} has too few columns", got=got, allowed=allowed, next_step=hint)
    return _read(file, head, index_at, value_at, head.names[value_at])


def read_queries(path: Path, name: str, suffix: str, axes: Sequence[Axis], value_name: str) -> Table:
    """Read a table of entries to predict; its columns have the names of the axes, or their order.

    Raises:
        DataError: if a column is missing, or an axis does not have a label.
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
    return _read(file, head, index_at, value_at, value_name).on(axes)


def _read(
    file: TextTable | ParquetTable, head: Head, index_at: list[int], value_at: int | None, value_name: str
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
        axis, position = axis_of(head.names[at], code.labels)
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
