"""Arrays as tensors to complete: numpy, masked or not, nested lists, torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from htfcli.engine.samples import Entries, unravel
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.files.foreign.cells import Values, put
from htfcli.files.foreign.frame_labels import Mode, OfModes, numbered_mode
from htfcli.files.foreign.number_types import clipped

# (d_0, ..., d_{N-1}) float64 and where it replaces what was given; None for a float64 array of it all
Wrap = Callable[[np.ndarray, np.ndarray | None], Any]


@dataclass(frozen=True)
class ArrayTensor(OfModes):
    """An array of any kind as a tensor.

    Args:
        values: (d_0, ..., d_{N-1}) float64, NaN at holes. modes: of its axes.
        places: per axis the index (d_k,) int64 of every position, None where these are the same.
        wrap: puts numbers into an array of the kind that was given. name: what to call it in messages.
        remarks: what was found out and may be a mistake.
    """

    values: Tensor
    modes: tuple[Mode, ...]
    places: tuple[Tensor | None, ...]
    wrap: Wrap
    name: str
    value_name: str = "value"
    remarks: tuple[str, ...] = ()

    def observed(self, average: bool = False) -> tuple[Entries, None]:
        """The entries that are not holes."""
        flat = self.values.flatten()
        known = torch.nonzero(~torch.isnan(flat)).flatten()
        if len(known) == 0:
            raise DataError(f"{self.name} has no observed entry: all are NaN")
        return Entries(self._index(known), flat[known]), None

    @property
    def missing(self) -> int:
        """Number of holes."""
        return int(torch.isnan(self.values).sum())

    def wanted(self) -> None:
        """Holes are all that is not observed."""

    def asked(self) -> Tensor:
        """Indices (n, N) of the holes, in the order of the array."""
        return self._index(torch.nonzero(torch.isnan(self.values.flatten())).flatten())

    def filled(self, values: Values, *, everywhere: bool = False) -> Any:
        """The array with its holes filled in, of the same kind and type; all other entries stay as they are.

        Args:
            values: of given entries. everywhere: replace observed entries too.
        """
        found, replaced = self._put(values, everywhere)
        return self.wrap(found, replaced)

    def like(self, values: Values, *, keep: bool = False) -> Any:
        """An array of the same kind that has something else of every entry, as float64: its deviation, a bound.

        Args:
            values: of given entries. keep: leave observed entries as they are.
        """
        return self.wrap(self._put(values, not keep)[0], None)

    def _put(self, values: Values, everywhere: bool) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the whole, and where they are predictions."""
        flat = self.values.flatten().clone()
        replaced = torch.ones_like(flat, dtype=torch.bool) if everywhere else torch.isnan(flat)
        cells = torch.nonzero(replaced).flatten()
        put(flat, cells, self._index, values)
        return flat.view(self.values.shape).numpy(), replaced.view(self.values.shape).numpy()

    def _index(self, position: Tensor) -> Tensor:
        index = unravel(position, tuple(self.values.shape))
        for mode, place in enumerate(self.places):
            if place is not None:
                index[:, mode] = place[index[:, mode]]
        return index


def read_array(
    data: Any,
    *,
    mask: Any = None,
    names: Sequence[str] | None = None,
    ordered: Sequence[str] = (),
    name: str = "",
) -> ArrayTensor:
    """A numpy array, a masked one, nested lists or a torch tensor as a tensor to complete; NaN and None are holes.

    Args:
        data: (d_0, ..., d_{N-1}), two axes or more. mask: bool, of the same shape, True where an entry is observed.
        names: of the modes; numbers if None. ordered: those whose order means something. name: what to call the array
            in messages.
    Raises:
        DataError: if it does not contain numbers, or has fewer than two axes. ConfigError: if the mask or the names do
            not fit.
    """
    kind = "torch" if isinstance(data, Tensor) else "list" if isinstance(data, list | tuple) else "numpy"
    name = name or {"torch": "the tensor", "list": "the list", "numpy": "the array"}[kind]
    array, dtype = _numbers(data, name)
    if array.ndim < 2:
        raise DataError(f"{name} has too few axes", got=array.ndim, allowed="2 or more")
    if array.size == 0:
        raise DataError(f"{name} is empty", got=f"shape {array.shape}")
    array = array.copy()  # what the caller does with it later changes nothing here
    values = np.array(array, dtype=np.float64)
    if isinstance(data, np.ma.MaskedArray):
        values = np.where(np.ma.getmaskarray(data), math.nan, values)
    if mask is not None:
        values = np.where(_checked_mask(mask, array.shape), values, math.nan)
    if names is not None and len(names) != array.ndim:
        raise ConfigError(f"{name} has another number of modes", got=f"{len(names)} names", allowed=array.ndim)
    own = [str(k) if names is None else str(names[k]) for k in range(array.ndim)]
    if wrong := [mode for mode in ordered if str(mode) not in own]:
        guess = did_you_mean(str(wrong[0]), own)
        raise ConfigError("ordered: no such mode", got=wrong[0], allowed=", ".join(own), next_step=guess)
    modes = [plain_mode(mode, d) for mode, d in zip(own, array.shape, strict=True)]
    for k in {own.index(str(mode)) for mode in ordered}:
        modes[k] = replace(modes[k], coordinates=tuple(map(float, range(array.shape[k]))))
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    masked = isinstance(data, np.ma.MaskedArray)
    wrap = _Plain(array, dtype, "masked" if masked else kind)
    if isinstance(data, Tensor):
        wrap = replace(wrap, torch_dtype=data.dtype, device=data.device)
    return ArrayTensor(tensor, tuple(modes), (None,) * array.ndim, wrap, name)


@dataclass(frozen=True)
class _Plain:
    """Puts numbers into an array (d_0, ..., d_{N-1}) of type `dtype` and of one kind: numpy, masked, list or torch."""

    array: np.ndarray
    dtype: np.dtype[Any]
    kind: str
    torch_dtype: torch.dtype | None = None
    device: torch.device | None = None

    def __call__(self, found: np.ndarray, replaced: np.ndarray | None) -> Any:
        full = found
        if replaced is not None:
            full = self.array.astype(self.dtype)
            full[replaced] = clipped(found[replaced], self.dtype)
        if self.kind == "list":
            return full.tolist()
        if self.kind == "torch":
            dtype = torch.float64 if replaced is None else self.torch_dtype
            return torch.from_numpy(np.ascontiguousarray(full)).to(self.device, dtype)
        return np.ma.MaskedArray(full) if self.kind == "masked" else full


def plain_mode(name: str, size: int) -> Mode:
    """A mode whose indices are positions."""
    return numbered_mode(name, range(size))


def _numbers(data: Any, name: str) -> tuple[np.ndarray, np.dtype[Any]]:
    """The array itself and the type that its completion has."""
    if isinstance(data, Tensor):
        if data.is_complex():
            raise DataError(f"{name} has complex numbers", allowed="real ones")
        data = data.detach().cpu()
        data = data.float().numpy() if data.dtype == torch.bfloat16 else data.numpy()
    try:
        array = np.asarray(np.ma.getdata(data) if isinstance(data, np.ma.MaskedArray) else data)
    except ValueError:
        raise DataError(f"{name} is ragged: rows have different lengths") from None
    if array.dtype.kind in "iufb":
        return array, array.dtype
    if array.dtype.kind == "O":
        try:
            found = np.array([math.nan if x is None else float(x) for x in array.flat]).reshape(array.shape)
        except (TypeError, ValueError):
            found = None
        if found is not None:
            return found, found.dtype
    raise DataError(f"{name} does not contain numbers", got=f"type {array.dtype}", allowed="real numbers")


def _checked_mask(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(mask, Tensor):
        mask = mask.detach().cpu().numpy()
    known = np.asarray(mask)
    if known.dtype.kind != "b":
        raise ConfigError("a mask is boolean, true where an entry is observed", got=f"type {known.dtype}")
    if known.shape != shape:
        raise ConfigError("the mask does not have the tensor's shape", got=known.shape, allowed=shape)
    return known
