"""Links between the scale that is fitted and the values, by kind of number.

With a link, eta is fitted and mean(eta) is the value: the identity, exp for counts, the logistic function for two
values. A fit of eta is a sequence of weighted least-squares problems (iteratively reweighted least squares; McCullagh
and Nelder, Generalized Linear Models, 1989, section 2.5).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WIDEST = 12.0  # |eta| at most, over the data's own: exp(12) is 160,000 times the mean count


def value_of(eta: Tensor, link: str) -> Tensor:
    """The mean at eta (n,)."""
    if link == "log":
        return torch.exp(eta.clamp(-_WIDEST, _WIDEST))
    return torch.sigmoid(eta) if link == "logit" else eta


def start_of(mean: float, link: str) -> float:
    """The eta of a mean."""
    if link == "log":
        return math.log(max(mean, 1e-6))
    return math.log(max(mean, 1e-6) / max(1 - mean, 1e-6)) if link == "logit" else mean


def working(eta: Tensor, value: Tensor, link: str) -> tuple[Tensor, Tensor]:
    """What the next least-squares problem fits, and with which weights: (n,) and (n,).

    log: variance proportional to the mean m, so eta + (value - m) / m with weight m;
    logit: variance m (1 - m), so eta + (value - m) / (m (1 - m)) with that weight.
    """
    mean = value_of(eta, link)
    weight = mean.clamp_min(1e-3) if link == "log" else (mean * (1 - mean)).clamp_min(1e-2)
    return eta.clamp(-_WIDEST, _WIDEST) + (value - mean) / weight, weight
