"""Preconditioned conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    target: Tensor,
    precondition: Callable[[Tensor], Tensor],
    *,
    iterations: int,
    goal: float,
) -> Tensor:
    """Solve A x = target approximately, from x = 0.

    Args:
        product: x (p,) -> A x, a new tensor, A symmetric and positive definite.
        target: (p,).
        precondition: r (p,) -> M^-1 r, a new tensor, M symmetric, positive definite and close to A.
        iterations: at most, one product each.
        goal: stop once the squared residual norm r^T M^-1 r is at most this times its first value.
    Returns: (p,).
    Source: Hestenes and Stiefel, J. Res. Nat. Bur. Standards 49 (1952).
    """
    solution, residual = torch.zeros_like(target), target.clone()
    direction = precondition(residual)
    rho = float(residual @ direction)
    enough = goal * rho
    for _ in range(iterations):
        if rho <= enough:
            break
        image = product(direction)
        alpha = rho / max(float(direction @ image), 1e-300)
        solution.add_(direction, alpha=alpha)
        residual.sub_(image, alpha=alpha)
        conditioned = precondition(residual)
        previous, rho = rho, float(residual @ conditioned)
        direction = conditioned.add_(direction, alpha=rho / previous)
    return solution
