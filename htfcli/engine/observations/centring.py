"""What is subtracted from a tensor before a factorization is fitted to the rest: a mean, and effects of the modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.engine.samples import Entries

WORTH = 0.98  # what a centring leaves of the held-out values; one that leaves more is not worth a search
GAIN = 0.95  # held-out error over that without centring, under which centring is worth its parameters
SMALL = 0.25  # held-out error without a centring, over what that leaves, under which it has nothing to add
_SWEEPS = 20
_PRIOR = 1.0  # observations that say "no effect", against chance where an index has few


@dataclass(frozen=True)
class Effects:
    """A constant, and per mode a number for each index.

    Args:
        mean: the constant. by_mode: per mode (d_k,) float64; empty if there are none.
    """

    mean: float
    by_mode: tuple[Tensor, ...] = ()

    def at(self, index: Tensor) -> Tensor:
        """Their sum at entries (n, N), (n,) float64."""
        total = torch.full((len(index),), self.mean, dtype=torch.float64)
        for mode, effect in enumerate(self.by_mode):
            total += effect[index[:, mode]]
        return total

    def scaled(self, factor: float) -> Effects:
        """The effects of values that are `factor` times as large."""
        return Effects(self.mean * factor, tuple(effect * factor for effect in self.by_mode))


def estimate_effects(kind: str, entries: Entries, dims: Sequence[int]) -> Effects:
    """Effects of the given kind: `none`, `mean`, or `modes` (the mean and a number for each index of each mode).

    Effects of modes minimize the squared residuals of their sum, each shrunk towards zero by one observation that says
    so, mode after mode until they settle.
    """
    if kind == "none":
        return Effects(0.0)
    mean = float(entries.value.mean())
    if kind == "mean":
        return Effects(mean)
    by_mode = [torch.zeros(d, dtype=torch.float64) for d in dims]
    counts = [torch.bincount(entries.index[:, m], minlength=d).double() + _PRIOR for m, d in enumerate(dims)]
    residual = entries.value - mean
    for _ in range(_SWEEPS):
        for mode, effect in enumerate(by_mode):
            column = entries.index[:, mode]
            residual += effect[column]
            effect.zero_().index_add_(0, column, residual).div_(counts[mode])
            residual -= effect[column]
    return Effects(mean, tuple(by_mode))
