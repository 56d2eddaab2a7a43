"""Matricizations of a tensor and their spectra.

Axes: `d` mode dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.config.tensors import DEFAULT_TOLERANCE
from htfcli.engine.factorizations.mode_tree import label_of
from htfcli.engine.runtime.memory import refuse_unless_fits
from htfcli.errors import ConfigError, DataError


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one matricization.

    Args:
        label: the modes as a set. modes: the modes I, ascending. shape: (product of d over I, product over the rest).
        singular_values: descending, float64, relative to `scale` = e^log_scale: sigma_k = singular_values[k] * scale.
            Values not listed are zero.
    """

    label: str
    modes: tuple[int, ...]
    shape: tuple[int, int]
    singular_values: Tensor
    log_scale: float = 0.0

    def rank(self, tolerance: float = DEFAULT_TOLERANCE) -> int:
        """Number of singular values above `tolerance` times the largest; 0 for the zero tensor."""
        largest = self.singular_values.max()
        return int((self.singular_values > tolerance * largest).sum()) if largest > 0 else 0

    @property
    def effective_rank(self) -> float:
        """exp(entropy of the singular values normalised to sum 1); NaN for the zero tensor."""
        return effective_rank(self.singular_values)

    def energy(self, rank: int) -> float:
        """Fraction of the squared Frobenius norm in the first `rank` singular values; NaN for the zero tensor."""
        squares = (self.singular_values / self.singular_values.max()).square()
        return float(squares[:rank].sum() / squares.sum())

    def scaled(self, top: int | None = None) -> list[float]:
        """The leading singular values in the units of the tensor (0 or inf outside the range of a double)."""
        leading: list[float] = self.singular_values[:top].tolist()
        return [times_exp(s, self.log_scale) for s in leading] if self.log_scale else leading


def effective_rank(singular_values: Tensor) -> float:
    """exp(-sum of p log p), p = singular values / their sum.

    Args:
        singular_values: (k,), non-negative, in any order and unit.
    Returns: a number from 1 to k; NaN if all are zero.
    Source: Roy and Vetterli (EUSIPCO 2007), used by Razin, Maman and Cohen (ICML 2022).
    """
    share = singular_values / singular_values.sum()
    return math.exp(float(torch.special.entr(share).sum()))


def matricize(tensor: Tensor, modes: Sequence[int]) -> Tensor:
    """[[W]]_I: rows indexed by the modes I, columns by the rest, both in ascending order.

    Args:
        tensor: (d_0, ..., d_{N-1}). modes: the set I, not empty and not all modes.
    Returns: (product of d over I, product over the rest).
    Raises:
        ConfigError: if a mode repeats or is out of range, or I or the rest is empty.
    """
    rows = checked_modes(modes, tensor.dim())
    columns = [m for m in range(tensor.dim()) if m not in rows]
    size = math.prod(tensor.shape[m] for m in rows)
    return tensor.permute(*rows, *columns).reshape(size, -1)


def checked_modes(modes: Sequence[int], order: int) -> tuple[int, ...]:
    """The modes of a matricization in ascending order.

    Raises:
        ConfigError: if a mode repeats or is out of range, or the set is empty or holds all modes.
    """
    unique = tuple(sorted(set(modes)))
    if len(unique) != len(modes) or any(not 0 <= m < order for m in unique) or not 0 < len(unique) < order:
        raise ConfigError(
            "a matricization needs at least one mode, but not all, and each once",
            got=",".join(map(str, modes)) or "none",
            allowed=f"modes from 0 to {order - 1}",
        )
    return unique


def dense_spectrum(tensor: Tensor, modes: Sequence[int]) -> Spectrum:
    """Spectrum of [[W]]_I by a dense singular value decomposition.

    Args:
        tensor: (d_0, ..., d_{N-1}). modes: the set I.
    Raises:
        DataError: if the decomposition does not fit in memory.
    """
    rows = checked_modes(modes, tensor.dim())
    advice = "Ask for smaller matricizations, or fit a factorization and measure that."
    shape = " x ".join(map(str, matricization_shape(rows, tensor.shape)))
    needed = 2 * tensor.numel() * tensor.element_size()  # the matricization, and the copy that the SVD overwrites
    refuse_unless_fits(f"matricization {label_of(rows)}", needed, shape, advice)
    matrix = matricize(tensor, modes)
    try:
        values = torch.linalg.svdvals(matrix)
    except (RuntimeError, MemoryError) as error:
        raise DataError(
            f"the singular values of matricization {label_of(rows)} cannot be computed",
            got=f"{matrix.shape[0]} x {matrix.shape[1]}: {str(error).splitlines()[0]}",
            next_step=advice,
        ) from error
    return Spectrum(label_of(rows), rows, (matrix.shape[0], matrix.shape[1]), values.double())


def matricization_shape(modes: Sequence[int], dims: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of [[W]]_I, as exact integers of any size."""
    rows = math.prod(dims[m] for m in modes)
    return rows, math.prod(dims) // rows


def times_exp(value: float, log_scale: float) -> float:
    """value * e^log_scale for value >= 0, inf above the range of a double."""
    if value == 0.0:
        return 0.0
    exponent = math.log(value) + log_scale
    return math.exp(exponent) if exponent < 709.0 else math.inf
