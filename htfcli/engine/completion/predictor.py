"""A fitted model that predicts a tensor's entries in the units of the data, and an ensemble of such models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.observations.centring import Effects


@dataclass(frozen=True)
class Predictor:
    """A fitted model of a tensor in the units of the data: effects + factorization, cut off at `floor` if there is one.

    Args:
        model: float64, on the CPU. effects: added to it. floor: no value is below it; None for no bound.
    """

    model: Factorization
    effects: Effects
    floor: float | None = None

    @property
    def dims(self) -> tuple[int, ...]:
        return self.model.dims

    def values(self, index: Tensor) -> Tensor:
        """Predicted entries.

        Args:
            index: (n, N) int64.
        Returns: (n,) float64.
        """
        values = self.effects.at(index).add_(self.model.values(index))
        return values if self.floor is None else values.clamp_(min=self.floor)


@dataclass(frozen=True)
class Completion:
    """What `complete` returns.

    Args:
        predictor: of all entries. ensemble: predictors from other splits and starts, whose spread is the uncertainty.
        report: plain data: held-out errors, ranks, tree, widths, warnings, the search as it went.
    """

    predictor: Predictor
    ensemble: tuple[Predictor, ...]
    report: dict[str, Any]

    def spread(self, index: Tensor) -> Tensor:
        """Standard deviation of the ensemble's predictions, (n,) float64, in units of the data."""
        predictions = torch.stack([member.values(index) for member in self.ensemble])
        largest = float(predictions.abs().max()) if predictions.numel() else 0.0
        size = 2.0 ** math.frexp(largest)[1] if largest < 2.0**1022 else 2.0**1022  # squares would overflow
        return (predictions / size).std(0, correction=0).mul_(size)
