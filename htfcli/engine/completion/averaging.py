"""The average: predictions of all sources on what was held out, interpolated along ordered modes, weighted by kind
of holes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from htfcli.engine.completion.interpolation import Interpolation, Kernel, Neighbours, choose_kernel, cross_mode, krige
from htfcli.engine.completion.members import Member
from htfcli.engine.completion.preparation import Problem
from htfcli.engine.completion.result import Averaged, Column, Completion, average
from htfcli.engine.completion.settings import Settings
from htfcli.engine.completion.splits import Judge, Split
from htfcli.engine.completion.stacking import stack
from htfcli.engine.completion.training import Candidate
from htfcli.engine.completion.uncertainty import Calibration, calibrate

_NEGLIGIBLE = 0.01  # a weight under which a column is left out
_DENSE = 0.2  # share of cells observed, under which neighbours in two modes are far, and long to look for (kinetic)


@dataclass
class Source:
    """What may be averaged.

    Args:
        name: for the report. members: fitted on every split. of_all: fits it to all observations.
        candidate: of a factorization, None for effects.
    """

    name: str
    members: list[Member]
    of_all: Callable[[], Member]
    candidate: Candidate | None = None

    @property
    def is_factorization(self) -> bool:
        """Whether it is part of the blend."""
        return self.candidate is not None and not self.candidate.recipe.link


class Average:
    """Weights of sources, of their blend, and of what interpolation adds to some, on held-out entries.

    Attributes:
        members: (n, M) predictions of the sources of what was held out. blend: (M,) weights of the factorizations in
            their average. columns: what is weighted. held, kriging: (n, C) their predictions of what was held out, and
            the variances they leave open. weights: of them, see `Completion`.
    """

    def __init__(
        self, problem: Problem, splits: Sequence[Split], judge: Judge, sources: Sequence[Source], settings: Settings
    ) -> None:
        self.problem, self.splits, self.judge, self.settings = problem, splits, judge, settings
        self.sources = list(sources)
        self.members = torch.stack([self._predicted(s) for s in self.sources], 1)
        self.blend = self._blended()
        single = torch.eye(len(self.sources), dtype=torch.float64)
        self.columns = [Column(s.name, mix) for s, mix in zip(self.sources, single, strict=True)]
        if int((self.blend > 0).sum()) > 1:
            self.columns.append(Column("average of factorizations", self.blend))
        held = [self.members @ column.mix for column in self.columns]
        kriging = [torch.zeros_like(values) for values in held]
        for base in self._bases():
            found = self._interpolated(base)
            if found is not None:
                self.columns.append(found[0])
                held.append(found[1])
                kriging.append(found[2])
        self.held, self.kriging = torch.stack(held, 1), torch.stack(kriging, 1)
        self.weights, self._crossed = self._weighted()
        self.used = torch.nonzero(self.weights.max(0).values > 0).flatten().tolist()

    def _predicted(self, source: Source) -> Tensor:
        if source.candidate is not None:
            return source.candidate.predictions
        return self.judge.predictions(source.members)

    def _blended(self) -> Tensor:
        """(M,) weights of the factorizations in their average, all kinds of holes together, each by its part."""
        judge, blend = self.judge, torch.zeros(len(self.sources), dtype=torch.float64)
        own = [k for k, s in enumerate(self.sources) if s.is_factorization]
        if own:
            scale = torch.ones_like(judge.value)
            for kind, part in zip(judge.kinds, judge.part.tolist(), strict=True):
                rows = judge.kind == kind
                least = (self.members[rows][:, own] - judge.value[rows].unsqueeze(1)).square().sum(0).min()
                scale[rows] = (part / least.clamp_min(1e-300)).sqrt()
            scale /= scale.square().mean().sqrt()
            blend[own] = self._stacked(self.members[:, own] * scale.unsqueeze(1), judge.value * scale, judge.group)
        return blend

    def _stacked(self, predictions: Tensor, value: Tensor, group: Tensor) -> Tensor:
        weights = stack(predictions, value, len(torch.unique(group)), self.settings.power)
        weights = torch.where(weights < _NEGLIGIBLE, 0.0, weights)
        return weights / weights.sum()

    # --- interpolation ------------------------------------------------------------------------------------------------

    def _bases(self) -> list[Column]:
        """What interpolation is added to: the mean, the best of the effects, the factorizations."""
        if not self.problem.ordered:
            return []
        found = [c for c in self.columns if c.name == "mean"]
        effects = [c for c in self.columns if c.name in ("effects", "pairs")]
        found += sorted(effects, key=lambda c: self.judge.score(self.members @ c.mix))[:1]
        return found + [c for c in self.columns if float(self.blend.sum()) > 0 and torch.equal(c.mix, self.blend)]

    def _at(self, column: Column, split: int, index: Tensor) -> Tensor:
        used = torch.nonzero(column.mix).flatten().tolist()
        return torch.stack([self.sources[k].members[split].at(index) for k in used], 1) @ column.mix[used]

    @cached_property
    def _near(self) -> list[Neighbours]:
        return [Neighbours(s.train.index, self.problem.dims, self.problem.positions) for s in self.splits]

    def _interpolated(self, base: Column) -> tuple[Column, Tensor, Tensor] | None:
        """A column with its residual interpolated, held-out predictions, the variances left; None if no better."""
        first, near = self.splits[0], self._near
        residual = [s.train.value - self._at(base, k, s.train.index) for k, s in enumerate(self.splits)]
        held = self.members @ base.mix
        rows = torch.randperm(len(first.held), generator=torch.Generator().manual_seed(0))[: self.settings.queries]
        dense = len(first.train) >= _DENSE * math.prod(self.problem.dims)
        modes = tuple(sorted(self.problem.ordered[: 2 if dense else 1]))
        others = [m for m in range(len(self.problem.dims)) if m not in self.problem.ordered] if dense else []
        cross, correlation = cross_mode(first.train.index, residual[0], self.problem.dims, others)
        count, lengths = self.settings.neighbours, tuple(5 * near[0].step(m) for m in modes)
        start = Kernel(modes, lengths, 0.05, count, False, cross, correlation)
        left = (self.judge.value - held)[: len(first.held)][rows]
        kernel, ratio = choose_kernel(near[0], residual[0], first.held.index[rows], left, first.kind[rows], start)
        if ratio > 0.995:
            return None
        if kernel.cross is not None:  # which share the neighbours with the query's own index
            kernel = replace(kernel, count=count * 3 // 2)
        one = Interpolation(kernel, residual[0], float(residual[0].square().mean()))
        found = [krige(n, s.held.index, kernel, r) for n, s, r in zip(near, self.splits, residual, strict=True)]
        means, variances = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Column(f"{base.name}, interpolated", base.mix, one), held + means, variances * one.variance

    # --- weights ------------------------------------------------------------------------------------------------------

    def _weighted(self) -> tuple[Tensor, Tensor]:
        """The weights, and (n, C) for what was held out, from the other half of it, so that the error stated is not
        that of weights which saw it.
        """
        judge, mode = self.judge, self.problem.units.mode
        rows, crossed, few = [], torch.zeros_like(self.held), self.settings.fewest
        whole = self._weights_on(judge.half >= 0)
        for kind in range(len(self.problem.holes.names)):
            own = judge.kind == kind
            pooled = self._crossed_on(own, crossed, few, whole)
            if mode is not None:
                for at in range(self.problem.dims[mode]):
                    of_variable = own & (judge.index[:, mode] == at)
                    rows.append(self._crossed_on(of_variable, crossed, 6 * few, pooled))
            rows.append(pooled)
        return torch.stack(rows), crossed

    def _crossed_on(self, own: Tensor, crossed: Tensor, least: int, otherwise: Tensor) -> Tensor:
        """Weights by some of the held-out entries, of each half by the other one into `crossed`; others where they are
        few."""
        enough = int(own.sum()) >= least
        weights = self._weights_on(own) if enough else otherwise
        for half in (self.judge.half == 0, self.judge.half == 1):
            others = own & ~half
            crossed[own & half] = self._weights_on(others) if enough and 2 * int(others.sum()) >= least else weights
        return weights

    def _weights_on(self, own: Tensor) -> Tensor:
        """(C,) weights by some of the held-out entries; the mean or the effects alone where nothing is better."""
        held, value = self.held[own], self.judge.value[own]
        weights = self._stacked(held, value, self.judge.group[own])
        errors = (held - value.unsqueeze(1)).square().sum(0)
        simple = [k for k, s in enumerate(self.sources) if s.candidate is None]
        best = min(simple, key=lambda k: float(errors[k]), default=None)
        if best is not None and float(errors[best]) < float((held @ weights - value).square().sum()):
            return torch.nn.functional.one_hot(torch.tensor(best), len(weights)).double()
        return weights

    @cached_property
    def averaged(self) -> Averaged:
        """Of what was held out."""
        return average(self._crossed, self.columns, self.held, self.kriging, self.members)

    @cached_property
    def calibration(self) -> Calibration:
        """From what was held out."""
        found, judge = self.averaged, self.judge
        share, count = torch.tensor(self.problem.holes.share), torch.bincount(judge.kind)
        part = ((share[: len(count)] + 1e-6) / count)[
            judge.kind
        ]  # a kind counts by its share of what is to be predicted
        return calibrate(
            judge.index,
            judge.value - found.mean,
            found.spread,
            found.kriging,
            judge.kind,
            len(self.problem.holes.names),
            judge.half,
            self._counts(self.splits[0].train.index),
            part[judge.kind],
        )

    def _counts(self, index: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.bincount(index[:, m], minlength=d + 1).double() for m, d in enumerate(self.problem.dims))

    # --- result -------------------------------------------------------------------------------------------------------

    def finish(self) -> Completion:
        """What counts, fitted to all observations."""
        problem, observed = self.problem, self.problem.scaled
        errors = dict(zip(self.judge.kinds, self.judge.errors(self.averaged.mean).tolist(), strict=True))
        problem.holes.settle([errors.get(kind, 0.0) for kind in range(len(problem.holes.names))])
        used = [self.columns[k] for k in self.used]
        kept = torch.nonzero(torch.stack([c.mix for c in used]).sum(0)).flatten()
        members = tuple(self.sources[k].of_all() for k in kept.tolist())
        blend = self.blend[kept]
        columns = [replace(c, mix=c.mix[kept]) for c in used]
        interpolated = any(c.interpolation is not None for c in columns)
        # in the proportion of the split: what many observations leave and what few do look alike where all are many
        part = len(self.splits[0].train) / len(observed)
        if interpolated:
            values = torch.stack([m.at(observed.index) for m in members], 1)
            for k, c in enumerate(columns):
                if c.interpolation is not None:
                    one = replace(c.interpolation, residual=observed.value - values @ c.mix)
                    columns[k] = replace(c, interpolation=one)
        return Completion(
            problem.dims,
            problem.units,
            problem.holes,
            members,
            blend / blend.sum().clamp_min(1e-300),
            tuple(columns),
            self.weights[:, self.used],
            observed.index if interpolated else observed.index[:0],
            problem.positions,
            replace(self.calibration, counts=tuple(part * c for c in self._counts(observed.index))),
            problem.lowest,
            problem.highest,
            problem.integers,
        )
