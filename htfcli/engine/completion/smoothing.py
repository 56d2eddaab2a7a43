"""Rows of an ordered leaf drawn together: the block-tridiagonal systems of a random-walk penalty, solved exactly.

For an ordered mode with positions t_0 < t_1 < ... the penalty sum over k of strength / (t_k+1 - t_k) |w_k+1 - w_k|^2 on
the rows w_k of its leaf joins their ridge systems (A_k + shift I) w_k = b_k into one that is block tridiagonal. Cyclic
reduction solves it in log2(d) batched steps: every other block is eliminated, what is left is block tridiagonal again.
"""

from __future__ import annotations

import torch
from torch import Tensor


def coupling(positions: Tensor | None, d: int) -> Tensor:
    """Weights (d - 1,) of the penalty between neighbours: one over their distance, in units of the median distance."""
    if positions is None:
        return torch.ones(d - 1, dtype=torch.float64)
    gap = (positions[1:] - positions[:-1]).double()
    return gap.median() / gap if len(gap) else gap


def solve_smooth(blocks: Tensor, target: Tensor, between: Tensor) -> Tensor:
    """Solve (blocks + penalty) w = target.

    Args:
        blocks: (d, R, R) positive definite. target: (d, R). between: (d - 1,) weights of the penalty.
    Returns: (d, R).
    """
    d, width = target.shape
    eye = torch.eye(width, dtype=blocks.dtype, device=blocks.device)
    beside = blocks.new_zeros(d)
    beside[:-1] += between
    beside[1:] += between
    diagonal = blocks + beside[:, None, None] * eye
    lower = -between[:, None, None] * eye  # (d - 1, R, R): from row k to row k + 1
    return _reduce(diagonal, lower, target.unsqueeze(2)).squeeze(2)


def _reduce(diagonal: Tensor, lower: Tensor, target: Tensor) -> Tensor:
    """One step of cyclic reduction: rows 1, 3, ... are eliminated. lower[k] couples row k + 1 (its rows) to row k."""
    d = len(diagonal)
    if d == 1:
        return torch.cholesky_solve(target, torch.linalg.cholesky(diagonal))
    odd = torch.linalg.cholesky(diagonal[1::2])
    count = len(odd)
    left = lower[0::2][:count]  # couples odd row j to the even row before it
    after = lower[1::2]  # couples the even row after to odd row j
    right = after.mT
    by_left = torch.cholesky_solve(left, odd)
    own = torch.cholesky_solve(target[1::2], odd)
    even, aim = diagonal[0::2].clone(), target[0::2].clone()
    even[:count] -= left.mT @ by_left
    aim[:count] -= left.mT @ own
    follow = len(after)
    if follow:
        by_right = torch.cholesky_solve(right, odd[:follow])
        even[1 : follow + 1] -= after @ by_right
        aim[1 : follow + 1] -= after @ own[:follow]
        coupled = -after @ by_left[:follow]
    else:
        by_right, coupled = lower[:0], lower[:0]
    solved = _reduce(even, coupled, aim)
    found = torch.empty_like(target)
    found[0::2] = solved
    found[1::2] = own - by_left @ solved[:count]
    if follow:
        found[1::2][:follow] -= by_right @ solved[1 : follow + 1]
    return found
