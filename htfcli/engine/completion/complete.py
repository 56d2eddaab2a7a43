"""Tensor completion without a knob: from observed entries to a predictor of all others, and how far to trust it.

1. Values are brought to units of the fit; parts of them are held out, at random and like the holes (`preparation`).
2. The mean, shrunken effects and wide factorizations on several mode trees are fitted to the rest (`training`).
3. Where noise-free data lead to one, an exact solution is looked for, and is the only member (`exact`).
4. What is left is interpolated along ordered modes, and all are averaged for every kind of holes (`averaging`).
5. The members that count are fitted to all observations, and the deviation is calibrated on what was held out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion.averaging import Average, Source
from htfcli.engine.completion.exact import find_exact, polished
from htfcli.engine.completion.holes import Holes
from htfcli.engine.completion.links import IDENTITY, Link
from htfcli.engine.completion.members import Member
from htfcli.engine.completion.outliers import find_outliers
from htfcli.engine.completion.preparation import checked, make_splits, prepare
from htfcli.engine.completion.report import describe, ranks, warnings_of
from htfcli.engine.completion.result import Completion
from htfcli.engine.completion.settings import SETTINGS
from htfcli.engine.completion.splits import Judge, Sample, Split
from htfcli.engine.completion.training import Candidate, Search
from htfcli.engine.completion.trees import candidate_trees
from htfcli.engine.completion.units import find_units
from htfcli.engine.runtime.device import choose_device
from htfcli.engine.samples import Entries, unobserved

_LINKS = ("poisson", "logistic")  # losses on a scale of their own


def complete(
    entries: Entries,
    dims: Sequence[int],
    config: CompleteConfig | None = None,
    on_progress: Callable[[dict[str, Any]], None] = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    coordinates: Sequence[Tensor | None] | None = None,
    std: Tensor | None = None,
    wanted: Tensor | None = None,
    unordered: Sequence[int] = (),
) -> Completion:
    """Complete a tensor from some of its entries.

    Args:
        entries: what is known. dims: (d_0, ..., d_{N-1}). config: the defaults find everything from the data.
        on_progress: called with plain data after each model: stage, tree, width, ridge, train_error, held_out_error.
        should_stop: asked between models; True goes on with what there is.
        coordinates: per mode (d,) rising positions of an ordered mode, or None. std: (n,) known standard deviations of
            the entries. wanted: (m, N) entries to be predicted, whose kinds of holes count; None for all that are not
            observed. unordered: modes whose order means nothing.
    Raises:
        DataError: if nothing is observed, a value is not finite or not where it must be.
        ConfigError: if a tree or widths do not fit the data, or the device does not exist.
    """
    config = config or CompleteConfig()
    choose_device(config.place, config.threads)
    checked(entries, dims, config, std)
    limit = math.inf if config.seconds is None else time.monotonic() + config.seconds
    return _Completing(
        entries,
        dims,
        config,
        on_progress,
        lambda: should_stop() or time.monotonic() >= limit,
        coordinates,
        std,
        wanted,
        unordered,
    ).run()


class _Completing:
    """One call of `complete`."""

    def __init__(
        self,
        entries: Entries,
        dims: Sequence[int],
        config: CompleteConfig,
        on_progress: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
        coordinates: Sequence[Tensor | None] | None,
        std: Tensor | None,
        wanted: Tensor | None,
        unordered: Sequence[int],
    ) -> None:
        self._started = time.monotonic()
        self._config, self._on_progress, self._should_stop = config, on_progress, should_stop
        self._settings = SETTINGS.for_effort(config.effort)
        self._problem = prepare(entries, dims, config, self._settings, coordinates, std, wanted, unordered)
        self._steps: list[dict[str, Any]] = []
        self._warnings: list[str] = []
        self._outliers = 0
        self._many = len(entries) >= self._settings.many
        self._loss = "l2" if config.loss not in ("huber", "l1") else config.loss

    def run(self) -> Completion:
        problem = self._problem
        spread = float(problem.scaled.value.max() - problem.scaled.value.min())
        if len(problem.scaled) < self._settings.fewest or spread <= 1e-14:
            return self._constant()
        splits = make_splits(problem, self._config, self._settings)
        judge = Judge(splits, problem.holes.share)
        trees = candidate_trees(self._config.tree, problem.scaled, problem.dims, self._config.arity)
        sparse = self._many or math.prod(problem.dims) > self._settings.most_cells
        if sparse and self._config.tree == "auto" and len(problem.dims) <= 4:
            trees = trees[:1]  # the star: many or sparse entries share too little for the matrices of deeper trees
        search = Search(problem, splits, judge, trees, self._config, self._settings, self._report, self._should_stop)
        exact: list[Completion] = []

        def enough(candidate: Candidate) -> bool:
            exact.extend(self._exact(candidate, search, splits[0]))
            return bool(exact)

        candidates = search.run(self._loss, enough)
        if exact:
            return exact[0]
        if self._leave_out(search, candidates[0], splits[0]):
            return self.run()
        sources = self._effects(splits, splits[0].train.kinds) + [self._of(c, search) for c in candidates]
        linked = self._linked(search, splits, candidates[0])
        if linked and self._config.loss in _LINKS:  # asked for: only the mean stays beside them
            sources = [source for source in sources if source.name == "mean"]
        average = Average(problem, splits, judge, sources + linked, self._settings)
        return self._finished(average, judge, candidates)

    def _finished(self, average: Average, judge: Judge, candidates: Sequence[Candidate]) -> Completion:
        completion = average.finish()
        report = describe(completion, average, self._problem, judge)
        falling = bool(candidates) and candidates[0].still_falling
        completion.report = report | {
            "loss": self._loss_named(completion),
            "outliers": self._outliers,
            "effort": self._config.effort,
            "still_falling": falling,
            "warnings": self._warnings + warnings_of(report, falling),
            "seconds": round(time.monotonic() - self._started, 3),
            "steps": self._steps,
        }
        return completion

    def _loss_named(self, completion: Completion) -> str:
        """The loss that was asked for, or that the greatest part of the predictions comes from; a logarithmic scale
        without counts is none."""
        if self._config.loss != "auto":
            return self._config.loss
        part = {"poisson": 0.0, "logistic": 0.0, self._loss: 0.0}
        share = completion.weights.mean(0) @ torch.stack([c.mix for c in completion.columns])
        for member, weight in zip(completion.members, share.tolist(), strict=True):
            link = {"log": "poisson", "logit": "logistic"}[member.link.name] if member.link.noise else self._loss
            part[link] += weight
        return max(part, key=lambda k: part[k])

    def _leave_out(self, search: Search, best: Candidate, split: Split) -> bool:
        """Take outliers out of the data; whether there were any. Once."""
        if self._config.loss not in ("auto", "huber", "l1") or self._outliers or self._many:
            return False
        problem = self._problem
        far = find_outliers(best, split, problem.scaled, search.between, self._settings.first_sweeps)
        if far is None:
            return False
        self._outliers = int(far.sum())
        self._warnings.append(
            f"{self._outliers} of {len(far)} observations lie far from what the others say and are left out; "
            "with --loss l2 all count"
        )
        raw, kept = problem.raw.select(~far), problem.scaled.part(~far)
        units = find_units(raw, problem.dims, self._settings.least_ratio)
        shift, scale = units.of(raw.index)
        scaled = replace(kept, value=(raw.value - shift) / scale)
        self._problem = replace(problem, raw=raw, scaled=scaled, units=units)
        return True

    def _exact(self, candidate: Candidate, search: Search, split: Split) -> list[Completion]:
        """The one member of noise-free data, if a candidate leads to it; else none."""
        if self._loss != "l2" or self._config.loss in _LINKS or self._many:
            return []
        if any(empty["mode"] in self._problem.ordered for empty in unobserved(self._problem.raw, self._problem.dims)):
            return []  # they are left to their neighbours
        nearly = self._settings.nearly * search.size
        if candidate.recipe.centre and candidate.near_exact(nearly):
            candidate = search.start(replace(candidate.recipe, centre="", smooth=0.0))
        if not candidate.near_exact(nearly) or self._should_stop():
            return []
        begin = candidate.members[0].model
        assert begin is not None
        fixed = self._config.width is not None
        found = find_exact(candidate.recipe, begin, candidate.ridge, split, fixed, self._settings)
        if found is None:
            return []
        model = polished(found[0], self._problem.scaled)
        return [self._alone(Member(model, None), "exact factorization", split)]

    # --- members ------------------------------------------------------------------------------------------------------

    def _effects(self, splits: Sequence[Split], kinds: Sequence[str], link: Link = IDENTITY) -> list[Source]:
        """The mean and shrunken effects."""

        def member(sample: Sample, kind: str) -> Member:
            return Member(None, sample.effects(kind, link), link)

        return [
            Source(
                f"{kind}, {link.name}" if link else kind,
                [member(s.train, kind) for s in splits],
                partial(member, self._problem.scaled, kind),
            )
            for kind in kinds
        ]

    def _of(self, candidate: Candidate, search: Search) -> Source:
        """A factorization."""
        recipe = candidate.recipe
        name = f"{recipe.tree.to_nested()}, width {recipe.width}" + (f", {recipe.link.name}" if recipe.link else "")
        of_all = partial(search.refit, candidate, self._problem.scaled)
        return Source(name, candidate.members, of_all, candidate)

    def _linked(self, search: Search, splits: Sequence[Split], best: Candidate) -> list[Source]:
        """Members on the scale of counts or of two values, where the data are such."""
        link = self._link()
        if not link:
            return []
        kinds = [kind for kind in splits[0].train.kinds if kind != "mean"]
        sources = self._effects(splits, kinds, link)
        if self._config.loss == "auto":  # where effects are no better on this scale, nothing is
            plain = self._effects(splits, kinds)
            if self._best(sources, search.judge) >= self._best(plain, search.judge):
                return sources
        return [*sources, self._of(search.linked(link, best), search)]

    def _best(self, sources: Sequence[Source], judge: Judge) -> float:
        """The lowest score of effects."""
        return min(judge.score(judge.predictions(source.members)) for source in sources)

    def _link(self) -> Link:
        """The link that the kind of number suggests."""
        value, asked = self._problem.raw.value, self._config.loss
        if asked not in ("auto", "poisson", "logistic") or self._problem.units.mode is not None:
            return IDENTITY
        auto = asked == "auto" and not self._many
        least, most = float(value.min()), float(value.max())
        scale = float(self._problem.units.scale[0])
        if asked == "logistic" or (auto and bool(((value == least) | (value == most)).all())):
            return Link("logit", least / scale, (most - least) / scale, noise=1.0)
        whole = least >= 0 and bool((value == value.round()).all())
        mean = float(value.mean())
        top = math.log(4 * most / mean) if mean > 0 else 0.0  # beyond all that was seen, but no runaway
        if asked == "poisson" or (auto and whole and least < 10 and len(torch.unique(value)) > 10):
            return Link("log", 0.0, mean / scale, 1 / mean, top)
        # over less than a factor of ten a logarithm hardly bends; the end of a scale of ratings is no matter of factors
        if auto and least > 0 and most >= 10 * least and math.isinf(self._problem.highest):
            return Link("log", 0.0, mean / scale, top=top)
        return IDENTITY

    def _report(self, step: dict[str, Any]) -> None:
        self._steps.append(step)
        self._on_progress(step)

    # --- one member ---------------------------------------------------------------------------------------------------

    def _constant(self) -> Completion:
        """The mean, where there are too few observations for anything else, or all are equal."""
        problem = self._problem
        equal = float(problem.scaled.value.max() - problem.scaled.value.min()) <= 1e-14
        if not equal:
            got = len(problem.scaled)
            self._warnings.append(f"{got} observations are too few to find anything: every prediction is their mean")
        held = problem.scaled
        split = Split(held, held, torch.zeros(len(held), dtype=torch.int64), torch.arange(len(held)))
        return self._alone(Member(None, held.effects("mean")), "mean", split)

    def _alone(self, member: Member, name: str, split: Split) -> Completion:
        """One member of weight one."""
        problem = self._problem
        split = replace(split, kind=torch.zeros_like(split.kind))
        judge = Judge([split], [1.0])
        problem.holes, problem.ordered = Holes(problem.dims), ()
        average = Average(problem, [split], judge, [Source(name, [member], lambda: member)], self._settings)
        completion = self._finished(average, judge, [])
        if member.model is not None:
            completion.blend = torch.ones(1, dtype=torch.float64)
            completion.report |= ranks(completion.model) | {"strongest": 0, "warnings": list(self._warnings)}
            completion.report["members"][0] |= {"kind": "factorization", "tree": member.model.tree.to_nested()}
        return completion
