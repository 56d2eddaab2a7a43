"""Weights that make a least-squares solver minimize a robust loss."""

from __future__ import annotations

import torch
from torch import Tensor


def robust_weights(residual: Tensor, loss: str) -> Tensor:
    """Weights w_i (n,) such that minimizing sum of w_i r_i^2 leads to a minimum of the robust loss.

    huber: min(1, k / |r_i|), quadratic up to k = 1.345 standard deviations (from the median of |r_i|), linear beyond;
    l1: s / |r_i|, s a standard deviation, cut off at a thousandth of one. So most weights are about one, and a ridge
    means the same for all losses.
    """
    size = residual.abs()
    deviation = deviation_of(size)
    if deviation == 0.0:
        return torch.ones_like(residual)
    if loss == "huber":
        return 1.345 * deviation / size.clamp_min(1.345 * deviation)
    return deviation / size.clamp_min(1e-3 * deviation)


def deviation_of(size: Tensor) -> float:
    """Standard deviation of noise by the middle of its sizes (n,), of which outliers change little."""
    return 1.4826 * float(size.median())
