"""Which mode tree, width and start: tried from small to large on a part of the data, judged by the rest.

For one width after another, every tree and start still in the race is fitted along a path of falling ridges (see
`ridge_path`). Held-out entries choose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from htfcli.engine.completion.search.initialization import STARTS, grown
from htfcli.engine.completion.search.ridge_path import RIDGES, fit_path
from htfcli.engine.completion.search.trial import EXACT, NOISE, Split, Trial
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree

_LOW_RIDGE = 1e-5  # where a start around one, or one that has grown, begins: a stronger one makes components the same
WORK = 3e10  # of a search: about 30 s of one core; counted, not timed, so that a seed gives the same result everywhere
MOST_PARAMETERS = 0.6  # over the number of training data
ROWS = 12  # training entries for each parameter of a model: more change little, and cost
_LADDER = (3, 5, 7, 10, 14, 20, 28, 40, 56, 80)
_CLOSE = 1.05  # a tree grows on while its held-out error is under this times the best of the rung,
_BEST_TREES = 2  # the best ones
FITS = 0.3  # a held-out error that shows that something has been found on a tree
_MEAN_SHOWS = 0.1  # over the root mean square
_SIGNAL = 0.7  # one above this says nothing
_AGAIN = 3  # times that trees on which nothing was found are tried again,
_LOW_RUNGS = 3  # at so many widths
RUNG_GAIN = 0.99  # a rung that does not bring the error under this times the best so far is one in vain


@dataclass
class Race:
    """The search on one split.

    Args:
        split: what is fitted, what judges. dims: of the tensor. trees: candidates by name.
        widths: asked for by the user; None to climb the ladder. max_width: its top.
        budget: work after which the search ends with the best so far. rival: a held-out error to beat.
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
    budget: float = WORK
    rival: float = math.inf
    trials: list[Trial] = field(default_factory=list)
    work: float = 0.0

    @property
    def best(self) -> Trial | None:
        return min(self.trials, key=lambda t: t.held_out_error, default=None)

    def run(self, more_trees: Callable[[Trial], dict[str, ModeTree]]) -> Trial:
        """Climb the ladder until nothing is left to gain; `more_trees` proposes candidates after each rung.

        Trees that nothing was found on are then tried again from other random starts, at the lower widths; so is the
        best one where it is nearly exact.
        """
        self._climb(list(self._ladder()), more_trees)
        for _ in range(_AGAIN if self.widths is None else 0):
            again = [tree for tree in self.trees if not self._fits(tree)]
            if self._first().train_error < NOISE:
                again.append(self._first().tree)
            if self._over() or not again:
                break
            self._climb([w for w in self._ladder() if w > 1][:_LOW_RUNGS], lambda trial: {}, again)
        return self._first()

    def once(self, tree: str) -> Trial:
        """One tree from the start that suits the data."""
        self._climb(list(self._ladder()), lambda trial: {}, [tree])
        return self._first()

    def _climb(
        self,
        ladder: list[int],
        more_trees: Callable[[Trial], dict[str, ModeTree]],
        again: Iterable[str] = (),
    ) -> None:
        entrants = [(tree, self._likely) for tree in again] or [(t, start) for t in self.trees for start in STARTS]
        in_vain = 0
        for width in ladder:
            before = self.best
            rung: list[Trial] = []
            for tree, start in entrants if width != 1 else entrants[: len(STARTS)]:  # rank one is the same on all trees
                if _in_vain(tree, start, rung):
                    continue
                rung.append(self._try(tree, start, width))
                if self._over():
                    return
            for tree in dict.fromkeys(t.tree for t in rung if t.train_error < NOISE):  # from elsewhere it may be exact
                rung.append(self._try(tree, self._likely, width))
                if self._over():
                    return
            lowest = min(t.held_out_error for t in rung)
            if width != 1:
                entrants = self._still_in(rung)
            elif lowest < _SIGNAL:
                entrants.sort(key=lambda entrant: entrant[1] != self._first().start)
            for name, proposed in more_trees(self._first()).items():
                if proposed not in self.trees.values():
                    self.trees[name] = proposed
                    entrants += [(name, start) for start in dict.fromkeys(s for _, s in entrants) if start in STARTS]
            gained = before is None or lowest < RUNG_GAIN * before.held_out_error
            in_vain = 0 if gained or self._first().held_out_error > 0.95 else in_vain + 1
            if in_vain == (1 if lowest < FITS and self._first().train_error > NOISE else 3):
                return

    def _still_in(self, rung: list[Trial]) -> list[tuple[str, str]]:
        """Trees and starts for the next rung, the best first.

        Where something fits, the best of this rung grows, and is tried afresh; so are the trees on which nothing has
        been found yet: what fails there costs little. Where nothing fits, everything goes on.
        """
        ranked = sorted(rung, key=lambda t: t.held_out_error)
        fresh = [t for t in ranked if t.start == self._likely or (t.start in STARTS and t.held_out_error < _SIGNAL)]
        limit, rest = _SIGNAL, list[Trial]()
        if ranked[0].held_out_error < FITS:
            fresh, rest = fresh[:1], [t for t in fresh if not self._fits(t.tree)]
            limit = _CLOSE * ranked[0].held_out_error
        growing = list(dict.fromkeys(t.tree for t in ranked if t.held_out_error <= limit))[:_BEST_TREES]
        again = [(t.tree, t.start) for t in fresh] + [(tree, "grown") for tree in growing]
        return list(dict.fromkeys(again + [(t.tree, t.start) for t in rest]))

    @cached_property
    def _likely(self) -> str:
        """The start for data like these: products of factors around one have a mean that shows."""
        value = self.split.train.value
        mean, rms = float(value.mean()), float(value.square().mean().sqrt())
        return "around one" if abs(mean) > _MEAN_SHOWS * rms else "near zero"

    def _fits(self, tree: str) -> bool:
        return any(t.tree == tree and t.held_out_error < FITS for t in self.trials)

    def _ladder(self) -> Iterator[int]:
        """Widths from 1 to `max_width`, or until there are more parameters than data; one above 1 is always tried."""
        if self.widths is not None:
            yield 0
            return
        yield 1
        most = MOST_PARAMETERS * len(self.split.train)
        fitting = [w for w in _LADDER if min(self._parameters(t, w) for t in self.trees.values()) < most]
        yield from [w for w in fitting if w <= self.max_width] or [2][: self.max_width - 1]

    def _parameters(self, tree: ModeTree, width: int) -> int:
        return len(self._blank(tree, width).parameters)

    def _blank(self, tree: ModeTree, width: int) -> Factorization:
        widths = self.widths if width == 0 else width
        like = self.split.train.value
        return HierarchicalTensorFactorization(self.dims, widths, tree, dtype=like.dtype, device=like.device)

    def _over(self) -> bool:
        return self._first().held_out_error < EXACT or self.work > self.budget or self.should_stop()

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
        first = RIDGES[0] if start == "near zero" else _LOW_RIDGE
        part = self.split.part(ROWS * len(model.parameters))
        rival = min([self.rival, *(t.held_out_error for t in self.trials)])
        fixed, trees = self.widths is not None, list(self.trees.values())
        trial, work = fit_path(model, part, first, self.budget - self.work, fixed, trees, rival)
        tree = next(name for name, known in self.trees.items() if known == trial.model.tree)
        ridge = trial.ridge * len(part.train) / len(self.split.train)  # noise asks for less the more data there are
        width = width or max(model.widths.values())
        trial = replace(trial, tree=tree, start=start, width=width, ridge=ridge)
        self.work += work
        self.trials.append(trial)
        self.on_trial(trial)
        return trial


def _in_vain(tree: str, start: str, rung: list[Trial]) -> bool:
    """Whether a start is not worth trying: another showed nothing on its tree, while other trees show something."""
    of_tree = [t.held_out_error for t in rung if t.tree == tree]
    found = any(t.held_out_error < _SIGNAL for t in rung)
    return start in STARTS and bool(of_tree) and min(of_tree) >= _SIGNAL and found
