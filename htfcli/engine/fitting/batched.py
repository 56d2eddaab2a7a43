"""Fits of one shape trained as one batch: their gradients in one sweep, everything else run by run.

A small fit spends its time on the overhead of operations, not in them: ten fits in one operation take about as long as
two or three. Each run keeps its weights, optimizer, records and stop rules, and its numbers are those it has alone, but
for rounding where BLAS multiplies a batch of matrices otherwise than one.
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

# Measured on CPU, ten runs: 3 to 6 times faster with 500 to 3,000 parameters, 1.2 times with 37,000
MOST_PARAMETERS = 2**14
_GRID_EXCESS = 8  # cells of the whole tensor per observed entry; a batch computes them all
_ENDED = object()


def batch_key(fit: GradientFit) -> Hashable | None:
    """Equal for runs that can be trained as one batch; None for one that cannot."""
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
    """Computes the gradients of several fits of one `batch_key` at once.

    Args:
        fits: the runs; their `gradient` is written and their weights are read, nothing else.
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
    """Drive runs side by side until all have ended.

    Args:
        runs: fits of one `batch_key`, each with an iterator that yields whenever the fit wants its gradient, as
            `GradientFit.course` does between its records.
    """
    active, gradient = list(runs), None
    while active:
        wanting = [(fit, course) for fit, course in active if next(course, _ENDED) is None]
        if wanting and (gradient is None or len(wanting) < len(active)):
            gradient = BatchGradient([fit for fit, _ in wanting])
        if wanting and gradient is not None:
            gradient()
        active = wanting
