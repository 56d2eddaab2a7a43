"""Rows of an ordered leaf drawn together: the block-tridiagonal systems of a random-walk penalty, solved exactly.

For an ordered mode with positions t_0 < t_1 < ... the penalty sum over k of strength / (t_k+1 - t_k) |w_k+1 - w_k|^2 on
the rows w_k of its leaf joins their ridge systems (A_k + shift I) w_k = b_k into one, a banded matrix.
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
    Returns: (d, R); solved on the CPU.
    """
    from scipy.linalg import solveh_banded

    d, width = target.shape
    band = blocks.new_zeros(width + 1, d, width, device="cpu")  # [o, k, r]: o below the diagonal at row r of block k
    for offset in range(width):
        band[offset, :, : width - offset] = blocks.diagonal(-offset, 1, 2)
    weight = between.to(band)[:, None]
    band[0, :-1] += weight
    band[0, 1:] += weight
    band[width, :-1] = -weight
    solution = solveh_banded(band.flatten(1).numpy(), target.flatten().cpu().numpy(), lower=True)
    return torch.from_numpy(solution).view(d, width).to(target)
