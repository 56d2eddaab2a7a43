"""How far a prediction may be off: a variance for every entry, calibrated on what was held out.

    variance(i) = c_0 g(i) + c_1 spread(i) + c_2 kriging(i) + c_3 g(i) sum over modes of 1 / (1 + observations of i_k)

with g the product of the noise of the entry's indices over the mean noise, spread the variance over members from
independent starts, kriging the variance that interpolation leaves; c >= 0 by maximum likelihood on held-out residuals.
Then a conformal factor for every kind of holes: quantiles of |residual| / deviation of what was held out like these.
(Lei et al., Distribution-free predictive inference for regression, JASA 113, 2018.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

_LEVELS = np.linspace(0, 1, 200)  # of the quantiles that are kept: half a percent is less than they are known to
_FEW = 10  # observations that say an index has the mean noise; fewer of a kind do not reach 90 % of n + 1


@dataclass(frozen=True)
class Calibration:
    """The variance of predictions, and the quantiles of what it makes of held-out residuals.

    Args:
        coefficients: (4,). noise: per mode (d + 1,) factors of g, the last for an index never seen. counts: per mode
            (d + 1,). quantiles: (kinds, L) of |residual| / deviation at levels 0 to 1.
    """

    coefficients: Tensor
    noise: tuple[Tensor, ...]
    counts: tuple[Tensor, ...]
    quantiles: Tensor

    def deviation(self, index: Tensor, spread: Tensor, kriging: Tensor) -> Tensor:
        """Before the conformal factor, (n,), of entries (n, N)."""
        found = features(index, self.noise, self.counts, spread, kriging)
        return (found @ self.coefficients).clamp_min(1e-300).sqrt()

    def std(self, index: Tensor, spread: Tensor, kriging: Tensor, kind: Tensor) -> Tensor:
        """Standard deviations (n,) of entries of kinds (n,): as many on each side as in a normal distribution hold
        90 % of them."""
        return self.deviation(index, spread, kriging) * (self.quantile(kind, 0.9) / NormalDist().inv_cdf(0.95))

    def quantile(self, kind: Tensor, level: float) -> Tensor:
        """Deviations on each side that hold a share `level` of entries of each kind (n,)."""
        return torch.tensor([np.interp(level, _LEVELS, row) for row in self.quantiles])[kind]


def features(
    index: Tensor, noise: Sequence[Tensor], counts: Sequence[Tensor], spread: Tensor, kriging: Tensor
) -> Tensor:
    """(n, 4), see above."""
    own, few = torch.ones_like(spread), torch.zeros_like(spread)
    for column, factor, count in zip(index.long().unbind(1), noise, counts, strict=True):
        own *= factor[column]
        few += 1 / (1 + count[column])
    return torch.stack([own, spread, kriging, own * few], 1)


def calibrate(
    index: Tensor,
    residual: Tensor,
    spread: Tensor,
    kriging: Tensor,
    kind: Tensor,
    kinds: int,
    half: Tensor,
    counts: tuple[Tensor, ...],
    part: Tensor | None = None,
) -> Calibration:
    """From held-out entries.

    The quantiles are of residuals of one half over deviations that were found from the other: what is fitted to
    residuals states them too small.

    Args:
        index: (n, N). residual, spread, kriging: (n,). kind: (n,) of holes, of `kinds`. half: (n,) 0 or 1, the same for
            entries that err together. counts: per mode (d + 1,). part: (n,) how much each counts for the
            coefficients; None for all alike.
    """
    part = torch.ones_like(residual) if part is None else part

    def fitted(rows: Tensor) -> Calibration:
        noise = _noise(index[rows], residual[rows], counts)
        found = features(index[rows], noise, counts, spread[rows], kriging[rows])
        return Calibration(_likely(found, residual[rows].square(), part[rows]), noise, counts, torch.empty(0))

    whole = fitted(torch.ones_like(half, dtype=torch.bool))
    ratio = torch.empty_like(residual)
    for rows in (half == 0, half == 1):
        own = fitted(~rows) if int((~rows).sum()) >= _FEW else whole
        ratio[rows] = residual[rows].abs() / own.deviation(index[rows], spread[rows], kriging[rows])
    table = [_quantiles(ratio)] * kinds
    for number in sorted(set(kind.tolist())):  # few entries may only say that a kind is worse than the others
        own_quantiles, count = _quantiles(ratio[kind == number]), int((kind == number).sum())
        table[number] = own_quantiles if count >= _FEW else np.maximum(table[number], own_quantiles)
    return replace(whole, quantiles=torch.from_numpy(np.stack(table)))


def _noise(index: Tensor, residual: Tensor, counts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Per mode (d + 1,) how noisy an index is over the mean, shrunk by a prior; residuals (n,) that stand out count as
    much as the hundredth part of them."""
    square = residual.square()
    square = square.clamp_max(np.quantile(square, 0.99))
    expected = square.mean().clamp_min(1e-300).expand_as(square)
    factors = []
    for column, count in zip(index.long().unbind(1), counts, strict=True):
        ratio = torch.zeros_like(count).index_add_(0, column, square / expected)
        factor = (ratio + _FEW) / (torch.bincount(column, minlength=len(count)) + _FEW)
        factors.append(factor)
        expected = expected * factor[column]
    return tuple(factors)


def _likely(found: Tensor, square: Tensor, part: Tensor) -> Tensor:
    """The coefficients (4,) of features (n, 4) that make squared residuals (n,) most likely, none below zero."""
    size = max(float(square.mean()), 1e-100)
    least = 1e-4 * size  # a hundredth of the root mean square: what is nearly exact does not decide
    square = square.clamp(least, max(np.quantile(square, 0.99), least))
    scale = found.mean(0).clamp_min(1e-300)
    scaled = found / scale
    coefficients = torch.full((found.shape[1],), size / found.shape[1], dtype=torch.float64)
    # Held-out entries are rarely as far from others as those in the middle of a hole, so that the likelihood says
    # little of what interpolation leaves: at least half of what kriging itself states, scaled to the error as a whole
    kriging = 0.5 * scale[2] * min(1.0, float((part * square).sum() / (part * found[:, 2]).sum().clamp_min(1e-300)))
    for _ in range(100):  # multiplicative steps of maximum likelihood, which stay at or above zero
        variance = (scaled @ coefficients).clamp_min(1e-120)
        up, down = scaled.t() @ (part * square / variance.square()), scaled.t() @ (part / variance)
        coefficients = coefficients * (up / down.clamp_min(1e-300)).sqrt()
        coefficients[2] = coefficients[2].clamp_min(kriging)
    coefficients /= scale
    coefficients[0] = coefficients[0].clamp_min(1e-8 * size)
    return coefficients


def _quantiles(ratio: Tensor) -> np.ndarray:
    """Conformal quantiles: the ceil(level (n + 1))-th smallest of n, and between two of them."""
    return np.quantile(ratio, _LEVELS, method="weibull")
