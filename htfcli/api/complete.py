"""`complete` of the Python API: data of any kind in, the same kind with its holes filled out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from htfcli.api.completed import CompletedData
from htfcli.api.inputs import kind_of, labelled, refuse, refuse_whole
from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion.complete import complete as complete_entries
from htfcli.engine.completion.result import Completion
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError

Progress = Callable[[dict[str, Any]], None]


@overload
def complete(
    data: Entries,
    dims: Sequence[int],
    config: CompleteConfig | None = None,
    on_progress: Progress = ...,
    should_stop: Callable[[], bool] = ...,
    *,
    coordinates: Sequence[Tensor | None] | None = None,
    std: Tensor | None = None,
    wanted: Tensor | None = None,
    unordered: Sequence[int] = (),
    **settings: Any,
) -> Completion: ...
@overload
def complete(
    data: Any,
    dims: None = None,
    config: CompleteConfig | None = None,
    on_progress: Progress = ...,
    should_stop: Callable[[], bool] = ...,
    *,
    modes: Sequence[Any] | None = None,
    value: Any = None,
    std: Any = None,
    ordered: Sequence[str] = (),
    wide: bool | None = None,
    mask: Any = None,
    duplicates: Literal["refuse", "mean"] = "refuse",
    smooth: bool = False,
    **settings: Any,
) -> CompletedData: ...


def complete(
    data: Any,
    dims: Sequence[int] | None = None,
    config: CompleteConfig | None = None,
    on_progress: Progress = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    modes: Sequence[Any] | None = None,
    value: Any = None,
    std: Any = None,
    ordered: Sequence[str] = (),
    wide: bool | None = None,
    mask: Any = None,
    duplicates: Literal["refuse", "mean"] = "refuse",
    smooth: bool = False,
    coordinates: Sequence[Tensor | None] | None = None,
    wanted: Tensor | None = None,
    unordered: Sequence[int] = (),
    **settings: Any,
) -> Completion | CompletedData:
    """Fill the holes of data, and say how far to trust what is filled in.

    Args:
        data: a numpy array (masked or not), nested lists or a torch tensor (d_0, ..., d_{N-1}), NaN and None where
            nothing is; a pandas DataFrame, long (one row per entry) or wide (one column per index), or a Series with a
            MultiIndex; an xarray DataArray or Dataset; or `Entries`.
        dims: of a tensor that is given as `Entries`, (d_0, ..., d_{N-1}).
        config: settings; the defaults find everything from the data. settings: single ones by name, as seed=1.
        on_progress: called with plain data after each model: stage, tree, width, ridge, train_error, held_out_error.
        should_stop: asked between models; True goes on with what there is.
        modes: columns of a frame, or levels of its index, that are modes; names of the axes of an array.
        value: column of values, or a list of several, which become a mode; variables of a Dataset.
        std: column of known measurement errors; of `Entries` (n,), of an array one of its shape.
        ordered: modes whose text labels, or positions, are in order. wide: whether columns are indices of a mode.
        mask: boolean array of the shape of an array, True where an entry is observed.
        duplicates: refuse rows of a frame that disagree about an entry, or take their mean.
        smooth: replace observed entries by predictions too.
        coordinates: of `Entries`, per mode (d,) rising positions of an ordered mode, or None. wanted: of `Entries`,
            (m, N) entries to be predicted, whose kinds of holes count; None for all that are not observed. unordered:
            of `Entries`, modes whose order means nothing.
    Returns: `CompletedData`, whose `filled` is of the kind of the data; for `Entries` a `Completion`.
    Raises:
        DataError: if nothing is observed or nothing is missing, or a value is not finite or not where it must be.
        ConfigError: if an argument or setting does not fit the data.
    """
    config = _settings(config, settings)
    if isinstance(data, Entries):
        refuse("this kind of data", modes=modes, value=value, ordered=ordered, wide=wide, mask=mask, smooth=smooth)
        if dims is None:
            raise ConfigError("the dimensions of the tensor are missing", next_step="complete(entries, dims).")
        entries = as_entries(data)
        deviation = None if std is None else _vector(std, "std")
        return complete_entries(
            entries,
            dims,
            config,
            on_progress,
            should_stop,
            coordinates=coordinates,
            std=deviation,
            wanted=wanted,
            unordered=unordered,
        )
    if dims is not None:
        raise ConfigError("dims: only for Entries; other data have their own dimensions", got=list(dims))
    refuse("this kind of data", coordinates=coordinates, wanted=wanted, unordered=unordered)
    beside, column = (std, None) if _is_array(std) else (None, std)
    tensor = labelled(data, modes=modes, value=value, std=column, ordered=ordered, wide=wide, mask=mask)
    entries, deviation = tensor.observed(average=duplicates == "mean")
    if beside is not None:
        if kind_of(data) != "array":
            raise ConfigError("an array of std is for arrays", next_step="Name the column of a frame.")
        deviation = _beside(beside, tensor.dims, entries)
    if not smooth:
        refuse_whole(tensor)
    places, without_order = tensor.coordinates()
    completion = complete_entries(
        entries,
        tensor.dims,
        config,
        on_progress,
        should_stop,
        coordinates=places,
        std=deviation,
        wanted=tensor.wanted(),
        unordered=without_order,
    )
    return CompletedData(tensor, completion, smooth, config.model_dump(mode="json"))


def as_entries(entries: Entries) -> Entries:
    """Entries whose indices (n, N) and values (n,) are of any integer and float type, or numpy arrays, as int64 and
    float64 tensors.

    Raises:
        DataError: if they are not, or do not have these shapes.
    """
    index, value = torch.as_tensor(entries.index), _vector(entries.value, "the values of entries")
    if index.dim() != 2 or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        got = f"{str(index.dtype).removeprefix('torch.')} of shape {tuple(index.shape)}"
        raise DataError("the indices of entries are not whole numbers of shape (n, N)", got=got)
    if len(index) != len(value):
        raise DataError("there are not as many indices as values", got=f"{len(index)} and {len(value)}")
    return Entries(index.long(), value)


def _vector(values: Any, name: str) -> Tensor:
    found = torch.as_tensor(values)
    if found.dim() != 1 or found.is_complex():
        got = f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
        raise DataError(f"{name} are not numbers of shape (n,)", got=got)
    return found.double()


def _settings(config: CompleteConfig | None, settings: dict[str, Any]) -> CompleteConfig:
    if config is None:
        return CompleteConfig.checked(settings)
    return config if not settings else type(config).checked(config.model_dump(exclude_unset=True) | settings)


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray | list)


def _beside(std: Any, dims: tuple[int, ...], entries: Entries) -> Tensor:
    """Deviations (n,) of the entries from an array of the tensor's shape."""
    found = torch.as_tensor(std)
    if tuple(found.shape) != dims:
        raise ConfigError("std does not have the tensor's shape", got=tuple(found.shape), allowed=dims)
    return found.double()[tuple(entries.index.long().unbind(1))]
