"""Links between the scale that is fitted and the values, by kind of number.

eta is fitted and low + span * mean(eta) is the value: mean is the identity, exp for counts, or the logistic function
for two values. A fit of eta is a sequence of weighted least-squares problems (iteratively reweighted least squares;
McCullagh and Nelder, Generalized Linear Models, 1989, section 2.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Link:
    """A scale.

    Args:
        name: identity, log or logit. low, span: of the values, for the last two. noise: the variance of a value over
            that which `working` says: one for 0 and 1, and for counts; one over what counts have been divided by; zero
            where it is not known. top: the highest eta.
    """

    name: str = "identity"
    low: float = 0.0
    span: float = 1.0
    noise: float = 0.0
    top: float = 12.0

    def __bool__(self) -> bool:
        return self.name != "identity"

    def value(self, eta: Tensor) -> Tensor:
        """The values at eta (n,)."""
        return self.low + self.span * self._mean(eta) if self else eta

    def _mean(self, eta: Tensor) -> Tensor:
        eta = eta.clamp(-12, self.top)  # exp(12) is 160,000
        return eta.exp() if self.name == "log" else eta.sigmoid()

    def start(self, value: float) -> float:
        """The eta of a value."""
        if not self:
            return value
        mean = max((value - self.low) / self.span, 1e-6)
        return math.log(mean) if self.name == "log" else math.log(mean / max(1 - mean, 1e-6))

    def working(self, eta: Tensor, value: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the next least-squares problem fits, and with which weights: (n,) and (n,).

        log: variance proportional to the mean m, so eta + (value - m) / m with weight m;
        logit: variance m (1 - m), so eta + (value - m) / (m (1 - m)) with that weight.

        Args:
            eta, value: (n,). weight: (n,) of the squared residuals besides, None for ones.
        """
        ones = torch.ones_like(value) if weight is None else weight
        if not self:
            return value, ones
        mean = self._mean(eta)
        importance = mean.clamp_min(1e-3) if self.name == "log" else (mean * (1 - mean)).clamp_min(1e-2)
        target = eta.clamp(-12, self.top) + ((value - self.low) / self.span - mean) / importance
        return target, importance * ones


IDENTITY = Link()
