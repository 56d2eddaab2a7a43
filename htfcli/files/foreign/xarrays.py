"""DataArrays and Datasets of xarray as labelled tensors, and completed ones with all their coordinates and attributes.

xarray and pandas are imported only where one of their objects is there already.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.files.foreign.arrays import ArrayTensor, Wrap, plain_mode, read_array
from htfcli.files.foreign.frame_labels import Mode, mode_of
from htfcli.files.own.axes import Axis

if TYPE_CHECKING:
    import xarray as xr


def read_xarray(data: Any, *, value: Any = None, mask: Any = None, ordered: Sequence[str] = ()) -> ArrayTensor:
    """A DataArray or Dataset as a tensor to complete; dimensions with coordinates are labelled modes.

    Variables of a Dataset that have the same dimensions are the indices of a last mode, `variable`; others stay as they
    are. Coordinates need not be sorted. Attributes, encodings and types are kept.

    Args:
        data: a DataArray or Dataset. value: names of the variables to complete, or one of them; None for all that have
            the dimensions of the largest. mask: bool, as for `read_array`. ordered: dimensions whose text labels are in
            order as they stand.
    Raises:
        DataError: if nothing is there to complete. ConfigError: if there is no such variable or dimension.
    """
    import xarray as xr

    if isinstance(data, xr.DataArray):
        values, dims, wrap, remarks = _array(data, mask)
        name = "the array" if data.name is None else f"the array {data.name}"
        value_name = "value" if data.name is None else str(data.name)
    else:
        values, dims, wrap, remarks = _dataset(data, value, mask)
        name, value_name = "the data set", "value"
    modes, places = _labelled(data, dims, ordered)
    if values.dim() > len(dims):
        mode, number = mode_of("variable", [str(v) for v in _chosen(data, value)[0]])
        modes.append(mode)
        places.append(torch.from_numpy(number))
    return ArrayTensor(values, tuple(modes), tuple(places), wrap, name, value_name, remarks)


@dataclass(frozen=True)
class _WrapArray:
    data: xr.DataArray
    inner: Wrap

    def __call__(self, found: np.ndarray, replaced: np.ndarray | None) -> Any:
        return self.data.copy(data=self.inner(found, replaced))


@dataclass(frozen=True)
class _WrapDataset:
    data: xr.Dataset
    variables: list[Hashable]
    inner: list[Wrap]

    def __call__(self, found: np.ndarray, replaced: np.ndarray | None) -> Any:
        new, alone = {}, len(self.variables) == 1
        dims = self.data[self.variables[0]].dims
        for number, (variable, wrap) in enumerate(zip(self.variables, self.inner, strict=True)):
            own = found if alone else np.ascontiguousarray(found[..., number])
            where = replaced if alone or replaced is None else np.ascontiguousarray(replaced[..., number])
            array = self.data[variable].transpose(*dims).copy(data=wrap(own, where))
            new[variable] = array.transpose(*self.data[variable].dims)
        return self.data.assign(new)


def _array(data: xr.DataArray, mask: Any) -> tuple[Tensor, tuple[Hashable, ...], Wrap, tuple[str, ...]]:
    name = "the array" if data.name is None else f"the array {data.name}"
    part = read_array(data.values, mask=mask, name=name)

    return part.values, data.dims, _WrapArray(data.copy(), part.wrap), ()


def _dataset(data: xr.Dataset, value: Any, mask: Any) -> tuple[Tensor, tuple[Hashable, ...], Wrap, tuple[str, ...]]:
    variables, remarks = _chosen(data, value)
    dims = data[variables[0]].dims
    parts = [read_array(_values(data[v], dims), mask=mask, name=f"variable {v}") for v in variables]
    alone = len(parts) == 1
    values = parts[0].values if alone else torch.stack([part.values for part in parts], -1)
    return values, dims, _WrapDataset(data.copy(), variables, [part.wrap for part in parts]), remarks


def _chosen(data: xr.Dataset, value: Any) -> tuple[list[Hashable], tuple[str, ...]]:
    """The variables that are completed, and remarks on those that are not."""
    asked = None if value is None else value if isinstance(value, list | tuple) else [value]
    if asked is not None:
        names = [str(v) for v in data.data_vars]
        for variable in asked:
            if variable not in data.data_vars:
                guess = did_you_mean(str(variable), names)
                allowed = ", ".join(names)
                raise ConfigError("the data set has no such variable", got=variable, allowed=allowed, next_step=guess)
        if len({frozenset(data[v].dims) for v in asked}) > 1:
            got = "; ".join(f"{v} ({', '.join(map(str, data[v].dims))})" for v in asked)
            raise ConfigError("variables that are completed together need the same dimensions", got=got)
        return list(asked), ()
    found = [v for v in data.data_vars if data[v].dtype.kind in "iuf" and data[v].ndim > 1]
    if not found:
        raise DataError("the data set has no variable of numbers with two dimensions or more")
    dims = frozenset(data[max(found, key=lambda v: data[v].ndim)].dims)
    chosen = [v for v in found if frozenset(data[v].dims) == dims]
    left = [str(v) for v in found if v not in chosen and bool(data[v].isnull().any())]
    if left:
        return chosen, (f"variables {', '.join(left)} have other dimensions and are left as they are",)
    return chosen, ()


def _values(data: xr.DataArray, dims: Sequence[Hashable]) -> Any:
    return data.transpose(*dims).values


def _labelled(data: Any, dims: Sequence[Hashable], ordered: Sequence[str]) -> tuple[list[Mode], list[Tensor | None]]:
    """Modes of the dimensions, and the index of every position where coordinates are not sorted."""
    import pandas as pd

    if wrong := [mode for mode in ordered if mode not in map(str, dims)]:
        raise ConfigError("ordered: no such mode", got=wrong[0], allowed=", ".join(map(str, dims)))
    modes, places = list[Mode](), list[Tensor | None]()
    for dim in dims:
        index = data.indexes.get(dim)
        index = None if index is None or index.nlevels > 1 else index
        if index is not None and type(index).__name__ == "CFTimeIndex":  # another calendar: days by its own reckoning
            days = (index - index[0]).total_seconds() / 86_400
            own, number = mode_of(str(dim), pd.Index(days))
            labels = index.take(np.argsort(number, kind="stable"))
            axis = Axis(str(dim), len(labels), tuple(moment.isoformat() for moment in labels))
            mode = Mode(axis, labels, own.coordinates)
        elif index is None or not index.is_unique or index.hasnans:
            modes.append(plain_mode(str(dim), data.sizes[dim]))
            places.append(None)
            continue
        else:
            mode, number = mode_of(str(dim), index, as_met=str(dim) in ordered)
        if mode.axis.size < len(index):  # labels that read the same
            mode, number = plain_mode(str(dim), len(index)), np.arange(len(index))
        modes.append(mode)
        places.append(None if bool((number == np.arange(len(number))).all()) else torch.from_numpy(number))
    return modes, places
