"""Whatever holds numbers as a labelled tensor: arrays, lists, data frames, series, xarray.

An object is recognized by the name of its class, so that a library is imported only if one of its objects is there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.arrays import read_array
from htfcli.files.foreign.cells import Values
from htfcli.files.foreign.frame_labels import Mode, numbered_mode
from htfcli.files.foreign.frames import FrameTensor, read_frame
from htfcli.files.foreign.xarrays import read_xarray
from htfcli.files.own.axes import Axis

if TYPE_CHECKING:
    import pandas as pd


class Labelled(Protocol):
    """A tensor with holes that came from an object of another library."""

    @property
    def name(self) -> str: ...
    @property
    def value_name(self) -> str: ...
    @property
    def modes(self) -> tuple[Mode, ...]: ...
    @property
    def axes(self) -> tuple[Axis, ...]: ...
    @property
    def dims(self) -> tuple[int, ...]: ...
    @property
    def remarks(self) -> tuple[str, ...]: ...
    def observed(self, average: bool = False) -> tuple[Entries, Tensor | None]:
        """Entries with a value, each once, and their deviations (n,), if known."""

    def coordinates(self) -> tuple[list[Tensor | None], list[int]]:
        """Per mode positions (d,) or None, and the modes whose order means nothing."""

    @property
    def missing(self) -> int:
        """Number of entries that are to be filled."""

    def asked(self) -> Tensor:
        """Indices (n, N) of what is to be filled, in the order in which `filled` asks for it."""

    def wanted(self) -> Tensor | None:
        """The same, where it is not all that is not observed."""

    def filled(self, values: Values, *, everywhere: bool = False) -> Any:
        """An object of the same kind with its holes filled in."""

    def like(self, values: Values, *, keep: bool = False) -> Any:
        """An object of the same kind that has something else of every entry."""


@dataclass(frozen=True)
class SeriesTensor(FrameTensor):
    """A Series whose MultiIndex names its entries: a data frame of one column, and back."""

    series: Any = None

    @property
    def value_name(self) -> str:
        return "value" if self.series.name is None else str(self.series.name)

    def filled(self, values: Values, *, everywhere: bool = False) -> Any:
        return self._column(super().filled(values, everywhere=everywhere))

    def like(self, values: Values, *, holes_only: bool = False, keep: bool = False) -> Any:
        return self._column(super().like(values, holes_only=holes_only, keep=keep))

    def _column(self, frame: pd.DataFrame) -> Any:
        found = frame.iloc[:, 0]
        found.name = self.series.name
        return found


def labelled(
    data: Any,
    *,
    modes: Sequence[Any] | None = None,
    value: Any = None,
    std: Any = None,
    ordered: Sequence[str] = (),
    wide: bool | None = None,
    mask: Any = None,
) -> Labelled:
    """Data of any kind as a labelled tensor.

    Args:
        data: an array, nested lists, a torch tensor (d_0, ..., d_{N-1}), a DataFrame, a Series with a MultiIndex, a
            DataArray or a Dataset.
        modes: columns or levels that are modes; of an array, the names of its axes. value: the column of values, or
            several; of a Dataset, the variables. std: a column of measurement errors. ordered: modes whose text labels
            are in order as they stand. wide: whether the columns of a frame are indices of a mode. mask: of an array,
            true where an entry is observed.
    Raises:
        ConfigError: if an argument does not apply to this kind of data. DataError: if it cannot be read.
    """
    kind = kind_of(data)
    if hasattr(data, "__dataframe__") and kind != "frame":  # polars, arrow and others
        got = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
        raise DataError("tables are read from pandas", got=got, next_step="Convert it: data.to_pandas().")
    if kind == "frame":
        refuse("a data frame", mask=mask)
        return read_frame(data.copy(), modes=modes, value=value, std=std, ordered=ordered, wide=wide)
    if kind == "series":
        refuse("a series", mask=mask, std=std, wide=wide, value=value, modes=modes)
        if data.index.nlevels < 2:
            got = f"an index of {data.index.nlevels} level"
            raise DataError("a series names its entries by a MultiIndex", got=got, allowed="two levels or more")
        found = read_frame(data.to_frame("value"), value="value", ordered=ordered, wide=False, name="the series")
        return SeriesTensor(**{f.name: getattr(found, f.name) for f in fields(found)}, series=data)
    if kind == "xarray":
        refuse("xarray", modes=modes, std=std, wide=wide)
        return read_xarray(data, value=value, mask=mask, ordered=ordered)
    if kind != "array":
        kinds = "an array, nested lists, a torch tensor, a DataFrame or Series, a DataArray or Dataset"
        advice = "Read the file first, as with pandas.read_csv." if isinstance(data, str | Path) else ""
        got = type(data).__name__
        raise DataError("this is not data that can be completed", got=got, allowed=kinds, next_step=advice)
    refuse("an array", value=value, std=std, wide=wide)
    return read_array(data, mask=mask, names=modes, ordered=ordered)


def kind_of(data: Any) -> str:
    """`frame`, `series`, `xarray`, `array`, or empty for anything else."""
    names = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(data).__mro__}
    if ("pandas", "DataFrame") in names:
        return "frame"
    if ("pandas", "Series") in names:
        return "series"
    if names & {("xarray", "DataArray"), ("xarray", "Dataset")}:
        return "xarray"
    if isinstance(data, Tensor | list | tuple) or ("numpy", "ndarray") in names or hasattr(data, "__array__"):
        return "array"
    return ""


def refuse_whole(data: Labelled) -> None:
    """Raise DataError if there is nothing to fill in."""
    if data.missing == 0:
        raise DataError(
            f"{data.name} has no hole: there is nothing to fill in",
            next_step="smooth=True replaces observed entries by predictions; mask= says what is observed.",
        )


def dense(data: Labelled) -> Tensor:
    """The whole tensor, (d_0, ..., d_{N-1}), of data without holes.

    Raises:
        DataError: if an entry is missing.
    """
    entries, _ = data.observed()
    total = math.prod(data.dims)
    if len(entries) < total:
        raise DataError(
            f"{data.name} has missing entries",
            got=f"{total - len(entries):,} of {total:,}",
            next_step="Complete it first: complete(data).filled.",
        )
    tensor = torch.empty(data.dims, dtype=torch.float64)
    tensor[tuple(entries.index.long().unbind(1))] = entries.value
    return tensor


def modes_of(axes: Sequence[Axis]) -> tuple[Mode, ...]:
    """Modes of axes that were saved, whose labels are text."""
    import pandas as pd

    return tuple(
        numbered_mode(axis.name, range(axis.size))
        if axis.labels is None and axis.first == 0
        else Mode(axis, pd.Index([axis.label(index) for index in range(axis.size)]))
        for axis in axes
    )


def refuse(kind: str, **given: Any) -> None:
    """Raise ConfigError for arguments that are given and mean nothing for this kind of data."""
    wrong = [
        name
        for name, value in given.items()
        if not (value is None or value is False or (isinstance(value, tuple) and not value))
    ]
    if wrong:
        raise ConfigError(f"{', '.join(wrong)}: not for {kind}")
