"""One model fitted along falling ridges, judged by what is held out, and led to an exact solution where one is near.

The ridge acts as the small initialization does in the theory of incremental learning: components that the data do not
ask for stay at zero, so a model that is a little too wide does no harm, and finds the solution far more often than one
that is just wide enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from htfcli.engine.completion.search.initialization import grown, needed_widths, pruned
from htfcli.engine.completion.search.rank_truncation import reduced, rewritten
from htfcli.engine.completion.search.trial import EXACT, NOISE, Split, Trial, penalty
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares.solver import make_solver

RIDGES = (2e-4, 2e-5, 2e-6, 2e-7, 2e-8)  # see `penalty`; for values of root mean square one
_UP = 3.16
_FAR = 1.2  # held-out error over the best so far that no ridge makes up for
_NEARLY = 1e-2  # train error at which an exact solution is looked for
_STEPS = 12  # at each ridge
_FINISH_STEPS = 150
_ROUNDS = 6
_HELPS = 0.5  # a round that does not bring the train error under this times the last one is the last
_CUT = 0.5  # singular values cut off on the way to an exact solution, over the train error
_HOLDING = 2e-6  # ridge
_AS_GOOD_AS_EXACT = 1e-6  # held-out error that only a solution has, and steps in which the last digits are hard to get
_EXACT_TRAIN = 1e-12  # train error that is as small as it gets
_SLOW = 1e-3
_SATURATED = 0.99  # a smaller ridge that leaves the train error above this times the last one changes nothing
_MORE = 6  # further rounds at the last ridge, at most
_STILL_FALLING = 0.93  # while they bring the train error under this times the last one,
_NO_WAY = 0.8  # or under this where there is no noise and `_finish` is the way on


def fit_path(
    model: Factorization,
    split: Split,
    first: float = RIDGES[0],
    budget: float = math.inf,
    fixed: bool = False,
    trees: Sequence[ModeTree] = (),
    rival: float = math.inf,
) -> tuple[Trial, float]:
    """Fit along falling ridges, then along rising ones from the best of them: noise asks for more ridge than the way to
    a solution does, and the way back up keeps the solution found.

    Args:
        model: where to begin. split: what is fitted and what judges. first: the ridge to begin with, see `penalty`.
        budget: work after which to stop where it is. fixed: the widths stay, also of an exact solution with less.
        trees: on which an exact solution is looked for, beside the model's own. rival: the held-out error to beat; the
        way back up is not for a model that is far from it.
    Returns: the trial at the ridge with the smallest held-out error, and the work done (see `Sweeps.work`).
    """
    path = _Path(model, split, first, budget, fixed, () if fixed else trees)
    path.down()
    if path.exact is None and path.best.held_out_error < _FAR * rival:
        path.up()
    return path.exact or path.best, path.work


class _Path:
    """Fits of one model at one ridge after another."""

    def __init__(
        self,
        model: Factorization,
        split: Split,
        first: float,
        budget: float,
        fixed: bool,
        trees: Sequence[ModeTree],
    ) -> None:
        self.work, self._budget, self._fixed, self._settled = 0.0, budget, fixed, False
        self._trees = trees
        self._split, self._n = split, len(split.train.value)
        self._norm = math.sqrt(float(split.train.value.square().sum())) or 1.0
        self._ridges = [first] + [r for r in RIDGES if r < 0.9 * first]
        self.solver = make_solver(model, split.train, penalty(first, model, self._n), split.loss, split.workers)
        self.exact: Trial | None = None
        self.best = self._trial(first)

    def _trial(self, ridge: float) -> Trial:
        model = self.solver.model
        return Trial("", "", 0, model, ridge, math.sqrt(self.solver.loss) / self._norm, self._split.error(model))

    def _fit(self, ridge: float) -> Trial:
        self.solver.set_ridge(penalty(ridge, self.solver.model, self._n))
        before = self.solver.iterations
        self.solver.run(_STEPS, slow=_SLOW)
        steps = self.solver.iterations - before
        self._settled = steps < _STEPS  # it stopped by itself: further steps at this ridge would gain nothing
        self.work += steps * self.solver.work
        trial = self._trial(ridge)
        if trial.held_out_error < self.best.held_out_error:
            self.best = replace(trial, model=trial.model.to())
        return trial

    def down(self) -> None:
        """Falling ridges, as long as they change the fit and do not ruin it; a last one as long as it makes progress.

        A model whose error falls towards zero with the ridge is on its way to an exact solution.
        """
        self.best = replace(self.best, model=self.best.model.to())
        before, rising, nearly = math.inf, 0, _NEARLY
        for number, ridge in enumerate([*self._ridges, *[self._ridges[-1]] * _MORE]):
            trial = self._fit(ridge)
            error = trial.held_out_error
            if trial.train_error < nearly and error < 10 * _NEARLY:
                nearly = trial.train_error / 30
                self._finish(trial)
                if self.exact is not None:
                    return
            further = number >= len(self._ridges) - 1  # rounds at the last ridge
            done = self._settled and trial.train_error > (_STILL_FALLING if further else _SATURATED) * before
            if further and trial.train_error < NOISE:
                done = trial.train_error > _NO_WAY * before
            if done or error > 3.0 * max(1.0, self.best.held_out_error):
                return
            rising = 0 if trial.train_error < 0.5 * before else rising + (error > self.best.held_out_error)
            if rising == 2 or self.work > self._budget:
                return
            before = trial.train_error

    def up(self) -> None:
        """Rising ridges from the best one, until they have not helped twice."""
        ridge, in_vain = self.best.ridge, 0
        if not ridge or self.best.held_out_error > 0.95 or self.best.train_error < NOISE:
            return
        self.solver.model.parameters.copy_(self.best.model.parameters)
        self.solver.refresh()
        while in_vain < 2 and ridge < 1e-2 and self.work < self._budget:
            ridge *= _UP
            best = self.best
            self._fit(ridge)
            in_vain = in_vain + 1 if self.best is best else 0

    def _finish(self, trial: Trial) -> None:
        """Look for the exact solution that a model is close to: prune, solve, grow, solve, and again while that helps.

        What the model does not need is pruned, so that Newton's method converges quadratically; where that was too
        much, because the last components are weaker than the error so far, new ones are grown.
        """
        generator = torch.Generator().manual_seed(0)
        model, error = self._on_best_tree(trial.model, trial.train_error, generator), trial.train_error
        widest = (
            trial.model.widths
            if model.tree == trial.model.tree
            else dict.fromkeys(model.tree.interior, max(trial.model.widths.values()))
        )
        for _ in range(_ROUNDS):
            before = error
            narrow = reduced(model, _CUT * error, generator) or pruned(model, needed_widths(model, _CUT * error))
            reached = self._solved(narrow, slow=1e-2)
            if reached > _EXACT_TRAIN:
                widths = {v: min(w + 1, widest[v]) for v, w in narrow.widths.items()}
                narrow = grown(narrow, widths, generator, min(reached, 1.0) ** (1 / 3))
                reached = self._solved(narrow)
            if reached < error:
                model, error = narrow, reached
            if self._split.error(model) < EXACT or error > _HELPS * before or self.work > self._budget:
                break
        if self._split.error(model) < _AS_GOOD_AS_EXACT:
            model = self._held(model, generator)
        if self._fixed:
            model = grown(model, trial.model.widths, generator, 0.0)
        found = Trial("", "", 0, model, 0.0, error, self._split.error(model))
        if found.held_out_error < EXACT:
            self.exact = found
        elif found.held_out_error < self.best.held_out_error:
            self.best = found

    def _held(self, model: Factorization, generator: torch.Generator) -> Factorization:
        """An exact solution without what no observation holds: a component that a wide model has to spare may be zero
        at all of them, and anything elsewhere. A ridge takes it to zero, and leaves the rest nearly where it is.
        """
        held = model.to()
        error = self._solved(held, _HOLDING)
        for narrower in (reduced(held, _CUT * error, generator), held):
            if narrower is not None:
                self._solved(narrower)
                if self._split.error(narrower) < EXACT:
                    return narrower
        return model

    def _on_best_tree(self, model: Factorization, error: float, generator: torch.Generator) -> Factorization:
        """The model itself, or nearly the same tensor on a tree that suits it better."""
        found = rewritten(model, self._trees, _CUT * error, generator) if len(self._trees) > 1 else None
        return model if found is None or found.tree == model.tree else found

    def _solved(self, model: Factorization, ridge: float = 0.0, slow: float = _SLOW) -> float:
        """Solve from where a model is, at one ridge, until steps gain less than the share `slow`; its train error."""
        split = self._split
        solver = make_solver(model, split.train, penalty(ridge, model, self._n), split.loss, split.workers)
        solver.run(_FINISH_STEPS, tolerance=0.0 if ridge else (1e-14 * self._norm) ** 2, slow=slow)
        self.work += solver.iterations * solver.work
        return math.sqrt(solver.loss) / self._norm
