"""What a completion is: members, their weights for every kind of holes, interpolation on top, a calibrated
deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from htfcli.engine.completion.holes import Holes
from htfcli.engine.completion.interpolation import Interpolation, Neighbours, krige
from htfcli.engine.completion.members import Member
from htfcli.engine.completion.saving import read_state, state_of
from htfcli.engine.completion.uncertainty import Calibration
from htfcli.engine.completion.units import Units
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.errors import DataError


@dataclass(frozen=True)
class Column:
    """One of the predictions that are averaged: members mixed, with or without interpolation of what they leave.

    Args:
        name: for the report. mix: (M,) weights of the members, adding up to one. interpolation: None for none.
    """

    name: str
    mix: Tensor
    interpolation: Interpolation | None = None


@dataclass(frozen=True)
class Averaged:
    """Predictions in units of the fit, (n,) each: the mean, the variance over members, what interpolation leaves open;
    `members` (n, M)."""

    mean: Tensor
    spread: Tensor
    kriging: Tensor
    members: Tensor


def average(weights: Tensor, columns: Sequence[Column], values: Tensor, kriging: Tensor, members: Tensor) -> Averaged:
    """The weighted mean of C columns and how far they, and the members that are mixed in each, disagree.

    Args:
        weights, values, kriging: (n, C), kriging the variance that each column leaves open. members: (n, M).
    """
    mean = (weights * values).sum(1)
    spread = (weights * (values - mean.unsqueeze(1)).square()).sum(1)
    for weight, column in zip(weights.unbind(1), columns, strict=True):
        spread += weight * ((members - (members @ column.mix).unsqueeze(1)).square() @ column.mix)
    return Averaged(mean, spread, (weights * kriging).sum(1), members)


@dataclass
class Completion:
    """What `complete` returns: a predictor of all entries, with how far it may be off.

    Args:
        dims: of the tensor. units: of the fit. holes: kinds of holes. members: effects and factorizations. blend: (M,)
        weights of the factorizations in their average, zeros where none counts. columns: what is averaged. weights:
        (rows, C), each row adding up to one: a row for every kind of holes, or for every variable of every kind and,
        after them, all together. observed: (n, N) entries that interpolation starts from; empty without. positions:
        per mode (d,) or None.
        calibration: of the deviation. lowest, highest, integers: what predictions may be. report: plain data.
    """

    dims: tuple[int, ...]
    units: Units
    holes: Holes
    members: tuple[Member, ...]
    blend: Tensor
    columns: tuple[Column, ...]
    weights: Tensor
    observed: Tensor
    positions: list[Tensor | None]
    calibration: Calibration
    lowest: float = -math.inf
    highest: float = math.inf
    integers: bool = False
    report: dict[str, Any] = field(default_factory=dict)
    _neighbours: Neighbours | None = field(default=None, init=False)
    _last: tuple[Tensor, Averaged, Tensor] | None = field(default=None, init=False)

    # --- predictions --------------------------------------------------------------------------------------------------

    def values(self, index: Tensor) -> Tensor:
        """Predictions at (n, N) entries, -1 for an index never seen; (n,) float64 in units of the data."""
        shift, scale = self.units.of(index)
        return self.within(shift + scale * self._at(index)[0].mean)

    def std(self, index: Tensor) -> Tensor:
        """Predictive standard deviation, (n,): 1.645 of it on each side hold the true value in 90 % of cases."""
        averaged, kind = self._at(index)
        return self.units.of(index)[1] * self.calibration.std(index, averaged.spread, averaged.kriging, kind)

    def interval(self, index: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Lower and upper ends (n,) of intervals that hold the true value in a share `level` of cases."""
        averaged, kind = self._at(index)
        shift, scale = self.units.of(index)
        deviation = scale * self.calibration.deviation(index, averaged.spread, averaged.kriging)
        centre, half = shift + scale * averaged.mean, deviation * self.calibration.quantile(kind, level)
        return self.within(centre - half), self.within(centre + half)

    def imputations(self, index: Tensor, m: int, generator: torch.Generator) -> Tensor:
        """Draws (m, n) from the predictive distribution: what members disagree about, up to half of the variance, is
        drawn for all entries at once, the rest for every entry by itself.
        """
        averaged, _ = self._at(index)
        shift, scale = self.units.of(index)
        total = (self.std(index) / scale).square()
        mixed = (averaged.members - (averaged.members @ self.blend).unsqueeze(1)) * self.blend.sqrt()
        shared = mixed.square().sum(1)
        part = torch.minimum(shared, 0.5 * total)
        mixed = mixed * (part / shared.clamp_min(1e-300)).sqrt().unsqueeze(1)
        own = (total - part).clamp_min(0.0).sqrt()
        draws = averaged.mean.new_empty(m, len(index))
        for draw in draws:
            common = torch.randn(mixed.shape[1], generator=generator, dtype=torch.float64)
            single = torch.randn(len(index), generator=generator, dtype=torch.float64)
            draw.copy_(self.within(shift + scale * (averaged.mean + mixed @ common + own * single)))
        return draws

    def within(self, value: Tensor) -> Tensor:
        """Values (n,) as predictions may be: between the bounds, and rounded where they are to be integers."""
        if self.integers:
            return value.round().clamp(np.ceil(self.lowest), np.floor(self.highest))
        return value.clamp(self.lowest, self.highest)

    @property
    def model(self) -> Factorization | None:
        """The factorization of the greatest weight; None where none counts."""
        strongest = int(self.blend.argmax())
        return self.members[strongest].model if self.blend[strongest] > 0 else None

    def _at(self, index: Tensor) -> tuple[Averaged, Tensor]:
        """Averaged predictions and kinds of holes; those of the last entries asked for are kept."""
        if self._last is not None and torch.equal(self._last[0], index):
            return self._last[1:]
        kind = self.holes.kind_of(index)
        row = kind
        if self.units.mode is not None:  # an index never seen, -1, has the last row of its kind, which is for all
            step = self.dims[self.units.mode] + 1
            row = kind * step + index[:, self.units.mode].long() % step
        weights = self.weights[row]
        members = torch.stack([m.at(index) for m in self.members], 1)
        values = torch.stack([members @ c.mix for c in self.columns], 1)
        kriging = torch.zeros_like(values)
        for number, column in enumerate(self.columns):
            if column.interpolation is not None:
                used = torch.nonzero((weights[:, number] > 0) & (index >= 0).all(1)).flatten()
                added, left = self._interpolated(index[used], column.interpolation)
                values[used, number] += added
                kriging[used, number] = left
        averaged = average(weights, self.columns, values, kriging, members)
        self._last = (index, averaged, kind)
        return averaged, kind

    def _interpolated(self, index: Tensor, one: Interpolation) -> tuple[Tensor, Tensor]:
        if self._neighbours is None:
            self._neighbours = Neighbours(self.observed.long(), self.dims, self.positions)
        mean, variance = krige(self._neighbours, index, one.kernel, one.residual)
        return mean, variance * one.variance

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain data, from which `from_state` makes it again."""
        return state_of(self)

    @staticmethod
    def from_state(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> Completion:
        """The completion of a state. Raises DataError if it is damaged."""
        found = read_state(Completion, tensors, content)
        try:
            fits = found._fits()
        except (IndexError, RuntimeError, ValueError):
            fits = False
        if not fits:
            raise DataError("the completion is damaged: its parts do not fit each other")
        return found

    def _fits(self) -> bool:
        """Whether all parts are of one completion: what they have for its last entry, and for one never seen, is there.

        Raises: IndexError, RuntimeError or ValueError if it is not.
        """
        ends = torch.tensor([[d - 1 for d in self.dims], [-1] * len(self.dims)])
        kinds, members = len(self.holes.names), torch.stack([m.at(ends) for m in self.members], 1)
        rows = 1 if self.units.mode is None else self.dims[self.units.mode] + 1
        self.units.of(ends), self.holes.kind_of(ends), self.calibration.deviation(ends, *torch.zeros(2, 2).double())
        return (
            self.weights.shape == (kinds * rows, len(self.columns))
            and self.blend.shape == members[0].shape
            and self.calibration.quantiles.shape[0] == kinds
            and len(self.positions) == len(self.dims)
            and all(m.model is None or m.model.dims == self.dims for m in self.members)
            and all(m.link.name in ("identity", "log", "logit") for m in self.members)
            and all(c.mix.shape == self.blend.shape for c in self.columns)
            and all(len(i.residual) == len(self.observed) for c in self.columns if (i := c.interpolation) is not None)
        )
