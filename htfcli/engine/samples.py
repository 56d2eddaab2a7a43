"""Samples of a tensor: observed entries, or linear measurements of it.

Axes: `n` observations, `N` modes, `d_k` dimension of mode k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    pass

_KEY_LIMIT = 2**62  # row keys are products of dimensions; past this they are compressed before they overflow int64


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
        return MatrixMeasurements(self.matrices[rows], self.value[rows])


Sample = Entries | RankOneMeasurements | MatrixMeasurements


def row_keys(index: Tensor, dims: Sequence[int]) -> Tensor:
    """An int64 key for every row of `index`, equal keys for equal rows and only for them.

    Keys are row-major positions where those fit 62 bits; where they do not, prefixes are replaced by their rank among
    the prefixes present, so any order works.

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
    return torch.stack(torch.unravel_index(position, tuple(dims)), dim=1)
