"""Which wide factorizations become members: centring, smoothing, trees, ridges and widths, judged by held-out
entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion.links import Link
from htfcli.engine.completion.members import Fit, Member, Recipe
from htfcli.engine.completion.pairing import tree_of_values
from htfcli.engine.completion.preparation import Problem
from htfcli.engine.completion.settings import Settings
from htfcli.engine.completion.smoothing import coupling
from htfcli.engine.completion.splits import Judge, Sample, Split
from htfcli.engine.completion.trees import MANY_MODES
from htfcli.engine.factorizations.mode_tree import ModeTree

Report = Callable[[dict[str, Any]], None]


@dataclass
class Candidate:
    """A recipe on every split, as it was at the ridge with the best score.

    Args:
        fits: one for each split, at the last ridge. members, predictions: of each split, of what was held out.
        still_falling: whether the error still fell at the last ridge of the path.
    """

    recipe: Recipe
    fits: list[Fit]
    ridge: float = math.nan
    members: list[Member] = field(default_factory=list)
    predictions: Tensor = field(default_factory=lambda: torch.empty(0))
    score: float = math.inf
    train_error: float = math.inf
    still_falling: bool = False

    def near_exact(self, error: float) -> bool:
        """Whether the train error is under this, and what is held out follows it."""
        return self.train_error < error and self.score < 3 * error


class Search:
    """Candidates on all splits.

    Args:
        problem, splits, judge: what is fitted and what judges. trees: candidates. config, settings: how.
        report: called with plain data after every candidate. should_stop: asked between them.
    """

    def __init__(
        self,
        problem: Problem,
        splits: Sequence[Split],
        judge: Judge,
        trees: Sequence[ModeTree],
        config: CompleteConfig,
        settings: Settings,
        report: Report,
        should_stop: Callable[[], bool],
    ) -> None:
        self.problem, self.splits, self.judge, self.settings = problem, splits, judge, settings
        self.between = {m: coupling(problem.positions[m], problem.dims[m]) for m in problem.ordered}
        self.dtype = torch.float32 if len(problem.scaled) >= settings.many else torch.float64
        self._trees, self._config = list(trees), config
        self._report, self._should_stop = report, should_stop
        self.size = float(problem.scaled.value.square().mean().sqrt())
        self._high = len(problem.dims) > MANY_MODES

    def run(self, loss: str, enough: Callable[[Candidate], bool]) -> list[Candidate]:
        """All that is worth averaging, the best first; those so far as soon as one is `enough`."""
        first = self._variants(loss)
        others = self._refined(first)
        known = [c.recipe.tree for c in others]
        for k, tree in enumerate(self._trees[1:2] if others else self._trees[1:], 1):
            if tree not in known:  # after better ones only the balanced one: each takes a tenth of the time (G)
                others.append(self.start(replace(first.recipe, tree=tree, seed=k)))
        found = sorted([first, *others], key=lambda c: c.score)
        near = [c for c in found if c.score <= self.settings.near * found[0].score][: self.settings.most_members]
        for candidate in near:
            if not self._should_stop():
                self.walk(candidate)
                if enough(candidate):
                    return [candidate]
        near.sort(key=lambda c: c.score)
        few = len(self.problem.scaled) < self.settings.few
        nearly = (self.settings.nearly if few else self.settings.noisy) * self.size
        for number in range(1, 1 + self.settings.restarts):
            if near[0].score > nearly or self._should_stop():
                break
            again = self.start(replace(near[0].recipe, seed=100 * number))
            self.walk(again)
            if enough(again):
                return [again]
            near = sorted([*near, again], key=lambda c: c.score)
        if self._config.width is None and len(self.problem.scaled) < self.settings.many:
            self._widen(near)
        return sorted(near, key=lambda c: c.score)

    def linked(self, link: Link, like: Candidate) -> Candidate:
        """The best recipe on the scale of a link; it goes on along its path only where it is near."""
        candidate = self.start(replace(like.recipe, link=link, centre="effects", loss="l2"))
        if self._config.loss != "auto" or candidate.score < self.settings.near * like.score:
            self.walk(candidate)
        return candidate

    def _variants(self, loss: str) -> Candidate:
        """The first tree, with and without effects below and smoothing along ordered modes."""
        width = self._config.width or self._width()
        sparse = math.prod(self.problem.dims) > self.settings.most_cells and 2 < len(self.problem.dims) <= MANY_MODES
        plain = Recipe(self._trees[0], width, loss=loss, device=self._config.place, in_spans=sparse)
        recipes = [plain]
        effects = self.judge.predictions([s.train.effects("effects") for s in self.splits])
        zero = self.judge.score(torch.zeros_like(effects))
        if self.judge.score(effects) < self.settings.least_effects * zero:
            recipes.append(replace(plain, centre="effects"))
        if self._high:
            recipes.append(replace(plain, around_one=True))
        best = min((self.start(r) for r in recipes), key=lambda c: c.score)
        restarts = self.settings.restarts if self._high else 0  # of many modes, half of all starts end in a swamp (C)
        for number in range(1, 1 + restarts):
            if best.score < self.settings.nearly * self.size or self._should_stop():
                break
            best = min(best, self.start(replace(best.recipe, seed=100 * number)), key=lambda c: c.score)
        if self.problem.ordered and not self._should_stop():
            best = min(best, self.start(replace(best.recipe, smooth=self.settings.smooth)), key=lambda c: c.score)
        return best

    def _refined(self, first: Candidate) -> list[Candidate]:
        """The first tree's fit shows a better tree, and that tree's fit a better one yet, until one is no better."""
        better, best = list[Candidate](), first
        auto = self._config.tree == "auto" and self._high
        while auto and best.score < self.settings.nearly * self.size and not self._should_stop():
            tree = tree_of_values(best.members[0].at, self.problem.dims, best.score / self.size)
            if tree == best.recipe.tree:
                break
            candidate = self.start(replace(best.recipe, tree=tree))
            if candidate.score >= best.score:
                break
            better.append(candidate)
            best = candidate
        return better

    def _width(self) -> int:
        """The usual one; less where a star has several weights for each observation, and where many modes make many
        matrices."""
        most = max(2, 2 * len(self.problem.scaled) // max(sum(self.problem.dims), 1))
        return min(self.settings.width // (2 if self._high else 1), most)

    # --- one candidate ------------------------------------------------------------------------------------------------

    def start(self, recipe: Recipe) -> Candidate:
        """A recipe on every split after its first sweeps."""
        fits = [Fit(recipe, split.train, self.between, dtype=self.dtype) for split in self.splits]
        candidate = Candidate(recipe, fits)
        self._advance(candidate, self.settings.first_ridge, self.settings.first_sweeps)
        self._say(candidate)
        return candidate

    def _advance(self, candidate: Candidate, ridge: float, sweeps: int) -> bool:
        """Some sweeps at a ridge on every split, kept where they are better; whether they are clearly better."""
        for fit in candidate.fits:
            fit.run(sweeps, ridge, self.settings.slow)
        members = [fit.member() for fit in candidate.fits]
        predictions = self.judge.predictions(members)
        score, before = self.judge.score(predictions), candidate.score
        if score < before:
            candidate.ridge, candidate.members, candidate.predictions = ridge, members, predictions
            candidate.score, candidate.train_error = score, candidate.fits[0].train_error
        return score < 0.998 * before

    def walk(self, candidate: Candidate) -> None:
        """Along rising ridges from the first one while they help, or else along falling ones."""
        first = candidate.ridge
        self._along(candidate, self.settings.ridge_step)
        if candidate.ridge == first:
            for fit, member in zip(candidate.fits, candidate.members, strict=True):
                assert member.model is not None
                fit.restore(member.model)
            candidate.still_falling = self._along(candidate, self.settings.ridge_step**-2)
        self._say(candidate)

    def _along(self, candidate: Candidate, factor: float) -> bool:
        """One ridge after another from the best one, while that helps; whether the last one still did."""
        ridge, sweeps = candidate.ridge * factor, self.settings.sweeps * (2 if factor < 1 else 1)
        while ridge > self.settings.least_ridge:
            if not self._advance(candidate, ridge, sweeps):
                return False
            ridge *= factor
        return True

    def refit(self, candidate: Candidate, sample: Sample) -> Member:
        """The recipe at its best ridge on another sample, from where it was on the first split."""
        fit = Fit(candidate.recipe, sample, self.between, candidate.members[0].model, self.dtype)
        fit.run(self.settings.sweeps, candidate.ridge, self.settings.slow)
        return fit.member()

    def _widen(self, near: list[Candidate]) -> None:
        """The best tree with more components, as long as that helps: it has used up those that it had."""
        best = near[0]
        for _ in range(self.settings.widenings):
            width = best.recipe.width
            assert isinstance(width, int)
            exact = best.train_error < self.settings.noisy * self.size
            few = 2 * width * sum(self.problem.dims) > len(self.problem.scaled)
            if best.ridge > self.settings.first_ridge or exact or few or self._should_stop():
                return
            candidate = self.start(replace(best.recipe, width=round(1.5 * width)))
            self.walk(candidate)
            if candidate.score < best.score:
                near.append(candidate)
            if candidate.score > 0.99 * best.score:
                return
            best = candidate

    def _say(self, candidate: Candidate) -> None:
        width = candidate.recipe.width
        widths = [width] if isinstance(width, int) else width.values() if isinstance(width, Mapping) else width
        self._report(
            {
                "stage": candidate.recipe.link.name if candidate.recipe.link else "factorization",
                "tree": str(candidate.recipe.tree.to_nested()),
                "width": max(widths),
                "ridge": candidate.ridge,
                "train_error": candidate.train_error,
                "held_out_error": candidate.score,
            }
        )
