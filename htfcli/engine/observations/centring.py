"""Centring: a mean and mode effects, which are subtracted from a tensor before a factorization is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.engine.samples import Entries

WORTH = 0.98  # fraction of the held-out values that a centring leaves; above this it is not worth a search
GAIN = 0.95  # held-out error over that without centring; below this, centring is worth its parameters
SMALL = 0.25  # held-out error without a centring over what the centring leaves; below this it has nothing to add
_SWEEPS = 20  # updates of every mode, after which effects are close to the exact solution (1e-3, see the test)
_PRIOR = 1.0  # pseudo-observations of zero effect, so that indices with few observations are shrunk


@dataclass(frozen=True)
class Effects:
    """A mean, and per mode an effect of each index.

    Args:
        mean: a constant. by_mode: per mode (d_k,) float64; empty if there are no mode effects.
    """

    mean: float
    by_mode: tuple[Tensor, ...] = ()

    def at(self, index: Tensor) -> Tensor:
        """The sum of mean and effects at entries `index` (n, N): (n,) float64."""
        total = torch.full((len(index),), self.mean, dtype=torch.float64)
        for mode, effect in enumerate(self.by_mode):
            total += effect[index[:, mode]]
        return total

    def scaled(self, factor: float) -> Effects:
        """The effects of values that are `factor` times as large."""
        return Effects(self.mean * factor, tuple(effect * factor for effect in self.by_mode))


def estimate_effects(kind: str, entries: Entries, dims: Sequence[int]) -> Effects:
    """Estimate mean and mode effects.

    Mode effects minimize the sum of squared residuals plus the sum of squared effects (one pseudo-observation of zero
    per index), by updating one mode after another.

    Args:
        kind: `none`, `mean`, or `modes` (the mean and an effect of each index of each mode).
        entries: the observed entries. dims: (d_0, ..., d_{N-1}).
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
