"""Which mode tree, width, start and ridge: tried from small to large on a part of the data, judged by the rest.

For one width after another, every tree and start still in the race is fitted along a path of falling ridges. The ridge
acts as the small initialization does in the theory of incremental learning: components that the data do not ask for
stay at zero, so a model that is a little too wide does no harm, and finds the solution far more often than one that is
just wide enough. Held-out entries choose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from htfcli.engine.tensors.factorization import Factorization
from htfcli.engine.tensors.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.tensors.mode_tree import ModeTree
from htfcli.engine.tensors.observations import Entries
from htfcli.engine.tensors.second_order import LevenbergMarquardt
from htfcli.engine.tensors.starts import STARTS, grown, needed_widths, pruned

EXACT = 1e-7  # held-out relative error at which there is nothing left to search
RIDGES = (3e-4, 3e-5, 3e-6, 3e-7, 3e-8)  # per observation, for values of root mean square one
_LOW_RIDGES = (1e-5, 1e-6, 1e-7, 1e-8)  # around one, a strong ridge makes all components the same
_STEPS = 12  # at each ridge
_SLOW = 3e-3
_SATURATED = 0.99  # a smaller ridge that leaves the train error above this times the last one changes nothing
_MORE = 8  # further rounds at the last ridge
_STILL_FALLING = 0.8  # while they bring the train error under this times the last one
_LADDER = (1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 56, 80)
_IN_RACE = 1.3  # a tree or a start stays while its held-out error is under this times the best of the rung
_IN_FIRST_RACE = 2.0  # at width 1, which says little of trees
_GAIN = 0.99  # a rung that does not bring the error under this times the best so far is one in vain


@dataclass
class Trial:
    """One model fitted and judged.

    Args:
        tree: its name in `trees`. start: key of `STARTS`, or grown. width: the rung, 0 for widths by node.
        model: the weights at the best ridge of its path. ridge: that ridge.
        train_error, held_out_error: relative, at that ridge.
    """

    tree: str
    start: str
    width: int
    model: Factorization
    ridge: float
    train_error: float
    held_out_error: float

    def step(self, stage: str) -> dict[str, Any]:
        """Plain data for progress and report."""
        return {
            "stage": stage,
            "tree": self.tree,
            "start": self.start,
            "width": self.width,
            "ridge": self.ridge,
            "train_error": self.train_error,
            "held_out_error": self.held_out_error,
        }


@dataclass
class Split:
    """Data that models are fitted to, and data that judges them; values in the units of the fit."""

    train: Entries
    held_out: Entries

    def error(self, model: Factorization) -> float:
        """Relative error on what was held out."""
        return relative_error(model.values(self.held_out.index) - self.held_out.value, self.held_out.value)


def relative_error(residual: Tensor, value: Tensor) -> float:
    norm = float(torch.linalg.vector_norm(value))
    return float(torch.linalg.vector_norm(residual)) / norm if norm > 0 else math.inf


@dataclass
class Race:
    """The search on one split.

    Args:
        split: what is fitted, what judges. dims: of the tensor. trees: candidates by name.
        widths: asked for by the user; None to climb the ladder. max_width: its top.
        generator: for the starts. on_trial: told of every trial. should_stop: asked between trials.
    """

    split: Split
    dims: tuple[int, ...]
    trees: dict[str, ModeTree]
    max_width: int
    generator: torch.Generator
    on_trial: Callable[[Trial], None]
    should_stop: Callable[[], bool]
    widths: Any = None
    trials: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial | None:
        return min(self.trials, key=lambda t: t.held_out_error, default=None)

    def run(self, more_trees: Callable[[Trial], dict[str, ModeTree]]) -> Trial:
        """Climb the ladder until nothing is left to gain; `more_trees` proposes candidates after each rung."""
        entrants = [(tree, start) for tree in self.trees for start in STARTS]
        in_vain = 0
        for width in self._ladder():
            before = self.best
            rung: list[Trial] = []
            for tree, start in entrants:
                trial = self._try(tree, start, width)
                rung.append(trial)
                if self._over():
                    return self._first()
            for tree in dict.fromkeys(tree for tree, _ in entrants):
                last = self._last(tree, before=width)
                if last is not None and last.held_out_error < 0.95:
                    rung.append(self._try(tree, "grown", width))
                    if self._over():
                        return self._first()
            lowest = min(t.held_out_error for t in rung)
            entrants = self._still_in(entrants, rung, _IN_RACE if width > 1 else _IN_FIRST_RACE)
            for name, proposed in more_trees(self._first()).items():
                if proposed not in self.trees.values():
                    self.trees[name] = proposed
                    entrants += [(name, start) for start in dict.fromkeys(s for _, s in entrants)]
            gained = before is None or lowest < _GAIN * before.held_out_error
            in_vain = 0 if gained or self._first().held_out_error > 0.95 else in_vain + 1
            if in_vain == 2:
                break
        return self._first()

    def _ladder(self) -> Iterator[int]:
        if self.widths is not None:
            yield 0
            return
        for width in _LADDER:
            smallest = min(self._parameters(tree, width) for tree in self.trees.values())
            if width > self.max_width or (width > 1 and smallest > len(self.split.train.value) / 2):
                return
            yield width

    def _parameters(self, tree: ModeTree, width: int) -> int:
        return len(self._blank(tree, width).parameters)

    def _blank(self, tree: ModeTree, width: int) -> Factorization:
        widths = self.widths if width == 0 else width
        return HierarchicalTensorFactorization(self.dims, widths, tree, device=self.split.train.value.device)

    def _still_in(self, entrants: list[tuple[str, str]], rung: list[Trial], limit: float) -> list[tuple[str, str]]:
        """Trees and starts that got within `limit` times the best of the rung; two trees at least, the best first."""
        lowest = min(t.held_out_error for t in rung)

        def reached(**of: str) -> float:
            return min(t.held_out_error for t in rung if all(getattr(t, k) == v for k, v in of.items()))

        starts = {start for _, start in entrants}
        leading = min(reached(start=start) for start in starts)
        starts = {start for start in starts if reached(start=start) <= limit * leading}
        trees = sorted(dict.fromkeys(tree for tree, _ in entrants), key=lambda tree: reached(tree=tree))
        trees = [tree for place, tree in enumerate(trees) if place < 2 or reached(tree=tree) <= limit * lowest]
        return [(tree, start) for tree in trees for start in sorted(starts) if (tree, start) in entrants]

    def _over(self) -> bool:
        return self._first().held_out_error < EXACT or self.should_stop()

    def _first(self) -> Trial:
        best = self.best
        assert best is not None
        return best

    def _last(self, tree: str, before: int) -> Trial | None:
        of_tree = [t for t in self.trials if t.tree == tree and t.width < before]
        return min(of_tree, key=lambda t: t.held_out_error, default=None)

    def _try(self, tree: str, start: str, width: int) -> Trial:
        blank = self._blank(self.trees[tree], width)
        if start == "grown":
            last = self._last(tree, before=width)
            assert last is not None
            model = grown(last.model, blank.widths, self.generator)
        else:
            STARTS[start](model := blank, self.split.train.value, self.generator)
        ridges = _LOW_RIDGES if start == "around one" else RIDGES
        trial = replace(fit_path(model, self.split, ridges), tree=tree, start=start, width=width)
        self.trials.append(trial)
        self.on_trial(trial)
        return trial


def fit_path(model: Factorization, split: Split, ridges: tuple[float, ...] = RIDGES) -> Trial:
    """Fit along falling ridges; the trial is that at the ridge with the smallest held-out error.

    A model whose error on the training data falls towards zero with the ridge is on its way to an exact solution: what
    it does not need is pruned, which lets Newton's method do the rest.
    """
    n, scale = len(split.train.value), float(split.train.value.square().sum())
    solver = LevenbergMarquardt(model, split.train, ridges[0] * n)
    best: Trial | None = None
    before = math.inf
    for number, ridge in enumerate([*ridges, *[ridges[-1]] * _MORE]):
        solver.set_ridge(ridge * n)
        solver.run(_STEPS, slow=_SLOW)
        error = split.error(model)
        trial = Trial("", "", 0, model, ridge, math.sqrt(solver.loss / scale), error)
        if best is None or error < best.held_out_error:
            best = replace(trial, model=model.to())
        if error > 3.0 * max(1.0, best.held_out_error):
            break
        if trial.train_error < 1e-2 and error < 0.1:
            exact = _finish(model, split, ridge, trial.train_error)
            if exact is not None:
                return exact
        falling = _SATURATED if number < len(ridges) - 1 else _STILL_FALLING
        if trial.train_error > falling * before or (number >= len(ridges) and error > best.held_out_error):
            break
        before = trial.train_error
    assert best is not None
    return best


def _finish(model: Factorization, split: Split, ridge: float, train_error: float) -> Trial | None:
    """The exact solution that a model is close to, or None if there is none nearby."""
    n, scale = len(split.train.value), float(split.train.value.square().sum())
    candidate = pruned(model, needed_widths(model, 10 * train_error))
    solver = LevenbergMarquardt(candidate, split.train, ridge * n)
    solver.run(12, slow=1e-2, patience=2)
    solver.set_ridge(0.0)
    solver.run(30, tolerance=1e-28 * scale, slow=1e-2)
    error = split.error(candidate)
    if error > EXACT:
        return None
    return Trial("", "", 0, candidate, 0.0, math.sqrt(solver.loss / scale), error)
