"""Mean losses over observations and their gradients, as functions of the residual r = value - observed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import huber_loss


@dataclass(frozen=True)
class Loss:
    """A mean loss.

    Args:
        mean: residuals (n,) -> the mean loss, ().
        gradient: writes d mean / d residual, (n,), into `out`; also of (runs, n), a mean each.
    """

    mean: Callable[[Tensor], Tensor]
    gradient: Callable[..., None]


def _l2(residual: Tensor, *, out: Tensor) -> None:
    torch.mul(residual, 2 / residual.shape[-1], out=out)


def _l1(residual: Tensor, *, out: Tensor) -> None:
    torch.sign(residual, out=out)
    out.div_(residual.shape[-1])


def _huber(residual: Tensor, *, out: Tensor) -> None:
    torch.clamp(residual, -1.0, 1.0, out=out)
    out.div_(residual.shape[-1])


LOSSES: dict[str, Loss] = {
    "l2": Loss(lambda r: torch.dot(r, r) / len(r), _l2),
    "l1": Loss(lambda r: r.abs().mean(), _l1),
    "huber": Loss(lambda r: huber_loss(r, torch.zeros_like(r), delta=1.0), _huber),
}
