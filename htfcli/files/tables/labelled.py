"""A table as a tensor with labels: indices and values of its cells, in numpy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from htfcli.config.tables import TableConfig
from htfcli.errors import DataError
from htfcli.files.foreign.column_layout import FEW, ColumnLayout, choose_columns
from htfcli.files.foreign.frame_labels import Mode, mode_of, numbered_mode
from htfcli.files.own.axes import Axis, as_number, label_remark
from htfcli.files.tables.numbers import Floats, Notation
from htfcli.files.tables.table_file import Integers, TableFile

if TYPE_CHECKING:
    import pandas as pd


_COMPARED = 10**5  # labels that are looked through for spellings of one number: a second's work


@dataclass(frozen=True)
class Labelled:
    """A table that was read. The cells are those of its columns of values, row by row.

    Args:
        file: where it stands. layout: what its columns are. modes: with their labels. index: (cells, modes) int32.
        value: (cells,) float64, NaN where there is none. std: (cells,) standard deviations of the values, if known.
        warnings: what may be a mistake. name: of the value, if the table does not say it.
    """

    file: TableFile
    layout: ColumnLayout
    modes: tuple[Mode, ...]
    index: np.ndarray[tuple[int, ...], np.dtype[np.int32]]
    value: Floats
    std: Floats | None
    warnings: tuple[str, ...] = ()
    name: str = ""

    @property
    def notes(self) -> list[str]:
        """How the table was read, where that is not as one expects."""
        said = self.file.remark()
        return [*([f"read with {said}"] if said else []), *self.layout.remarks]

    def like(self) -> list[Integers]:
        """For each column of labels, the first row that has the label of each index."""
        width = max(1, len(self.layout.values_at))
        places = enumerate(self.modes[: len(self.layout.labels_at)])
        return [_first_rows(self.index[::width, at], mode.axis.size) for at, mode in places]

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(mode.axis for mode in self.modes)

    @property
    def value_name(self) -> str:
        """What the value is called."""
        values = self.layout.values_at
        return self.name or (self.file.head.names[values[0]] if len(values) == 1 else "value")


def read_labelled(
    file: TableFile, config: TableConfig, notation: Notation, *, fixed: bool = False, layout: ColumnLayout | None = None
) -> Labelled:
    """Read a table as a tensor.

    Args:
        file: the table. config: what is said about it. notation: of its numbers. fixed: see `choose_columns`.
        layout: of its columns, if that is known; without columns of values no cell has one.
    Raises:
        ConfigError: if a column does not exist, or something cannot be decided. DataError: if a row cannot be used.
    """
    import pandas as pd

    layout = layout or choose_columns(file.sample(), file.head, file.name, config, fixed=fixed)
    std = [] if layout.std_at is None else [layout.std_at]
    frame = file.read(layout.labels_at, [*layout.values_at, *std])
    layout = without_keys(layout, frame, file)
    ordered = getattr(config, "ordered", None) or ()
    modes, index, warnings = list[Mode](), [], list[str]()
    for at in layout.labels_at:
        name = file.head.names[at]
        refuse_no_label(file, name, frame[at], notation)
        mode, codes = _mode_of(name, frame[at], as_met=name in ordered)
        if isinstance(frame[at].dtype, pd.CategoricalDtype) and mode.axis.size <= _COMPARED:
            remark = label_remark(mode.axis, list(map(str, frame[at].cat.categories)))
            warnings += [] if remark is None else [remark]
        modes.append(mode)
        index.append(codes)
    values = [frame[at].to_numpy() for at in layout.values_at] or [np.full(len(frame), np.nan)]
    rows, width = len(values[0]), len(values)
    if layout.across:
        if not layout.labels_at:
            modes.append(numbered_mode("row", pd.RangeIndex(rows)))
            index.append(np.arange(rows, dtype=np.int32))
        mode, codes = mode_of(layout.across, pd.Index([file.head.names[at] for at in layout.values_at], dtype=object))
        modes.append(mode)
        index = [np.repeat(numbers, width) for numbers in index]
        index.append(np.tile(codes.astype(np.int32), rows))
    value = np.require(values[0], requirements="W") if width == 1 else np.stack(values, axis=1).reshape(-1)
    deviation = frame[layout.std_at].to_numpy(copy=True) if layout.std_at is not None else None
    if deviation is not None and width > 1:
        deviation = np.repeat(deviation, width)
    return Labelled(file, layout, tuple(modes), np.stack(index, axis=1), value, deviation, tuple(warnings))


def without_keys(layout: ColumnLayout, frame: pd.DataFrame, file: TableFile) -> ColumnLayout:
    """The layout without columns of labels that have another one in every row, unless too few modes would be left.

    Of a wide table one such column names the rows, and the others say nothing more.
    """
    rows = len(frame)
    if layout.chosen or rows <= FEW:
        return layout
    keys = [at for at in layout.labels_at if _different(frame[at]) == rows]
    names = file.head.names
    if layout.across:
        if not keys or len(layout.labels_at) == 1:
            return layout
        text = [at for at in keys if any(as_number(str(label)) is None for label in frame[at][:FEW])]
        key = (text or keys)[0]
        others = [names[at] for at in layout.labels_at if at != key]
        remark = f"column {names[key]} names the rows; {', '.join(others)} left out, --index decides"
        return replace(layout, labels_at=(key,), remarks=(*layout.remarks, remark))
    left = [at for at in layout.labels_at if at not in keys]
    if not keys or len(left) < 2:
        return layout
    remarks = [f"column {names[at]} has another value in every row and is left out; --index decides" for at in keys]
    return replace(layout, labels_at=tuple(left), remarks=(*layout.remarks, *remarks))


def _mode_of(name: str, column: pd.Series[Any], as_met: bool) -> tuple[Mode, np.ndarray[Any, np.dtype[np.int32]]]:
    """The mode of a column of labels, and the index (n,) int32 of every row."""
    import pandas as pd

    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype) and not dtype.ordered and not as_met:
        codes = column.cat.codes.to_numpy()
        used = np.zeros(len(dtype.categories), dtype=bool)
        used[codes] = True
        if used.all():  # rows are not looked at again
            mode, places = mode_of(name, pd.Index(dtype.categories))
            return mode, places.astype(np.int32)[codes]
    mode, places = mode_of(name, column, as_met=as_met)
    return mode, places.astype(np.int32)


def _different(column: pd.Series[Any]) -> int:
    """The number of different labels."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        return len(column.cat.categories)
    return int(column.nunique())


def refuse_no_label(file: TableFile, name: str, column: pd.Series[Any], notation: Notation) -> None:
    """Raise DataError for a row without a label. In a column of text, `NA` is one."""
    import pandas as pd

    without = column.isna().to_numpy()
    if isinstance(column.dtype, pd.CategoricalDtype):
        labels = [str(label) for label in column.cat.categories]
        absent = [code for code, label in enumerate(labels) if notation.is_missing(label)]
        if absent and any(as_number(label) is None for label in labels if not notation.is_missing(label)):
            absent = [code for code in absent if not labels[code]]
        without = without | np.isin(column.cat.codes, absent) if absent else without
    if without.any():
        row = int(np.argmax(without))
        got = "" if pd.isna(column.iloc[row]) else str(column.iloc[row])
        what = f"{file.name} line {file.line_of(row)} has no label in column {name}"
        raise DataError(what, got=repr(got), next_step="Give it one, or leave the row out.")


def _first_rows(codes: np.ndarray[Any, np.dtype[np.int32]], size: int) -> Integers:
    """For each index, the first row that has it."""
    found = np.zeros(size, dtype=np.int64)
    found[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return found
