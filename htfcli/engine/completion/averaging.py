"""The average: predictions of all sources on what was held out, interpolated along ordered modes, weighted by kind
of holes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from htfcli.engine.completion.interpolation import Kernel, Neighbours, choose_kernel, cross_correlation, krige, step_of
from htfcli.engine.completion.members import Judge, Member, Recipe, Snapshot, Split
from htfcli.engine.completion.preparation import Problem
from htfcli.engine.completion.result import BLEND, Averaged, Column, Completion, Interpolation, average
from htfcli.engine.completion.settings import Settings
from htfcli.engine.completion.stacking import stack
from htfcli.engine.completion.uncertainty import Calibration, calibrate

_NEGLIGIBLE = 0.01  # a weight under which a column is left out
_DENSE = 0.2  # share of cells observed, under which neighbours in two modes are far, and long to look for (kinetic)
_MOST_CROSS = 50  # indices of a mode whose correlation is estimated


@dataclass
class Source:
    """What may be averaged.

    Args:
        name: for the report. members: fitted on every split. of_all: fits it to all observations.
        snapshot, recipe: of a factorization, None for effects.
    """

    name: str
    members: list[Member]
    of_all: Callable[[], Member]
    snapshot: Snapshot | None = None
    recipe: Recipe | None = None

    @property
    def is_factorization(self) -> bool:
        """Whether it is part of the blend."""
        return self.recipe is not None and self.recipe.link == "identity"


class Average:
    """Weights of sources, of their blend, and of what interpolation adds to some, on held-out entries.

    Attributes:
        held: (n, C) predictions of the columns of what was held out. weights: (rows, C) by `row_of`.
    """

    def __init__(
        self, problem: Problem, splits: Sequence[Split], judge: Judge, sources: Sequence[Source], settings: Settings
    ) -> None:
        self.problem, self.splits, self.judge, self.settings = problem, splits, judge, settings
        self.sources = list(sources)
        self.members = torch.stack([self._predicted(s) for s in self.sources], 1)
        self.blend = self._blended()
        self.columns = [Column(s.name, k) for k, s in enumerate(self.sources)]
        held = [self.members[:, k] for k in range(len(self.sources))]
        kriging = [torch.zeros_like(judge.value) for _ in held]
        if int((self.blend > 0).sum()) > 1:
            self.columns.append(Column("average of factorizations", BLEND))
            held.append(self.members @ self.blend)
            kriging.append(torch.zeros_like(judge.value))
        self.kernels: list[Kernel] = []
        self.variances: list[float] = []
        for source in self._bases():
            found = self._interpolated(source)
            if found is not None:
                base = next(c for c in self.columns if c.source == source)
                self.columns.append(Column(f"{base.name}, interpolated", source, len(self.kernels) - 1))
                held.append(found[0])
                kriging.append(found[1])
        self.held, self.kriging = torch.stack(held, 1), torch.stack(kriging, 1)
        self.weights, self._crossed = self._weighted()
        self.used = [k for k in range(len(self.columns)) if float(self.weights[:, k].max()) > 0]

    def _predicted(self, source: Source) -> Tensor:
        if source.snapshot is not None:
            return source.snapshot.predictions
        return torch.cat([m.at(s.held.index) for m, s in zip(source.members, self.splits, strict=True)])

    def _blended(self) -> Tensor:
        """(M,) weights of the factorizations in their average, all kinds of holes together, each by its part."""
        blend = torch.zeros(len(self.sources), dtype=torch.float64)
        own = [k for k, s in enumerate(self.sources) if s.is_factorization]
        if not own:
            return blend
        predictions = self.members[:, own]
        scale = torch.ones(len(self.judge.value), dtype=torch.float64)
        for place, kind in enumerate(self.judge.kinds):
            rows = self.judge.kind == kind
            best = (predictions[rows] - self.judge.value[rows].unsqueeze(1)).square().mean(0).min()
            scale[rows] = float((self.judge.part[place] / int(rows.sum()) / best.clamp_min(1e-300)).sqrt())
        scale /= scale.square().mean().sqrt()
        groups = len(torch.unique(self.judge.group))
        weights = stack(predictions * scale.unsqueeze(1), self.judge.value * scale, groups, self.settings.power)
        weights[weights < _NEGLIGIBLE] = 0.0
        blend[own] = weights / weights.sum()
        return blend

    # --- interpolation ------------------------------------------------------------------------------------------------

    def _bases(self) -> list[int]:
        """What interpolation is added to: the mean, the best of the effects, the factorizations."""
        if not self.problem.ordered:
            return []
        names = [s.name for s in self.sources]
        effects = [k for k, name in enumerate(names) if name in ("effects", "pairs")]
        found = [names.index("mean"), *sorted(effects, key=lambda k: self.judge.score(self.members[:, k]))[:1]]
        own = torch.nonzero(self.blend > 0).flatten().tolist()
        return found + ([BLEND] if len(own) > 1 else own)

    def _base_at(self, source: int, split: int, index: Tensor) -> Tensor:
        if source != BLEND:
            return self.sources[source].members[split].at(index)
        parts = [
            w * s.members[split].at(index) for w, s in zip(self.blend.tolist(), self.sources, strict=True) if w > 0
        ]
        return torch.stack(parts).sum(0)

    @cached_property
    def _near(self) -> list[Neighbours]:
        return [Neighbours(s.train.index, self.problem.dims, self.problem.positions) for s in self.splits]

    def _interpolated(self, source: int) -> tuple[Tensor, Tensor] | None:
        """Held-out predictions of a source with its residual interpolated, and the variance left; None if no better."""
        first = self.splits[0]
        residual = [s.train.value - self._base_at(source, k, s.train.index) for k, s in enumerate(self.splits)]
        base = torch.cat([self._base_at(source, k, s.held.index) for k, s in enumerate(self.splits)])
        generator = torch.Generator().manual_seed(0)
        size = len(first.held)
        rows = torch.randperm(size, generator=generator)[: self.settings.queries]
        dense = len(first.train) >= _DENSE * math.prod(self.problem.dims)
        modes = tuple(sorted(self.problem.ordered[: 2 if dense else 1]))
        count = self.settings.neighbours if len(modes) == 1 else self.settings.neighbours * 5 // 4
        cross, correlation = self._cross(first.train.index, residual[0]) if dense else (None, None)
        lengths = tuple(5.0 * step_of(self.problem.positions[m]) for m in modes)
        start = Kernel(modes, lengths, 0.05, False, cross, correlation)
        left = first.held.value - base[:size]
        kernel, ratio = choose_kernel(
            self._near[0], residual[0], first.held.index[rows], left[rows], first.kind[rows], start, count
        )
        if ratio > 0.995:
            return None
        means, variances = [], []
        variance = float(residual[0].square().mean())
        for near, split, r in zip(self._near, self.splits, residual, strict=True):
            found = krige(near, split.held.index, kernel, r, count)
            means.append(found[0])
            variances.append(found[1] * variance)
        self.kernels.append(kernel)
        self.variances.append(variance)
        self._count = count
        return base + torch.cat(means), torch.cat(variances)

    def _cross(self, index: Tensor, residual: Tensor) -> tuple[int | None, Tensor | None]:
        """The mode, not an ordered one, whose indices leave the most alike."""
        best: tuple[float, int, Tensor] | None = None
        for mode, d in enumerate(self.problem.dims):
            if mode in self.problem.ordered or not 1 < d <= _MOST_CROSS:
                continue
            correlation = cross_correlation(index, residual, self.problem.dims, mode)
            alike = float((correlation.square().sum() - d) / (d * (d - 1)))
            if alike > 0.05 and (best is None or alike > best[0]):
                best = alike, mode, correlation
        return (None, None) if best is None else best[1:]

    # --- weights ------------------------------------------------------------------------------------------------------

    def _weighted(self) -> tuple[Tensor, Tensor]:
        """(rows, C) by `row_of`: for the holes of a kind, of a variable where there is a mode of these; and (n, C) for
        what was held out, from the other half of it, so that the error stated is not that of weights which saw it.
        """
        judge, mode = self.judge, self.problem.units.mode
        rows, crossed = [], torch.zeros_like(self.held)
        for kind in range(len(self.problem.holes.names)):
            own = judge.kind == kind
            pooled = self._crossed_on(own, crossed, torch.ones_like(own))
            if mode is not None:
                for at in range(self.problem.dims[mode]):
                    rows.append(self._crossed_on(own & (judge.index[:, mode] == at), crossed, own, pooled))
            rows.append(pooled)
        return torch.stack(rows), crossed

    def _crossed_on(self, own: Tensor, crossed: Tensor, wider: Tensor, otherwise: Tensor | None = None) -> Tensor:
        """Weights by some of the held-out entries, of each half by the other one into `crossed`; by more, or others
        found before, where they are few.
        """
        least = 8 if otherwise is None else 50
        if int(own.sum()) < least:
            weights = self._weights_on(wider) if otherwise is None else otherwise
            crossed[own] = weights
            return weights
        weights, half = self._weights_on(own), self.judge.half
        for part in (0, 1):
            other = own & (half != part)
            crossed[own & (half == part)] = weights if 2 * int(other.sum()) < least else self._weights_on(other)
        return weights

    def _weights_on(self, own: Tensor) -> Tensor:
        """(C,) weights by some of the held-out entries; the mean or the effects alone where nothing is better."""
        miss = self.held[own] - self.judge.value[own].unsqueeze(1)
        groups = len(torch.unique(self.judge.group[own]))
        weights = stack(self.held[own], self.judge.value[own], groups, self.settings.power)
        weights[weights < _NEGLIGIBLE] = 0.0
        weights /= weights.sum()
        errors = miss.square().sum(0)
        simple = [k for k, s in enumerate(self.sources) if s.recipe is None]
        best = min(simple, key=lambda k: float(errors[k]), default=None)
        if best is not None and float(errors[best]) < float((miss @ weights).square().sum()):
            return torch.nn.functional.one_hot(torch.tensor(best), len(weights)).double()
        return weights

    @cached_property
    def averaged(self) -> Averaged:
        """Of what was held out."""
        return average(self._crossed, self.columns, self.held, self.kriging, self.members, self.blend)

    @cached_property
    def calibration(self) -> Calibration:
        """From what was held out."""
        found, judge = self.averaged, self.judge
        residual = judge.value - found.mean
        counts = self._counts(self.splits[0].train.index)
        kinds = len(self.problem.holes.names)
        part = torch.zeros(kinds, dtype=torch.float64)
        for kind in judge.kinds:  # a kind counts by its share of what is to be predicted
            part[kind] = (self.problem.holes.share[kind] + 1e-6) / int((judge.kind == kind).sum())
        weight = part[judge.kind]
        return calibrate(
            judge.index, residual, found.spread, found.kriging, judge.kind, kinds, judge.half, counts, weight
        )

    def _counts(self, index: Tensor) -> tuple[Tensor, ...]:
        counts = [torch.bincount(index[:, m], minlength=d) for m, d in enumerate(self.problem.dims)]
        return tuple(torch.cat([c, c.new_zeros(1)]).double() for c in counts)

    # --- result -------------------------------------------------------------------------------------------------------

    def finish(self) -> Completion:
        """What counts, fitted to all observations."""
        problem = self.problem
        errors = dict(zip(self.judge.kinds, self.judge.errors(self.averaged.mean).tolist(), strict=True))
        problem.holes.settle([errors.get(kind, 0.0) for kind in range(len(problem.holes.names))])
        used = self.used
        on_blend = any(self.columns[k].source == BLEND for k in used)
        needed = {self.columns[k].source for k in used} - {BLEND}
        if on_blend:
            needed |= set(torch.nonzero(self.blend > 0).flatten().tolist())
        kept = sorted(needed)
        members = tuple(self.sources[k].of_all() for k in kept)
        blend = self.blend[kept] if on_blend else torch.zeros(len(kept), dtype=torch.float64)
        if not on_blend and float(self.blend[kept].sum()) > 0:
            blend = self.blend[kept] / self.blend[kept].sum()
        place = {source: number for number, source in enumerate(kept)} | {BLEND: BLEND}
        kernels = sorted({self.columns[k].interpolation for k in used} - {-1})
        columns = tuple(
            Column(
                self.columns[k].name,
                place[self.columns[k].source],
                kernels.index(self.columns[k].interpolation) if self.columns[k].interpolation >= 0 else -1,
            )
            for k in used
        )
        interpolations = []
        values = torch.stack([m.at(problem.scaled.index) for m in members], 1) if kernels else torch.empty(0)
        for number in kernels:
            column = next(c for c in columns if c.interpolation == kernels.index(number))
            base = values @ blend if column.source == BLEND else values[:, column.source]
            residual = problem.scaled.value - base
            interpolations.append(Interpolation(self.kernels[number], residual, self.variances[number], self._count))
        calibration = self.calibration
        calibration = Calibration(
            calibration.coefficients, calibration.noise, self._counts(problem.scaled.index), calibration.quantiles
        )
        observed = problem.scaled.index if kernels else torch.empty(0, len(problem.dims), dtype=torch.int64)
        return Completion(
            problem.dims,
            problem.units,
            problem.holes,
            members,
            blend,
            columns,
            self.weights[:, used],
            tuple(interpolations),
            observed,
            problem.positions,
            calibration,
            problem.lowest,
            problem.highest,
            problem.integers,
        )
