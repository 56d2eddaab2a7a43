"""What a completion is: members, their weights for every kind of holes, interpolation on top, a calibrated
deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from htfcli.engine.completion.columns import BLEND, Column, Interpolation
from htfcli.engine.completion.holes import Holes
from htfcli.engine.completion.interpolation import Neighbours, krige
from htfcli.engine.completion.members import Member
from htfcli.engine.completion.saving import read_state, state_of
from htfcli.engine.completion.uncertainty import Calibration
from htfcli.engine.completion.units import Units
from htfcli.engine.factorizations.factorization import Factorization


@dataclass(frozen=True)
class Averaged:
    """Predictions in units of the fit, (n,) each: the mean, the variance over members, what interpolation leaves open;
    `members` (n, M)."""

    mean: Tensor
    spread: Tensor
    kriging: Tensor
    members: Tensor


def average(
    weights: Tensor, columns: Tensor, kriging: Tensor, members: Tensor, blend: Tensor, of_blend: Tensor
) -> Averaged:
    """The weighted mean of columns and how far they disagree.

    Args:
        weights, columns, kriging: (n, C), kriging the variance that each column leaves open. members: (n, M). blend:
            (M,) weights of the members in the blend. of_blend: (C,) ones for columns that are built on it.
    """
    mean = (weights * columns).sum(1)
    spread = (weights * (columns - mean.unsqueeze(1)).square()).sum(1)
    if float(blend.sum()) > 0:
        centre = members @ blend
        spread = spread + (weights @ of_blend) * ((members - centre.unsqueeze(1)).square() @ blend)
    return Averaged(mean, spread, (weights * kriging).sum(1), members)


def row_of(kind: Tensor, index: Tensor, units: Units, dims: tuple[int, ...]) -> Tensor:
    """The row of weights for entries (n, N) of kinds (n,): one for each kind, or for each kind and variable, of which
    the last is for all of them together.
    """
    if units.mode is None:
        return kind
    at = index[:, units.mode].long()
    return kind * (dims[units.mode] + 1) + torch.where(at < 0, dims[units.mode], at)


@dataclass
class Completion:
    """What `complete` returns: a predictor of all entries, with how far it may be off.

    Args:
        dims: of the tensor. units: of the fit. holes: kinds of holes. members: effects and factorizations. blend: (M,).
        columns: what is averaged. weights: (rows, C) by `row_of`, each adding up to one. interpolations: that
        columns name.
        observed: (n, N) entries that interpolation starts from; empty without. positions: per mode (d,) or None.
        calibration: of the deviation. lowest, highest, integers: what predictions may be. report: plain data.
    """

    dims: tuple[int, ...]
    units: Units
    holes: Holes
    members: tuple[Member, ...]
    blend: Tensor
    columns: tuple[Column, ...]
    weights: Tensor
    interpolations: tuple[Interpolation, ...]
    observed: Tensor
    positions: list[Tensor | None]
    calibration: Calibration
    lowest: float = -math.inf
    highest: float = math.inf
    integers: bool = False
    report: dict[str, Any] = field(default_factory=dict)
    _neighbours: Neighbours | None = None
    _last: tuple[Tensor, Averaged, Tensor] | None = None

    # --- predictions --------------------------------------------------------------------------------------------------

    def values(self, index: Tensor) -> Tensor:
        """Predictions at (n, N) entries, -1 for an index never seen; (n,) float64 in units of the data."""
        averaged, _ = self._at(index)
        shift, scale = self.units.of(index)
        return self._within(shift + scale * averaged.mean)

    def std(self, index: Tensor) -> Tensor:
        """Predictive standard deviation, (n,): 1.645 of it on each side hold the true value in 90 % of cases."""
        deviation, kind = self._deviation(index)
        return deviation * self.calibration.factor(kind)

    def interval(self, index: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Lower and upper ends (n,) of intervals that hold the true value in a share `level` of cases."""
        averaged, _ = self._at(index)
        deviation, kind = self._deviation(index)
        shift, scale = self.units.of(index)
        half = deviation * self.calibration.quantile(kind, level)
        centre = shift + scale * averaged.mean
        return self._within(centre - half), self._within(centre + half)

    def imputations(self, index: Tensor, m: int, generator: torch.Generator) -> Tensor:
        """Draws (m, n) from the predictive distribution: what members disagree about is drawn for all entries at once,
        the rest for every entry by itself.
        """
        averaged, _ = self._at(index)
        shift, scale = self.units.of(index)
        total = (self.std(index) / scale).square()
        mixed = averaged.members - (averaged.members @ self.blend).unsqueeze(1)
        mixed = mixed * self.blend.sqrt()
        shared = mixed.square().sum(1)
        part = torch.minimum(shared, 0.5 * total) / shared.clamp_min(1e-300)
        mixed = mixed * part.sqrt().unsqueeze(1)
        own = (total - mixed.square().sum(1)).clamp_min(0.0).sqrt()
        draws = []
        for _ in range(m):
            common = torch.randn(mixed.shape[1], generator=generator, dtype=torch.float64)
            single = torch.randn(len(index), generator=generator, dtype=torch.float64)
            draws.append(self._within(shift + scale * (averaged.mean + mixed @ common + own * single)))
        return torch.stack(draws) if draws else averaged.mean.new_empty(0, len(index))

    @property
    def model(self) -> Factorization | None:
        """The factorization of the greatest weight; None where none counts."""
        found = [
            (float(self.blend[k]), -k) for k, m in enumerate(self.members) if m.model is not None and self.blend[k] > 0
        ]
        return self.members[-max(found)[1]].model if found else None

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain data, from which `from_state` makes it again."""
        return state_of(self)

    @staticmethod
    def from_state(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> Completion:
        """The completion of a state. Raises DataError if it is damaged."""
        return read_state(tensors, content, Completion)

    def _within(self, value: Tensor) -> Tensor:
        value = value.clamp(self.lowest, self.highest)
        if not self.integers:
            return value
        return value.round().clamp(
            math.ceil(self.lowest) if math.isfinite(self.lowest) else -math.inf,
            math.floor(self.highest) if math.isfinite(self.highest) else math.inf,
        )

    def _deviation(self, index: Tensor) -> tuple[Tensor, Tensor]:
        averaged, kind = self._at(index)
        _, scale = self.units.of(index)
        return scale * self.calibration.deviation(index, averaged.spread, averaged.kriging), kind

    def _at(self, index: Tensor) -> tuple[Averaged, Tensor]:
        """Averaged predictions and kinds of holes; those of the last entries asked for are kept."""
        last = self._last
        if last is not None and last[0].shape == index.shape and bool(torch.equal(last[0], index)):
            return last[1], last[2]
        kind = self.holes.kind_of(index)
        weights = self.weights[row_of(kind, index, self.units, self.dims)]
        members = torch.stack([m.at(index) for m in self.members], 1)
        columns, kriging = [], []
        for number, column in enumerate(self.columns):
            base = members @ self.blend if column.source == BLEND else members[:, column.source]
            open_ = torch.zeros_like(base)
            if column.interpolation >= 0:
                used = torch.nonzero((weights[:, number] > 0) & (index >= 0).all(1)).flatten()
                added, left = self._interpolated(index[used], column.interpolation)
                base = base.index_add(0, used, added)
                open_[used] = left
            columns.append(base)
            kriging.append(open_)
        of_blend = torch.tensor([float(c.source == BLEND) for c in self.columns], dtype=torch.float64)
        averaged = average(weights, torch.stack(columns, 1), torch.stack(kriging, 1), members, self.blend, of_blend)
        self._last = (index, averaged, kind)
        return averaged, kind

    def _interpolated(self, index: Tensor, number: int) -> tuple[Tensor, Tensor]:
        if self._neighbours is None:
            self._neighbours = Neighbours(self.observed.long(), self.dims, self.positions)
        one = self.interpolations[number]
        mean, variance = krige(self._neighbours, index, one.kernel, one.residual)
        return mean, variance * one.variance
