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
from htfcli.files.foreign.cells import Values, masked, put
from htfcli.files.foreign.number_types import clipped
from htfcli.files.foreign.readers import Dense, refuse_absent
from htfcli.files.own.axes import Axis, plain_axes
from htfcli.files.own.container import binary_destination


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
    def values(self) -> Tensor:
        return self.dense.values

    @property
    def dims(self) -> tuple[int, ...]:
        return self.dense.array.shape

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.dense.axes or plain_axes(self.dims)

    def observed_at(self, mask: Tensor) -> DenseTensor:
        """The same tensor, with entries missing where `mask` (d_0, ..., d_{N-1}) is False.

        Raises:
            ConfigError: if the mask has another shape.
        """
        return self._with(masked(self.dense.values, mask))

    def without(self, missing_value: float) -> DenseTensor:
        """The same tensor, with entries of this value missing.

        Raises:
            ConfigError: if there are none.
        """
        dtype = self.dense.dtype
        if dtype in ("float16", "float32", "bfloat16"):  # -999.9 is stored in a float32 file as the nearest float32
            missing_value = float(torch.tensor(missing_value, dtype=getattr(torch, dtype)))
        refuse_absent(self.dense.array, missing_value, self.name)
        return self._with(torch.where(self.dense.values == missing_value, math.nan, self.dense.values))

    def _with(self, values: Tensor) -> DenseTensor:
        return replace(self, dense=replace(self.dense, array=values.numpy()))

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
        return self.dense.missing

    def write(
        self,
        destination: str,
        values: Values,
        *,
        everywhere: bool = False,
        own_type: bool = True,
    ) -> None:
        """Write the tensor with its missing entries filled in, whole or not at all.

        Observed entries are unchanged. Predictions have the type of the file: whole numbers are rounded, and none
        leaves the range of its type.

        Args:
            destination: a file, or `-`. values: maps indices (n, N) to values (n,).
            everywhere: replace observed entries too. own_type: write whole numbers as such, not as float64.
        """
        flat = self.dense.values.flatten().clone()
        holes = torch.arange(len(flat)) if everywhere else torch.nonzero(torch.isnan(flat)).flatten()
        put(flat, holes, lambda part: unravel(part, self.dims), values)
        with binary_destination(destination) as path:
            WRITERS[self.suffix](path, self._stored(flat, holes, own_type), self.dense)

    def _stored(self, flat: Tensor, holes: Tensor, own_type: bool) -> Tensor:
        """The tensor in the type of the file."""
        if self.dense.stored is not None and own_type:
            found = self.dense.stored.flatten()
            found[holes.numpy()] = clipped(flat[holes].numpy(), found.dtype)
            return torch.from_numpy(found).view(self.dims)
        kept = self.dense.stored is None
        dtype: torch.dtype = getattr(torch, self.dense.dtype) if kept else torch.float64
        limit = torch.finfo(dtype).max  # a prediction beyond it would become infinite
        return flat.clamp_(-limit, limit).to(dtype).view(self.dims)


def _npy(path: Path, tensor: Tensor, dense: Dense) -> None:
    with open(path, "wb") as file:  # given a name, np.save would add its suffix
        np.save(file, tensor.numpy())


def _npz(path: Path, tensor: Tensor, dense: Dense) -> None:
    with open(path, "wb") as file:
        arrays: dict[str, Any] = {**dense.others, dense.key: tensor.numpy()}
        np.savez_compressed(file, **arrays)


def _pt(path: Path, tensor: Tensor, dense: Dense) -> None:
    torch.save({**dense.others, dense.key: tensor} if dense.key else tensor, path)


def _mat(path: Path, tensor: Tensor, dense: Dense) -> None:
    from scipy.io import savemat

    with open(path, "wb") as file:
        savemat(file, {**dense.others, dense.key: tensor.numpy()}, do_compression=True)


WRITERS: dict[str, Callable[[Path, Tensor, Dense], None]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _pt,
    ".mat": _mat,
}
