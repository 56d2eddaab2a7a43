"""Weights with which a least-squares solver minimizes a robust loss."""

from __future__ import annotations

import torch
from torch import Tensor

_HUBER = 1.345  # standard deviations; 95 % as efficient as least squares on Gaussian noise (Huber, 1981)
_NORMAL = 1.4826  # standard deviation of a Gaussian over the median of its absolute values
_SMALLEST = 1e-3  # standard deviations below which residuals all get the same l1 weight, which would be infinite at 0


def robust_weights(residual: Tensor, loss: str) -> Tensor:
    """Weights for iteratively reweighted least squares.

    Minimizing the sum of w_i r_i^2 and computing the weights anew, in turns, leads to a minimum of the robust loss.
    With s a robust standard deviation of the residuals (`deviation_of`):

        huber: w_i = min(1, 1.345 s / |r_i|)        l1: w_i = s / max(|r_i|, s / 1000)

    Most weights are about one, so a ridge has the same meaning for all losses.

    Args:
        residual: (n,). loss: `huber` or `l1`.
    Returns: (n,); ones where at least half of the residuals are zero.
    """
    size = residual.abs()
    deviation = deviation_of(size)
    if deviation == 0.0:
        return torch.ones_like(residual)
    if loss == "huber":
        return _HUBER * deviation / size.clamp_min(_HUBER * deviation)
    return deviation / size.clamp_min(_SMALLEST * deviation)


def deviation_of(size: Tensor) -> float:
    """Standard deviation of Gaussian noise from the median of its absolute values (n,), robust to outliers."""
    return _NORMAL * float(size.median())
