"""Tables as tensors: their entries, and their cells filled in.

Columns that are modes contain labels of any kind, mapped to 0..d-1 and back. A table is written as it was read, cell by
cell, with values filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from htfcli.engine.samples import Entries
from htfcli.errors import DataError
from htfcli.files.foreign.cells import Values, each_once, known_at, lacking, lacking_blocks
from htfcli.files.foreign.column_layout import some
from htfcli.files.foreign.frame_labels import Mode
from htfcli.files.foreign.readers import refuse_absent
from htfcli.files.own.axes import Axis
from htfcli.files.tables.labelled import Labelled
from htfcli.files.tables.table_file import Added, Filled, Rows

Bounds = Callable[[Tensor], tuple[Tensor, Tensor]]  # (n, N) indices -> lower and upper ends (n,)
BOUNDS = ("lower", "upper")  # names of the columns
_MOST_ZEROS = 10**8  # combinations without a row that are taken for zeros


@dataclass(frozen=True)
class Table:
    """A table that was read, as a tensor.

    Args:
        source: what was read. axes: the modes. index: (n, N) int32 of its cells, -1 for a label that its axis does not
            have. value: (n,) float64, NaN in cells without one. std: (n,) float64 standard deviations of the values,
            if known. zeros: whether combinations without a row are zero.
        unknown: per axis that lacks labels: its name, the first of them, how many cells have one.
    """

    source: Labelled
    axes: tuple[Axis, ...]
    index: Tensor
    value: Tensor
    std: Tensor | None = None
    zeros: bool = False
    unknown: tuple[tuple[str, str, int], ...] = ()

    @classmethod
    def of(cls, source: Labelled, zeros: bool = False) -> Table:
        """The table that was read."""
        std = None if source.std is None else torch.from_numpy(source.std)
        return cls(source, source.axes, torch.from_numpy(source.index), torch.from_numpy(source.value), std, zeros)

    @property
    def name(self) -> str:
        return self.source.file.name

    @property
    def modes(self) -> tuple[Mode | None, ...]:
        """The modes with their coordinates; None where other axes are given than those that were read."""
        return tuple(
            mode if mode.axis is axis else None for mode, axis in zip(self.source.modes, self.axes, strict=True)
        )

    @property
    def value_name(self) -> str:
        return self.source.value_name

    @property
    def suffix(self) -> str:
        return self.source.file.suffix

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @property
    def is_wide(self) -> bool:
        """Whether it has one column per index of its last mode."""
        return bool(self.source.layout.across)

    @property
    def width(self) -> int:
        """Values in a row."""
        return max(1, len(self.source.layout.values_at))

    def place(self, cell: int) -> str:
        """The line of a cell, for messages."""
        row, column = divmod(cell, self.width)
        beside = f", column {self.source.file.head.names[self.source.layout.values_at[column]]}" if self.is_wide else ""
        return f"line {self.source.file.line_of(row)}{beside}"

    def without(self, missing_value: float) -> Table:
        """The same table, with cells of this value as cells without one.

        Raises:
            ConfigError: if there are none.
        """
        refuse_absent(self.value.numpy(), missing_value, self.name)
        return replace(self, value=torch.where(self.value == missing_value, math.nan, self.value))

    def on(self, axes: Sequence[Axis], unknown_labels: bool = False) -> Table:
        """The same cells as indices of other axes, found by their labels.

        Args:
            unknown_labels: take a label that an axis does not have for index -1.
        Raises:
            DataError: otherwise, for such a label, with its line.
        """
        index = self.index.clone()
        unknown = []
        for mode, (own, axis) in enumerate(zip(self.axes, axes, strict=True)):
            places = [-1 if (at := axis.find(own.label(i))) is None else at for i in range(own.size)]
            index[:, mode] = torch.tensor(places, dtype=index.dtype)[self.index[:, mode].long()]
            strange = torch.nonzero(index[:, mode] < 0).flatten()
            if len(strange):
                label = own.label(int(self.index[int(strange[0]), mode]))
                unknown.append((axis.name, label, len(strange)))
            if len(strange) and not unknown_labels:
                raise DataError(
                    f"{self.name} {self.place(int(strange[0]))}: column {own.name} has an unknown value",
                    got=repr(label),
                    allowed=some([repr(axis.label(i)) for i in range(min(axis.size, 4))], axis.size),
                )
        return replace(self, axes=tuple(axes), index=index, unknown=tuple(unknown))

    def entries(self, average: bool = False) -> Entries:
        """The entries that have a value, each once; see `observed`."""
        return self.observed(average)[0]

    def observed(self, average: bool = False) -> tuple[Entries, Tensor | None]:
        """The entries that have a value, each once, and their standard deviations (n,), if known.

        Args:
            average: take the mean of rows that disagree about an entry; rows that agree always count once.
        Raises:
            DataError: for the first two rows that disagree, or if no row has a value, or one has no deviation, or too
            many combinations are zero.
        """
        entries, std = each_once(
            self.index, self.value, self.dims, std=self.std, average=average, name=self.name, place=self.place
        )
        if not self.zeros:
            return entries, std
        if (count := lacking(self.index, self.dims)) > _MOST_ZEROS:
            got, allowed = f"{count:,}" if count < 10**15 else f"about 10^{len(str(count)) - 1}", f"{_MOST_ZEROS:,}"
            raise DataError(f"{self.name} has too many zeros for --absent-is-zero", got=got, allowed=allowed)
        zero = torch.cat([entries.index.long(), *lacking_blocks(self.index, self.dims)])
        value = torch.cat([entries.value, entries.value.new_zeros(len(zero) - len(entries.value))])
        # a zero that is not written down has no error of its own: it is as good as the best of the others
        std = None if std is None else torch.cat([std, std.min().expand(len(zero) - len(std))])
        return Entries(zero, value), std

    def lacking(self) -> int:
        """Number of combinations of labels without a row; none where these are known to be zero."""
        return 0 if self.zeros else lacking(self.index, self.dims)

    def asked(self, entries: Entries | None = None, *, everywhere: bool = False, further: bool = False) -> Tensor:
        """Indices (n, N) that `write`, with the same arguments, asks for the values of, in its order."""
        unknown = torch.isnan(self._to_fill(entries, everywhere)[1])
        return torch.cat([self.index[unknown].long(), *(self._lacking() if further else [])])

    def write(
        self,
        destination: str,
        values: Values,
        entries: Entries | None = None,
        *,
        everywhere: bool = False,
        further: bool = False,
        bounds: Bounds | None = None,
        own_type: bool = True,
    ) -> None:
        """Write the table with values filled in.

        Args:
            destination: a file, or `-`. values: of given entries.
            entries: what is known; a cell without value whose entry is known from another row gets that one.
            everywhere: replace the values that are there too. further: add rows for combinations that have none.
            bounds: of the values filled in, for two more columns; empty in rows whose value is known.
            own_type: write whole numbers as such where their column has that type, not as float64.
        """
        holes, value = self._to_fill(entries, everywhere)
        width, names = self.width, BOUNDS if bounds is not None else ()

        def rows(index: Tensor, replaced: Tensor, block: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            unknown = torch.isnan(block)
            beside = torch.full((len(block), len(names)), math.nan, dtype=torch.float64)
            if bool(unknown.any()):
                asked = index[unknown]
                block = block.clone()
                block[unknown] = values(asked)
                if bounds is not None:
                    beside[unknown] = torch.stack(bounds(asked), dim=1)
            count = len(block) // width
            return replaced.view(count, width).numpy(), block.view(count, width).numpy(), beside.numpy()[:count]

        def fill(start: int, stop: int) -> Rows:
            cells = slice(start * width, stop * width)
            return Rows(*rows(self.index[cells].long(), holes[cells], value[cells]))

        def added() -> Iterator[Added]:
            for index in self._lacking():
                nothing = torch.full((len(index),), math.nan, dtype=torch.float64)
                found = rows(index, torch.ones(len(index), dtype=torch.bool), nothing)
                yield Added(*found, index[::width, : len(self.source.layout.labels_at)].numpy())

        layout = self.source.layout
        more, like = (added(), self.source.like()) if further else (iter(()), [])
        self.source.file.write(
            destination, Filled(layout.labels_at, layout.values_at, self.value_name, fill, more, like, names, own_type)
        )

    def _to_fill(self, entries: Entries | None, everywhere: bool) -> tuple[Tensor, Tensor]:
        """Cells (n,) that get a value, and the values (n,) that are known, NaN for those to be predicted."""
        holes = torch.ones_like(self.value, dtype=torch.bool) if everywhere else torch.isnan(self.value)
        value = torch.where(holes, math.nan, self.value)
        if entries is not None:
            value[holes] = known_at(entries, self.index[holes], self.dims)
        return holes, value

    def _lacking(self) -> Iterator[Tensor]:
        """Indices (n, N) of every combination that has no row, block by block; of a wide table whole rows."""
        if not self.is_wide:
            yield from lacking_blocks(self.index, self.dims)
            return
        across = self.index[: self.width, -1:].long()
        for rows in lacking_blocks(self.index[:: self.width, :-1], self.dims[:-1]):
            yield torch.cat([rows.repeat_interleave(self.width, 0), across.repeat(len(rows), 1)], dim=1)
