"""How far a prediction may be off: a variance for every entry, calibrated on what was held out.

    variance(i) = c_0 g(i) + c_1 spread(i) + c_2 kriging(i) + c_3 g(i) sum over modes of 1 / (1 + observations of i_k)

with g the product of the noise of the entry's indices over the mean noise, spread the variance over members from
independent starts, kriging the variance that interpolation leaves; c >= 0 by maximum likelihood on held-out residuals.
Then a conformal factor for every kind of holes: quantiles of |residual| / deviation of what was held out like these.
(Lei et al., Distribution-free predictive inference for regression, JASA 113, 2018.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NORMAL_90 = 1.6448536269514722  # standard deviations on each side of the middle 90 % of a normal distribution
_LEVELS = 200
_FEWEST = 20  # held-out entries of a kind that have a factor of their own
_PRIOR = 10.0  # observations that say an index has the mean noise


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

    def variance(self, index: Tensor, spread: Tensor, kriging: Tensor) -> Tensor:
        """Before the conformal factor, (n,)."""
        return features(index, self.noise, self.counts, spread, kriging) @ self.coefficients

    def deviation(self, index: Tensor, spread: Tensor, kriging: Tensor) -> Tensor:
        """Before the conformal factor, (n,)."""
        return self.variance(index, spread, kriging).clamp_min(0.0).sqrt()

    def factor(self, kind: Tensor) -> Tensor:
        """The conformal factor (n,): 1.645 deviations times it hold 90 % of entries of each kind (n,)."""
        return self.quantile(kind, 0.9) / NORMAL_90

    def quantile(self, kind: Tensor, level: float) -> Tensor:
        """Deviations on each side that hold a share `level` of entries of each kind (n,)."""
        place = level * (_LEVELS - 1)
        low = min(int(place), _LEVELS - 2)
        table = self.quantiles[:, low] + (place - low) * (self.quantiles[:, low + 1] - self.quantiles[:, low])
        return table[kind]


def noise_of_indices(index: Tensor, residual: Tensor, dims: Sequence[int]) -> tuple[Tensor, ...]:
    """Per mode (d + 1,) how noisy an index is over the mean, shrunk by a prior of ten observations."""
    square = residual.square()
    if len(square):
        square = square.clamp_max(float(torch.quantile(square[:1_000_000], 0.99)))
    expected = torch.full_like(square, max(float(square.mean()) if len(square) else 1.0, 1e-300))
    factors = []
    for mode, d in enumerate(dims):
        column = index[:, mode].long()
        ratio = torch.zeros(d, dtype=torch.float64).index_add_(0, column, square / expected)
        factor = (ratio + _PRIOR) / (torch.bincount(column, minlength=d) + _PRIOR)
        factors.append(torch.cat([factor, factor.new_ones(1)]))
        expected = expected * factor[column]
    return tuple(factors)


def features(
    index: Tensor, noise: Sequence[Tensor], counts: Sequence[Tensor], spread: Tensor, kriging: Tensor
) -> Tensor:
    """(n, 4), see above."""
    own = torch.ones(len(index), dtype=torch.float64)
    few = torch.zeros(len(index), dtype=torch.float64)
    for mode, (factor, count) in enumerate(zip(noise, counts, strict=True)):
        own *= factor[index[:, mode].long()]
        few += 1 / (1 + count[index[:, mode].long()])
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
    dims = [len(c) - 1 for c in counts]

    def fitted(rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        noise = noise_of_indices(index[rows], residual[rows], dims)
        found = features(index[rows], noise, counts, spread[rows], kriging[rows])
        return noise, _likely(found, residual[rows].square(), part[rows])

    everything = torch.arange(len(index))
    noise, coefficients = fitted(everything)
    ratio = torch.empty_like(residual)
    for number in (0, 1):
        rows, others = torch.nonzero(half == number).flatten(), torch.nonzero(half != number).flatten()
        own_noise, own = fitted(others) if len(others) >= _FEWEST else (noise, coefficients)
        found = features(index[rows], own_noise, counts, spread[rows], kriging[rows])
        ratio[rows] = residual[rows].abs() / (found @ own).clamp_min(1e-300).sqrt()
    levels = torch.linspace(0, 1, _LEVELS, dtype=torch.float64)
    whole = _quantiles(ratio, levels)
    table = []
    for number in range(kinds):
        own = ratio[kind == number]
        if len(own) >= _FEWEST:
            table.append(_quantiles(own, levels))
        else:
            table.append(torch.maximum(whole, _quantiles(own, levels)) if len(own) > 4 else whole)
    return Calibration(coefficients, noise, counts, torch.stack(table))


def _likely(found: Tensor, square: Tensor, part: Tensor) -> Tensor:
    """The coefficients (4,) of features (n, 4) that make squared residuals (n,) most likely, none below zero."""
    size = max(float(square.mean()), 1e-100)
    square = square.clamp(1e-4 * size, max(float(torch.quantile(square, 0.99)), 1e-4 * size))
    scale = found.mean(0).clamp_min(1e-300)
    scaled = found / scale
    coefficients = torch.full((found.shape[1],), 0.25 * size, dtype=torch.float64)
    # Held-out entries are rarely as far from others as those in the middle of a hole, so that the likelihood says
    # little of what interpolation leaves: at least half of what kriging itself states, scaled to the error as a whole
    least = 0.5 * scale[2] * min(1.0, float((part * square).sum() / (part * found[:, 2]).sum().clamp_min(1e-300)))
    for _ in range(100):  # multiplicative steps of maximum likelihood, which stay at or above zero
        variance = (scaled @ coefficients).clamp_min(1e-120)
        up, down = scaled.t() @ (part * square / variance.square()), scaled.t() @ (part / variance)
        coefficients = coefficients * (up / down.clamp_min(1e-300)).sqrt()
        coefficients[2] = coefficients[2].clamp_min(least)
    coefficients = coefficients / scale
    coefficients[0] = coefficients[0].clamp_min(1e-8 * size)
    return coefficients


def _quantiles(ratio: Tensor, levels: Tensor) -> Tensor:
    """Conformal quantiles: the ceil(level (n + 1))-th smallest of n."""
    ordered = ratio.sort().values
    place = (levels * (len(ordered) + 1) - 1).clamp(0, len(ordered) - 1)
    low = place.floor().long()
    high = place.ceil().long()
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
