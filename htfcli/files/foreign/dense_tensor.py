"""Dense tensors to complete, and writers in the formats they are read from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from htfcli.engine.samples import Entries, unravel
from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.readers import Dense, holes_at, missing_library
from htfcli.files.own.axes import Axis, plain_axes
from htfcli.files.own.container import binary_destination

_BLOCK = 2**18  # entries predicted at a time
_KEPT = ("float16", "bfloat16", "float32", "float64")  # types that can represent predictions


@dataclass(frozen=True)
class DenseTensor:
    """A dense tensor to complete.

    Args:
        dense: the tensor, NaN where an entry is missing. suffix: key of `WRITERS`.
    """

    dense: Dense
    suffix: str

    value_name = "value"

    @property
    def name(self) -> str:
        return self.dense.name

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(self.dense.values.shape)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return plain_axes(self.dims)

    def observed_at(self, mask: Tensor) -> DenseTensor:
        """The same tensor, with entries missing where `mask` (d_0, ..., d_{N-1}) is False.

        Raises:
            ConfigError: if the mask has another shape.
        """
        if tuple(mask.shape) != self.dims:
            raise ConfigError("the mask does not have the tensor's shape", got=tuple(mask.shape), allowed=self.dims)
        return self._with(torch.where(mask, self.dense.values, math.nan))

    def without(self, missing_value: float) -> DenseTensor:
        """The same tensor, with entries of this value missing.

        Raises:
            ConfigError: if there are none.
        """
        stored = torch.tensor(missing_value, dtype=torch.float64)
        if self.dense.dtype in _KEPT:  # -999.9 is stored in a float32 file as the nearest float32
            stored = stored.to(getattr(torch, self.dense.dtype)).double()
        return self._with(holes_at(self.dense.values, float(stored), self.name))

    def _with(self, values: Tensor) -> DenseTensor:
        return replace(self, dense=replace(self.dense, values=values))

    def entries(self) -> Entries:
        return self.dense.entries()[1]

    def asked(self) -> Tensor:
        """Indices (n, N) of the entries that are missing, in the order in which `write` asks for them."""
        return unravel(torch.nonzero(torch.isnan(self.dense.values.flatten())).flatten(), self.dims)

    def std_from(self, std: Tensor, name: str) -> Tensor:
        """Standard deviations (n,) of the observed entries, from an array of the tensor's shape.

        Raises:
            ConfigError: if it has another shape. DataError: if one of an observed entry is not above zero.
        """
        if tuple(std.shape) != self.dims:
            raise ConfigError(f"{name} does not have the tensor's shape", got=tuple(std.shape), allowed=self.dims)
        known = std.flatten()[~torch.isnan(self.dense.values.flatten())]
        wrong = torch.nonzero(~(known > 0)).flatten()
        if len(wrong):
            what = f"{name}: the standard deviation of an observed entry must be above zero"
            raise DataError(what, got=float(known[wrong[0]]))
        return known

    def lacking(self) -> int:
        """Number of missing entries."""
        return int(torch.isnan(self.dense.values).sum())

    def write(self, destination: str, values: Callable[[Tensor], Tensor], *, everywhere: bool = False) -> None:
        """Write the tensor with its missing entries filled in, whole or not at all.

        Observed entries are unchanged, in their type if that is a float; integers become float64.

        Args:
            destination: a file, or `-`. values: maps indices (n, N) to values (n,).
            everywhere: replace observed entries too.
        """
        flat = self.dense.values.flatten().clone()
        holes = torch.arange(len(flat)) if everywhere else torch.nonzero(torch.isnan(flat)).flatten()
        for part in torch.split(holes, _BLOCK) if len(holes) else ():
            flat[part] = values(unravel(part, self.dims))
        dtype: torch.dtype = getattr(torch, self.dense.dtype if self.dense.dtype in _KEPT else "float64")
        limit = torch.finfo(dtype).max  # a prediction beyond it would become infinite
        tensor = flat.clamp_(-limit, limit).to(dtype).view(self.dims)
        with binary_destination(destination) as path:
            WRITERS[self.suffix](path, tensor, self.dense.key)


def _npy(path: Path, tensor: Tensor, key: str) -> None:
    with open(path, "wb") as file:  # given a name, np.save would add its suffix
        np.save(file, tensor.numpy())


def _npz(path: Path, tensor: Tensor, key: str) -> None:
    with open(path, "wb") as file:
        arrays: dict[str, Any] = {key: tensor.numpy()}
        np.savez_compressed(file, **arrays)


def _pt(path: Path, tensor: Tensor, key: str) -> None:
    torch.save({key: tensor} if key else tensor, path)


def _mat(path: Path, tensor: Tensor, key: str) -> None:
    try:
        from scipy.io import savemat
    except ImportError:
        raise missing_library(".mat", "scipy") from None
    with open(path, "wb") as file:
        savemat(file, {key: tensor.numpy()}, do_compression=True)


WRITERS: dict[str, Callable[[Path, Tensor, str], None]] = {".npy": _npy, ".npz": _npz, ".pt": _pt, ".mat": _mat}
