"""pandas DataFrames as labelled tensors, and completed tensors as frames of the same form.

pandas is imported only where a frame is there already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from htfcli.engine.samples import Entries
from htfcli.errors import DataError
from htfcli.files.foreign.cells import Values, each_once, known_at, lacking, lacking_blocks, put
from htfcli.files.foreign.frame_labels import Mode, OfModes, mode_of, names_of, numbered_mode, taken
from htfcli.files.foreign.frame_layout import Layout, find_layout
from htfcli.files.foreign.number_types import as_floats, in_type

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 10**8  # that are added to a frame: several GB


@dataclass(frozen=True)
class FrameTensor(OfModes):
    """A data frame as a tensor: every cell of its value columns is one entry.

    Args:
        frame: as it was given. layout: what its columns are. name: what to call it in messages.
        modes: those of rows first, those of columns last. rows: modes that rows have.
        index: (n, N) int32 of the cells, row by row. value: (n,) float64, NaN at holes. std: (n,) or None.
    """

    frame: pd.DataFrame
    layout: Layout
    name: str
    modes: tuple[Mode, ...]
    rows: int
    index: Tensor
    value: Tensor
    std: Tensor | None = None

    @property
    def value_name(self) -> str:
        return "value" if self.layout.wide else str(self.frame.columns[self.layout.values[0]])

    @property
    def remarks(self) -> tuple[str, ...]:
        return self.layout.remarks

    def place(self, cell: int) -> str:
        """The row and column of a cell, for messages."""
        row, column = divmod(cell, len(self.layout.values))
        beside = f", column {self.frame.columns[self.layout.values[column]]}" if self.layout.wide else ""
        return f"row {row}{beside}"

    def observed(self, average: bool = False) -> tuple[Entries, Tensor | None]:
        """The entries that have a value, each once, and their standard deviations; see `cells.each_once`."""
        return each_once(
            self.index, self.value, self.dims, std=self.std, average=average, name=self.name, place=self.place
        )

    def holes(self) -> int:
        """Number of cells without a value."""
        return int(torch.isnan(self.value).sum())

    @cached_property
    def further(self) -> int:
        """Number of combinations of labels without a row, where it is these that are missing.

        They are where every cell has a value; else the empty cells are what is to be filled.
        """
        return lacking(self.index, self.dims) if self.holes() == 0 else 0

    @property
    def missing(self) -> int:
        """Number of entries that `filled` fills in: empty cells, or else combinations without a row."""
        return self.further or self.holes()

    def wanted(self) -> Tensor | None:
        """Indices (n, N) of the empty cells; None if all that is not observed is to be filled in."""
        return self.asked() if self.holes() else None

    def asked(self) -> Tensor:
        """Indices (n, N) of all entries that `filled` asks the values of, in its order."""
        self._refuse_endless()
        unknown = torch.isnan(self._known())
        added = list(lacking_blocks(self.index, self.dims)) if self.further else []
        return torch.cat([self.index[unknown].long(), *added])

    def filled(self, values: Values, *, everywhere: bool = False) -> pd.DataFrame:
        """The frame with its empty cells filled in; where none are, with a row for every combination that lacks one.

        Labels, types and all other cells stay as they are. A cell whose entry is known from another row has that value.

        Args:
            values: of given entries. everywhere: replace observed values too.
        """
        self._refuse_endless()
        known = torch.full_like(self.value, math.nan) if everywhere else self._known()
        unknown = torch.nonzero(torch.isnan(known)).flatten()
        _fill(known, unknown, self.index, values)
        holes = torch.ones_like(known, dtype=torch.bool) if everywhere else torch.isnan(self.value)
        frame = self._with(known, holes, keep_types=True)
        return self._extended(frame, values) if self.further else frame

    def like(self, values: Values, *, holes_only: bool = False, keep: bool = False) -> pd.DataFrame:
        """A frame of the same form that has something else of every entry, as float64: its deviation, a bound.

        Args:
            values: of given entries. holes_only: of entries without a value only; NaN for the others. keep: the others
            keep their value.
        """
        found = self._known() if keep else torch.full_like(self.value, math.nan)
        holes = torch.isnan(found if keep else self.value)
        cells = torch.nonzero(holes).flatten() if holes_only or keep else torch.arange(len(found))
        _fill(found, cells, self.index, values)
        frame = self._with(found, torch.ones_like(found, dtype=torch.bool), keep_types=False)
        return self._extended(frame, values) if self.further else frame

    def index_of(self, labels: Any, name: str = "the rows") -> Tensor:
        """Indices (n, N) of the entries that rows of labels name, -1 for unknown labels.

        Args:
            labels: a DataFrame with a column, or level of the index, per mode; or a sequence of rows of labels, in the
            order of the modes, or of mappings from names to labels. name: what to call it in messages.
        Raises:
            DataError: if a mode has no column, or a row not as many labels as there are modes.
        """
        return index_of(self.modes, labels, name)

    def _refuse_endless(self) -> None:
        if self.further > MOST_ROWS:
            raise DataError(
                f"{self.name} lacks too many combinations to add a row for each",
                got=f"{self.further:,}" if self.further < 10**15 else f"about 10^{len(str(self.further)) - 1}",
                allowed=f"{MOST_ROWS:,}",
                next_step="Ask for those you need with predict.",
            )

    # --- parts --------------------------------------------------------------------------------------------------------

    def _known(self) -> Tensor:
        """Values (n,) of the cells that are known, from their own row or another; NaN for the others."""
        value = self.value.clone()
        holes = torch.isnan(value)
        if bool(holes.any()) and not bool(holes.all()):
            at = torch.nonzero(~holes).flatten()
            value[holes] = known_at(Entries(self.index[at], value[at]), self.index[holes], self.dims)
        return value

    def _with(self, value: Tensor, replaced: Tensor, keep_types: bool) -> pd.DataFrame:
        """The frame with other values (n,) in the cells `replaced` (n,)."""
        frame = self.frame.copy()
        count = len(self.layout.values)
        table, where = value.view(-1, count).numpy(), replaced.view(-1, count).numpy()
        for number, at in enumerate(self.layout.values):
            new, mask = table[:, number], where[:, number]
            if not keep_types:
                frame.isetitem(at, new.copy())
            elif mask.any():
                frame.isetitem(at, in_type(frame.iloc[:, at], mask, new[mask]))
        return frame

    def _extended(self, frame: pd.DataFrame, values: Values) -> pd.DataFrame:
        """The frame with a row for every combination of row labels that has none."""
        import pandas as pd

        count, rows = len(self.layout.values), self.rows
        own = self.index[::count, :rows]
        dims = self.dims[:rows]
        index = torch.cat(list(lacking_blocks(own, dims)))
        cells = index.repeat_interleave(count, 0)
        if self.layout.wide:
            beside = self.index[:count, rows:].long().repeat(len(index), 1)
            cells = torch.cat([cells, beside], 1)
        found = torch.empty(len(cells), dtype=torch.float64)
        _fill(found, torch.arange(len(cells)), cells, values)
        table = found.view(-1, count).numpy()
        labels = [taken(mode, index[:, k].numpy()) for k, mode in enumerate(self.modes[:rows])]
        columns: dict[int, Any] = {}
        for k, at in enumerate(self.layout.columns):
            columns[at] = labels[len(self.layout.levels) + k]
        for k, at in enumerate(self.layout.values):
            blank = pd.Series(np.full(len(index), np.nan))
            everywhere = np.ones(len(index), dtype=bool)
            columns[at] = in_type(blank, everywhere, table[:, k], like=frame.iloc[:, at])
        added = pd.DataFrame({at: columns[at] for at in sorted(columns)}, index=self._added_index(labels, len(index)))
        names = frame.columns
        joined = pd.concat([frame.set_axis(range(len(names)), axis=1), added])
        return joined.set_axis(names, axis=1)

    def _added_index(self, labels: Sequence[Any], count: int) -> Any:
        import pandas as pd

        own, levels = self.frame.index, self.layout.levels
        if levels:
            parts = dict(zip(levels, labels, strict=False))
            if own.nlevels == 1:
                return pd.Index(parts[0], name=own.name)
            arrays = [parts.get(k, [None] * count) for k in range(own.nlevels)]
            return pd.MultiIndex.from_arrays(arrays, names=own.names)
        first = int(own.max()) + 1 if len(own) else 0
        return pd.RangeIndex(first, first + count)


def read_frame(
    frame: pd.DataFrame,
    *,
    modes: Sequence[Any] | None = None,
    value: Any = None,
    std: Any = None,
    ordered: Sequence[str] = (),
    wide: bool | None = None,
    name: str = "the data frame",
) -> FrameTensor:
    """A data frame as a labelled tensor; what is not said is found out from its columns.

    Args:
        frame: long or wide, see `frame_layout`. modes, value, std, wide: as for `find_layout`.
        ordered: modes whose text labels are in order as they stand. name: what to call the frame in messages.
    Raises:
        ConfigError: if a name is not one of a column or mode. DataError: if the frame cannot be read.
    """
    if len(frame) == 0:
        raise DataError(f"{name} has no rows")
    layout = find_layout(frame, name, modes=modes, value=value, std=std, wide=wide)
    found, numbers = _row_modes(frame, layout, ordered, name)
    rows = len(found)
    index = np.stack(numbers, 1).astype(np.int32)
    count = len(layout.values)
    if layout.wide:
        labels = frame.columns[list(layout.values)]
        if any(labels.get_level_values(level).hasnans for level in range(labels.nlevels)):
            raise DataError(f"{name} has a column without a name", next_step="Name it, or leave it out.")
        beside = []
        for level, own in enumerate(names_of(list(labels.names), "variable" if layout.variables else "column")):
            mode, number = mode_of(own, labels.get_level_values(level), as_met=own in ordered, where="column")
            found.append(mode)
            beside.append(number)
        columns = np.stack(beside, 1).astype(np.int32)
        index = np.hstack([np.repeat(index, count, axis=0), np.tile(columns, (len(frame), 1))])
    value_of = np.stack([as_floats(frame.iloc[:, at], name) for at in layout.values], 1).reshape(-1)
    deviation = None if layout.std is None else torch.tensor(as_floats(frame.iloc[:, layout.std], name))
    return FrameTensor(
        frame, layout, name, tuple(found), rows, torch.from_numpy(index), torch.from_numpy(value_of.copy()), deviation
    )


def index_of(modes: Sequence[Mode], labels: Any, name: str = "the rows") -> Tensor:
    """Indices (n, N) of the entries that rows of labels name; see `FrameTensor.index_of`."""
    import pandas as pd

    wanted = [mode.axis.name for mode in modes]
    if isinstance(labels, pd.MultiIndex):
        labels = labels.to_frame(index=False)
    if isinstance(labels, pd.Series):
        labels = labels.to_frame()
    if not isinstance(labels, pd.DataFrame):
        rows = list(labels)
        if not all(isinstance(row, dict) for row in rows) and any(len(row) != len(wanted) for row in rows):
            wrong = next(row for row in rows if len(row) != len(wanted))
            got, allowed = f"{len(wrong)} labels", f"{len(wanted)}: {', '.join(wanted)}"
            raise DataError(f"a row of {name} does not name an entry", got=got, allowed=allowed)
        labels = pd.DataFrame(rows, columns=None if rows and isinstance(rows[0], dict) else wanted)
    columns = {str(column): labels[column] for column in labels.columns}
    columns |= {
        str(own): labels.index.get_level_values(level)
        for level, own in enumerate(labels.index.names)
        if own is not None and str(own) not in columns
    }
    if missing := [own for own in wanted if own not in columns]:
        raise DataError(f"{name} lack columns", got=", ".join(columns), allowed=", ".join(missing))
    return torch.from_numpy(np.stack([mode.find(columns[mode.axis.name]) for mode in modes], 1))


def _row_modes(
    frame: pd.DataFrame, layout: Layout, ordered: Sequence[str], name: str
) -> tuple[list[Mode], list[np.ndarray]]:
    found, numbers = list[Mode](), list[np.ndarray]()
    names = names_of(list(frame.index.names), "row")
    sources: list[tuple[str, Any]] = [(names[level], frame.index.get_level_values(level)) for level in layout.levels]
    sources += [(str(frame.columns[at]), frame.iloc[:, at]) for at in layout.columns]
    for own, labels in sources:
        mode, number = mode_of(own, labels, as_met=own in ordered, where=f"{name}: row")
        found.append(mode)
        numbers.append(number)
    if not found:
        if _counted(frame.index):
            return [numbered_mode("row", frame.index)], [np.arange(len(frame))]
        mode, number = mode_of("row", frame.index, where=f"{name}: row")
        return [mode], [number]
    return found, numbers


def _counted(index: pd.Index[Any]) -> bool:
    import pandas as pd

    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _fill(value: Tensor, cells: Tensor, index: Tensor, values: Values) -> None:
    """Write the values of entries into (n,) at positions `cells` (m,), block by block; `index` (n, N) of all."""
    put(value, cells, lambda part: index[part].long(), values)
