"""Weights of an average: non-negative, adding up to one, by least squares on held-out entries, pulled towards equal
ones.

minimize over w >= 0, sum w = 1:  sum over held-out entries (y - sum_m w_m p_m)^2 + pull * sum_m (w_m - c_m)^2,
c equal weights of the members that are about as good as the best. (Breiman, Stacked regressions, 1996.)
"""

from __future__ import annotations

import torch
from torch import Tensor


def stack(predictions: Tensor, value: Tensor, groups: int, power: float) -> Tensor:
    """The weights.

    Args:
        predictions: (n, M) of M members. value: (n,). groups: how many independent parts the entries come from: entries
            of one hole err together, and the weights are pulled the more. power: how fast a worse member loses its part
            of the equal weights: as (error of the best / its own)^power.
    Returns: (M,).
    """
    miss = predictions - value.unsqueeze(1)
    gram = miss.t() @ miss
    size = gram.diagonal()
    lowest = float(size.min())
    if lowest <= 0 or len(size) == 1:
        return torch.nn.functional.one_hot(size.argmin(), len(size)).double()
    centre = (lowest / size).pow(power / 2)
    centre /= centre.sum()
    pull = lowest / len(value) * len(size) * (len(value) / max(groups, 1))
    # as the weights add up to one, sum w p - y = sum w (p - y): the quadratic form is that of the errors
    quadratic = gram + pull * torch.eye(len(size), dtype=gram.dtype)
    return _minimum_on_simplex(quadratic, pull * centre, centre)


def _minimum_on_simplex(quadratic: Tensor, linear: Tensor, start: Tensor) -> Tensor:
    """The w >= 0 of sum one with the least w^T Q w - 2 b^T w: active sets, each solved exactly."""
    count = len(linear)
    active = torch.ones(count, dtype=torch.bool)
    weights = start.clone()
    scale = float(quadratic.diagonal().mean())
    for _ in range(10 * count):
        inside = torch.nonzero(active).flatten()
        size = len(inside)
        system = torch.zeros(size + 1, size + 1, dtype=quadratic.dtype)
        system[:size, :size] = quadratic[inside][:, inside] / scale
        system[:size, size], system[size, :size] = 1.0, 1.0
        aim = torch.cat([linear[inside] / scale, linear.new_ones(1)])
        solved = torch.linalg.lstsq(system, aim.unsqueeze(1)).solution[:, 0]
        wanted = torch.zeros_like(weights)
        wanted[inside] = solved[:size]
        if bool((wanted >= -1e-12).all()):
            weights = wanted.clamp_min(0.0)
            slope = (quadratic @ weights - linear) / scale + solved[size]
            slope[inside] = 0.0
            worst = int(slope.argmin())
            if float(slope[worst]) > -1e-10:
                break
            active[worst] = True
            continue
        falling = wanted < weights
        steps = torch.where(falling & active & (wanted < 0), weights / (weights - wanted).clamp_min(1e-300), 1.0)
        step = float(steps.min())
        weights = (weights + step * (wanted - weights)).clamp_min(0.0)
        active &= weights > 1e-12
        if not bool(active.any()):
            return start
    # the last digits depend on how memory happens to be aligned, and a seed must give the same bytes
    weights = torch.round(weights / weights.sum(), decimals=12)
    return weights / weights.sum()
