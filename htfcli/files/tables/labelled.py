"""A table as a tensor with labels: indices and values of its cells, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from htfcli.config.tables import TableConfig
from htfcli.errors import DataError
from htfcli.files.own.axes import Axis, as_number, axis_of, label_remark
from htfcli.files.tables.layout import FEW, Layout, choose_layout
from htfcli.files.tables.numbers import Floats, Notation
from htfcli.files.tables.table_file import Integers, TableFile

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Labelled:
    """A table that was read. The cells are those of its columns of values, row by row.

    Args:
        file: where it stands. layout: what its columns are. axes: the modes. index: (cells, modes) int32. value:
            (cells,) float64, NaN where there is none. std: (cells,) standard deviations of the values, if known.
        like: for each column of labels, a row that has the label of each index. remarks: for the user.
    """

    file: TableFile
    layout: Layout
    axes: tuple[Axis, ...]
    index: np.ndarray[tuple[int, ...], np.dtype[np.int32]]
    value: Floats
    std: Floats | None
    like: tuple[Integers, ...]
    remarks: tuple[str, ...] = ()

    @property
    def value_name(self) -> str:
        """What the value is called."""
        layout = self.layout
        return self.file.head.names[layout.values_at[0]] if len(layout.values_at) == 1 else "value"


def read_labelled(file: TableFile, config: TableConfig, notation: Notation, *, fixed: bool = False) -> Labelled:
    """Read a table as a tensor.

    Args:
        file: the table. config: what is said about it. notation: of its numbers. fixed: see `choose_layout`.
    Raises:
        ConfigError: if a column does not exist, or something cannot be decided. DataError: if a row cannot be used.
    """
    layout = choose_layout(file.sample(), file.head, file.name, config, fixed=fixed)
    std = [] if layout.std_at is None else [layout.std_at]
    frame = file.read(layout.labels_at, [*layout.values_at, *std])
    layout = without_keys(layout, frame, file)
    ordered = getattr(config, "ordered", None) or ()
    columns = [(file.head.names[at], frame[at].array) for at in layout.labels_at]
    axes, index, like, remarks = [], [], [], list(layout.remarks)
    for name, column in columns:
        labels = [str(label) for label in column.categories]
        refuse_no_label(file, name, column, labels, notation)
        axis, places = axis_of(name, labels, as_met=name in ordered)
        remark = label_remark(axis, labels)
        remarks += [] if remark is None else [remark]
        codes = np.array(places, dtype=np.int32)[column.codes]
        axes.append(axis)
        index.append(codes)
        like.append(first_rows(codes, axis.size))
    values = [frame[at].to_numpy() for at in layout.values_at]
    rows, width = len(values[0]), len(values)
    if layout.across:
        if not layout.labels_at:
            axes.append(Axis("row", rows))
            index.append(np.arange(rows, dtype=np.int32))
        axis, places = axis_of(layout.across, [file.head.names[at] for at in layout.values_at])
        axes.append(axis)
        index = [np.repeat(codes, width) for codes in index]
        index.append(np.tile(np.array(places, dtype=np.int32), rows))
    value = values[0] if width == 1 else np.stack(values, axis=1).reshape(-1)
    deviation = frame[layout.std_at].to_numpy() if layout.std_at is not None else None
    if deviation is not None and width > 1:
        deviation = np.repeat(deviation, width)
    return Labelled(file, layout, tuple(axes), np.stack(index, axis=1), value, deviation, tuple(like), tuple(remarks))


def without_keys(layout: Layout, frame: pd.DataFrame, file: TableFile) -> Layout:
    """The layout without columns of labels that have another one in every row, unless too few modes would be left.

    Of a wide table one such column names the rows, and the others say nothing more.
    """
    rows = len(frame)
    if layout.chosen or rows <= FEW:
        return layout
    keys = [at for at in layout.labels_at if len(frame[at].array.categories) == rows]
    names = file.head.names
    if layout.across:
        if not keys or len(layout.labels_at) == 1:
            return layout
        text = [at for at in keys if any(as_number(str(label)) is None for label in frame[at].array.categories[:FEW])]
        key = (text or keys)[0]
        others = [names[at] for at in layout.labels_at if at != key]
        remark = f"column {names[key]} names the rows; {', '.join(others)} left out, --index decides"
        return replace(layout, labels_at=(key,), remarks=(*layout.remarks, remark))
    left = [at for at in layout.labels_at if at not in keys]
    if not keys or len(left) < 2:
        return layout
    remarks = [f"column {names[at]} has another value in every row and is left out; --index decides" for at in keys]
    return replace(layout, labels_at=tuple(left), remarks=(*layout.remarks, *remarks))


def refuse_no_label(file: TableFile, name: str, column: Any, labels: Sequence[str], notation: Notation) -> None:
    """Raise DataError for a row without a label. In a column of text, `NA` is one."""
    absent = [code for code, label in enumerate(labels) if notation.is_missing(label)]
    given = [label for label in labels if not notation.is_missing(label)]
    if given and any(as_number(label) is None for label in given):
        absent = [code for code in absent if not labels[code]]
    codes = column.codes
    if absent or (len(codes) and codes.min() < 0):
        row = int(np.argmax(np.isin(codes, [*absent, -1])))
        got = "" if codes[row] < 0 else labels[codes[row]]
        what = f"{file.name} line {file.line_of(row)} has no label in column {name}"
        raise DataError(what, got=repr(got), next_step="Give it one, or leave the row out.")


def first_rows(codes: np.ndarray[Any, np.dtype[np.int32]], size: int) -> Integers:
    """For each index, the first row that has it."""
    found = np.zeros(size, dtype=np.int64)
    found[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return found


