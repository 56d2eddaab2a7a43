"""Fits of one shape trained as a batch: their gradients are computed in one sweep, everything else run by run.

A small fit spends its time on the overhead of operations: ten fits as a batch take about as long as two or three alone.
Each run keeps its own weights, optimizer, records and stop rules. Its numbers are those of a run alone, up to rounding
where BLAS multiplies a batch of matrices differently from a single one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch

from htfcli.engine.fitting.gradient_descent import GradientFit
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.fitting.records import SampleLoss
from htfcli.engine.runtime.device import captured
from htfcli.engine.samples import Entries

# Measured on CPU with ten runs: 3 to 6 times faster at 500 to 3,000 parameters, 1.2 times at 37,000
MOST_PARAMETERS = 2**14
_GRID_EXCESS = 8  # entries of the tensor per observed one, at most: a batch computes them all
_ENDED = object()  # marks an iterator without a next value


def batch_key(fit: GradientFit) -> Hashable | None:
    """A key that is equal for runs that can be trained as one batch; None for a run that cannot."""
    model, sample, config = fit.model, fit.train, fit.config
    if not (fit.full_batch and isinstance(sample, Entries) and config.seconds is None):
        return None
    if len(model.parameters) > MOST_PARAMETERS or model.entries > _GRID_EXCESS * len(sample):
        return None
    shape = (model.kind, model.dims, model.tree.children, tuple(sorted(model.widths.items())), len(sample))
    return (*shape, config.loss, model.parameters.dtype, str(model.parameters.device))


@dataclass(frozen=True)
class _Stack(Entries):
    """Entries of several runs: index (runs, n, N), value (runs, n)."""

    def __len__(self) -> int:
        return self.value.shape[-1]


class BatchGradient:
    """Computes the gradients of several fits at once.

    Args:
        fits: runs with the same `batch_key`; a call reads their weights and writes their `gradient`.
    """

    def __init__(self, fits: Sequence[GradientFit]) -> None:
        for fit in fits:
            fit.shared = True
        self._weights = [fit.model.parameters for fit in fits]
        self._gradients = [fit.gradient for fit in fits]
        samples = [fit.train for fit in fits]
        index = torch.stack([sample.index for sample in samples if isinstance(sample, Entries)])
        stack = _Stack(index, torch.stack([sample.value for sample in samples]))
        model = fits[0].model.stacked(len(fits))
        self._stacked = model.parameters
        gradient = torch.zeros_like(self._stacked)
        self._rows = list(gradient.unbind())
        self._loss = SampleLoss(model, stack, LOSSES[fits[0].config.loss], gradient)
        self._compute = captured(self._sweep, self._stacked.device)

    @torch.no_grad()
    def __call__(self) -> None:
        self._compute()

    def _sweep(self) -> None:
        torch.stack(self._weights, out=self._stacked)
        self._loss.forward_backward()
        torch._foreach_copy_(self._gradients, self._rows)


def train_together(runs: Sequence[tuple[GradientFit, Iterator[None]]]) -> None:
    """Train runs side by side until all have ended.

    Args:
        runs: fits with the same `batch_key`, each with an iterator that yields whenever the fit needs its gradient, as
            `GradientFit.course` does between its records.
    """
    active, gradient = list(runs), None
    while active:
        waiting = [(fit, course) for fit, course in active if next(course, _ENDED) is None]
        if waiting and (gradient is None or len(waiting) < len(active)):
            gradient = BatchGradient([fit for fit, _ in waiting])
        if waiting and gradient is not None:
            gradient()
        active = waiting
