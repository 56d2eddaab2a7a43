"""Samples of a tensor: observed entries, or linear measurements of it.

Axes: `n` observations, `N` modes, `d_k` dimension of mode k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.config.records import Record
from htfcli.errors import DataError

_KEY_LIMIT = 2**62  # row keys are products of dimensions; larger ones are compressed before they overflow int64
_CHECKED = 2**20  # rows checked at a time, so that temporaries stay small


@dataclass(frozen=True)
class Entries:
    """Observed entries (completion): the value at `index[i]` is `value[i]`.

    Args:
        index: (n, N) int64 or int32, each row one entry.
        value: (n,) float64.
    """

    index: Tensor
    value: Tensor

    def __len__(self) -> int:
        return len(self.value)

    def select(self, rows: Tensor) -> Entries:
        """The observations at positions `rows`, or where a boolean `rows` (n,) is True."""
        return Entries(self.index[rows], self.value[rows])


@dataclass(frozen=True)
class RankOneMeasurements:
    """Inner products with rank-one tensors (sensing): value_i = <W, v_0i (x) v_1i (x) ...>.

    Args:
        vectors: per mode k the (n, d_k) vectors v_k.
        value: (n,) float64.
    """

    vectors: tuple[Tensor, ...]
    value: Tensor

    def __len__(self) -> int:
        return len(self.value)

    def select(self, rows: Tensor) -> RankOneMeasurements:
        """The observations at positions `rows`, or where a boolean `rows` (n,) is True."""
        return RankOneMeasurements(tuple(v[rows] for v in self.vectors), self.value[rows])


@dataclass(frozen=True)
class MatrixMeasurements:
    """Inner products with full matrices (matrix sensing): value_i = <W, A_i>.

    Args:
        matrices: (n, d_0, d_1).
        value: (n,) float64.
    """

    matrices: Tensor
    value: Tensor

    def __len__(self) -> int:
        return len(self.value)

    def select(self, rows: Tensor) -> MatrixMeasurements:
        """The observations at positions `rows`, or where a boolean `rows` (n,) is True."""
        return MatrixMeasurements(self.matrices[rows], self.value[rows])


Sample = Entries | RankOneMeasurements | MatrixMeasurements


def row_keys(index: Tensor, dims: Sequence[int]) -> Tensor:
    """An int64 key for every row of `index`; two keys are equal if and only if the rows are.

    Keys are row-major positions where those fit in 62 bits. Otherwise prefixes are replaced by their rank among the
    prefixes present, so any order works.

    Args:
        index: (n, N) int64. dims: the N dimensions.
    Returns: (n,) int64.
    """
    key = torch.zeros(len(index), dtype=torch.int64, device=index.device)
    bound = 1  # keys are in 0..bound-1
    for mode, dim in enumerate(dims):
        if bound * dim > _KEY_LIMIT:
            _, key = torch.unique(key, return_inverse=True)
            bound = len(index)
        key = key * dim + index[:, mode]
        bound *= dim
    return key


def unravel(position: Tensor, dims: Sequence[int]) -> Tensor:
    """Row-major positions (n,) to indices (n, N)."""
    columns = []  # torch.unravel_index does the same, and imports half of torch's compiler for it: most of a second
    for dim in reversed(tuple(dims)):
        columns.append(position % dim)
        position = position // dim
    return torch.stack(columns[::-1], dim=1)


def first_out_of_range(index: Tensor, dims: Sequence[int]) -> int | None:
    """Position of the first row of `index` (n, N) that is not an index of a tensor of shape `dims`; None if all are."""
    limit = torch.tensor(dims, dtype=torch.int64, device=index.device)
    for start in range(0, len(index), _CHECKED):
        part = index[start : start + _CHECKED]
        bad = torch.nonzero(((part < 0) | (part >= limit)).any(1)).flatten()
        if len(bad):
            return start + int(bad[0])
    return None


def check_range(index: Tensor, dims: Sequence[int], name: str = "entry") -> None:
    """Refuse indices (n, N) outside a tensor of shape `dims`.

    Args:
        index: (n, N) int64 or int32. dims: the N dimensions. name: what messages call a row of `index`.
    Raises:
        DataError: for the first row that is out of range, or if rows have another length than `dims`.
    """
    if index.shape[1] != len(dims):
        got, allowed = f"{index.shape[1]} modes", f"{len(dims)} modes"
        raise DataError("the indices do not have the order of the tensor", got=got, allowed=allowed)
    row = first_out_of_range(index, dims)
    if row is not None:
        raise out_of_range(f"{name} {row}", index[row], dims)


def out_of_range(name: str, index: Tensor, dims: Sequence[int], first: int = 0) -> DataError:
    """The error for an index (N,) outside a tensor of shape `dims`; `first` is the number shown for index 0."""
    allowed = " x ".join(f"{first}-{d - 1 + first}" for d in dims)
    return DataError(f"{name} has an index out of range", got=(index.long() + first).tolist(), allowed=allowed)


def unobserved(entries: Entries, dims: Sequence[int]) -> list[Record]:
    """Per mode the indices without any observation, as {mode, indices}; modes without such indices are left out."""
    found = []
    for mode, d in enumerate(dims):
        empty = torch.nonzero(torch.bincount(entries.index[:, mode], minlength=d) == 0).flatten()
        if len(empty):
            found.append({"mode": mode, "indices": empty.tolist()})
    return found
