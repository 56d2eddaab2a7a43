"""Which wide factorizations become members: centring, smoothing, trees, ridges and widths, judged by held-out
entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion.effects import Effects
from htfcli.engine.completion.members import Candidate, Judge, Recipe, Split, advance, begin, walk, wider
from htfcli.engine.completion.pairing import tree_of_values
from htfcli.engine.completion.preparation import Problem
from htfcli.engine.completion.settings import Settings
from htfcli.engine.completion.smoothing import coupling
from htfcli.engine.completion.spectral_start import start_in_spans
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.samples import Entries

Report = Callable[[dict[str, Any]], None]
_HIGH_ORDER = 6  # modes from which the products of centred weights are nearly always nearly zero


def couplings(problem: Problem) -> dict[int, Tensor]:
    """Per ordered mode the weights of the penalty between its neighbours."""
    found = {}
    for mode in problem.ordered:
        position = problem.positions[mode]
        if position is None:
            position = torch.arange(problem.dims[mode], dtype=torch.float64)
        found[mode] = coupling(position.double())
    return found


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
        self.between: Mapping[int, Tensor] = couplings(problem)
        self.dtype = torch.float32 if len(problem.scaled) > settings.single else torch.float64
        self._trees, self._config = list(trees), config
        self._report, self._should_stop = report, should_stop
        self.size = float(problem.scaled.value.square().mean().sqrt())
        self.candidates: list[Candidate] = []

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
                self._walk(candidate)
                if enough(candidate):
                    return [candidate]
        near.sort(key=lambda c: c.score)
        few = len(self.problem.scaled) < self.settings.cheap
        nearly = (self.settings.nearly if few else self.settings.noisy) * self.size
        for restart in range(1, 1 + self.settings.restarts):
            if self._should_stop() or near[0].score > nearly:
                break
            candidate = self.start(replace(near[0].recipe, seed=100 * restart))
            self._walk(candidate)
            if enough(candidate):
                return [candidate]
            near = sorted([*near, candidate], key=lambda c: c.score)
        if self._config.width is None:
            self._widen(near)
        near.sort(key=lambda c: c.score)
        self.candidates = near
        return near

    def linked(self, link: str, recipe: Recipe, centre: str, low: float, span: float) -> Candidate:
        """The same on the scale of a link."""
        candidate = self.start(replace(recipe, link=link, centre=centre, loss="l2", low=low, span=span))
        self._walk(candidate)
        return candidate

    def _variants(self, loss: str) -> Candidate:
        """The first tree, with and without effects below and smoothing along ordered modes."""
        width = self._config.width or self._width(self._trees[0])
        plain = Recipe(self._trees[0], width, loss=loss, device=self._config.place)
        recipes = [plain]
        effects = torch.cat([s.effects["effects"].at(s.held.index) for s in self.splits])
        zero = self.judge.score(torch.zeros_like(effects))
        if self.judge.score(effects) < self.settings.least_effects * zero:
            recipes.append(replace(plain, centre="effects"))
        if len(self.problem.dims) > _HIGH_ORDER:
            recipes.append(replace(plain, around_one=True))
        best = min((self.start(r) for r in recipes), key=lambda c: c.score)
        if len(self.problem.dims) > _HIGH_ORDER:  # where about half of all starts end in a swamp (C)
            for restart in range(1, 1 + self.settings.restarts):
                if best.score < self.settings.nearly * self.size or self._should_stop():
                    break
                best = min(best, self.start(replace(best.recipe, seed=100 * restart)), key=lambda c: c.score)
        if self.problem.ordered and not self._should_stop():
            smooth = self.start(replace(best.recipe, smooth=self.settings.smooth))
            best = min(best, smooth, key=lambda c: c.score)
        return best

    def _refined(self, first: Candidate) -> list[Candidate]:
        """The first tree's fit shows a better tree, and that tree's fit a better one yet, until one is no better."""
        better, best = list[Candidate](), first
        auto = self._config.tree == "auto" and len(self.problem.dims) > _HIGH_ORDER
        while auto and best.score < self.settings.nearly * self.size and not self._should_stop():
            assert best.best is not None
            tree = tree_of_values(best.best.members[0].at, self.problem.dims, best.score / self.size)
            if tree == best.recipe.tree:
                break
            candidate = self.start(replace(best.recipe, tree=tree))
            if candidate.score >= best.score:
                break
            better.append(candidate)
            best = candidate
        return better

    def _width(self, tree: ModeTree) -> int:
        """The usual one; less where a star has several weights for each observation, and where many modes make many
        matrices."""
        most = max(2, 2 * len(self.problem.scaled) // max(sum(self.problem.dims), 1))
        width = self.settings.width // (2 if len(self.problem.dims) > _HIGH_ORDER else 1)
        return min(width, most)

    def start(self, recipe: Recipe) -> Candidate:
        """A recipe after its first sweeps."""
        dims = self.problem.dims
        many = math.prod(dims) > self.settings.most_cells and 2 < len(dims) <= _HIGH_ORDER  # else no two are on a line
        sparse = many and isinstance(recipe.width, int)

        def spectral(split: Split, effects: Effects | None) -> Factorization:
            value = split.train.value if effects is None else split.train.value - effects.at(split.train.index)
            generator = torch.Generator().manual_seed(recipe.seed)
            model = HierarchicalTensorFactorization(dims, recipe.width, recipe.tree)
            model.init_gaussian(model.gaussian_std(1.0), generator)
            return start_in_spans(model, Entries(split.train.index, value), generator)

        candidate = begin(recipe, self.splits, dims, self.between, self.dtype, spectral if sparse else None)
        self._advance(candidate, self.settings.first_ridge, self.settings.first_sweeps)
        return candidate

    def _advance(self, candidate: Candidate, ridge: float, sweeps: int) -> None:
        advance(candidate, self.splits, self.judge, ridge, sweeps, self.settings.slow)
        self._say(candidate)

    def _walk(self, candidate: Candidate) -> None:
        walk(candidate, self.splits, self.judge, self.settings)
        self._say(candidate)

    def _widen(self, near: list[Candidate]) -> None:
        """The best tree with more components, as long as that helps: it has used up those that it had."""
        best = near[0]
        for _ in range(self.settings.widenings):
            assert best.best is not None and isinstance(best.recipe.width, int)
            exact = best.best.train_error < self.settings.noisy * self.size
            few = 2 * best.recipe.width * sum(self.problem.dims) > len(self.problem.scaled)
            if best.best.ridge > self.settings.first_ridge or exact or few or self._should_stop():
                return
            candidate = self.start(wider(best.recipe, 1.5))
            self._walk(candidate)
            if candidate.score < best.score:
                near.append(candidate)
            if candidate.score > 0.99 * best.score:
                return
            best = candidate

    def _say(self, candidate: Candidate) -> None:
        assert candidate.best is not None
        width = candidate.recipe.width
        self._report(
            {
                "stage": candidate.recipe.link if candidate.recipe.link != "identity" else "factorization",
                "tree": str(candidate.recipe.tree.to_nested()),
                "width": width
                if isinstance(width, int)
                else max(width.values() if isinstance(width, Mapping) else width),
                "ridge": candidate.best.ridge,
                "train_error": candidate.best.train_error,
                "held_out_error": candidate.score,
            }
        )
