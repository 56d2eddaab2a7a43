"""The last choice: among the best models of a search, by several splits, the simplest that is as good as any.

A search on one split has looked at its held-out entries many times, and noise may have chosen. So the finalists are
fitted again on further splits, from where they are, along a few ridges.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from htfcli.engine.completion.search.rank_truncation import reduced
from htfcli.engine.completion.search.trial import Split, Trial, penalty
from htfcli.engine.completion.search.width_search import ROWS
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.least_squares.solver import make_solver

FINALISTS = 3
NEAR = 1.05  # a finalist's held-out error is under this times the best
_CUTS = (0.3, 0.6, 1.2, 2.5)  # singular values cut off, over the largest and the held-out error
_RATIOS = (0.316, 1.0, 3.16)  # ridges tried, over the one of the search
_ROWS = 2 * ROWS  # training entries for each parameter that finalists are judged by
_STEPS = 5
_FOLLOW_STEPS = 20
_EXACT = 1e-28  # mean squared residual that is as small as it gets
_FRESH_STEPS = 10  # on a split whose training data the model has not seen


@dataclass(frozen=True)
class Choice:
    """What was chosen, and how it does on every split.

    Args:
        trial: of the search. ridge: chosen for it. models: fitted to each split. errors: held-out error of each.
    """

    trial: Trial
    ridge: float
    models: tuple[Factorization, ...]
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        return statistics.fmean(self.errors)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the splits; None for one split."""
        return statistics.stdev(self.errors) if len(self.errors) > 1 else None


def choose(trials: list[Trial], splits: list[Split], on_trial: Callable[[Trial], None], fixed: bool = False) -> Choice:
    """Choose among the best trials of a search on the first split.

    Args:
        trials: of the search. splits: all of them, the search's own first. on_trial: told of every finalist.
        fixed: the widths were asked for, none are left out.
    Returns: the one of fewest parameters among those whose mean error is within one standard error of the lowest.
    """
    choices: list[Choice] = []

    def judge(trial: Trial) -> Choice:
        choices.append(choice := _judge(trial, splits))
        on_trial(replace(trial, ridge=choice.ridge, held_out_error=choice.error))
        return choice

    for trial in finalists(trials):
        judge(trial)
    best = min(choices, key=lambda c: c.error)
    for narrower in () if fixed else _narrower(best):
        choice = judge(narrower)
        if choice.error > best.error + _standard_error(choice, best):
            break
    best = min(choices, key=lambda c: c.error)
    good = [c for c in choices if c.error <= best.error + _standard_error(c, best)]
    chosen = min(good, key=lambda c: (len(c.trial.model.parameters), c.error))
    if all(len(split.train) <= _ROWS * len(chosen.trial.model.parameters) for split in splits):
        return chosen
    return follow(replace(chosen.trial, model=chosen.models[0]), chosen.ridge, splits)


def _narrower(choice: Choice) -> Iterator[Trial]:
    """The same model with fewer and fewer components: what noise has made of the data needs not all of them."""
    trial, model, generator = choice.trial, choice.models[0], torch.Generator().manual_seed(0)
    for share in _CUTS:
        cut = reduced(model, share * choice.error, generator)
        if cut is None or len(cut.parameters) >= len(model.parameters):
            continue
        model = cut
        yield replace(trial, start="reduced", width=max(model.widths.values()), model=model)


def follow(trial: Trial, ridge: float, splits: list[Split]) -> Choice:
    """The winner of a search on exact data, or on a part of many, fitted to all the training entries of every split."""
    models = []
    for split in splits:
        model = trial.model.to()
        make_solver(model, split.train, penalty(ridge, model, len(split.train)), split.loss, split.workers).run(
            _FOLLOW_STEPS, tolerance=_EXACT * len(split.train)
        )
        models.append(model)
    return Choice(trial, ridge, tuple(models), tuple(s.error(m) for s, m in zip(splits, models, strict=True)))


def finalists(trials: list[Trial]) -> list[Trial]:
    """The best trial of every tree and width, of those near the best of all; not more than `FINALISTS`."""
    ranked = sorted(trials, key=lambda t: t.held_out_error)
    found: dict[tuple[str, int], Trial] = {}
    for trial in ranked:
        if trial.held_out_error <= NEAR * ranked[0].held_out_error:
            found.setdefault((trial.tree, trial.width), trial)
    return list(found.values())[:FINALISTS]


def _standard_error(one: Choice, other: Choice) -> float:
    """Of the mean difference of their errors, split by split; half a percent where there is one split."""
    differences = [a - b for a, b in zip(one.errors, other.errors, strict=True)]
    if len(differences) < 2:
        return 0.005 * other.error
    return statistics.stdev(differences) / math.sqrt(len(differences))


def _judge(trial: Trial, splits: list[Split]) -> Choice:
    """Fit at rising ridges on every split; the ridge with the lowest mean error counts."""
    ridges = [trial.ridge * ratio for ratio in _RATIOS] if trial.ridge else [0.0]
    errors: list[list[float]] = [[] for _ in ridges]
    models: list[list[Factorization]] = [[] for _ in ridges]
    for number, whole in enumerate(splits):
        split = whole.part(_ROWS * len(trial.model.parameters))
        model, n = trial.model.to(), len(whole.train)
        solver = make_solver(model, split.train, penalty(ridges[0], model, n), split.loss, split.workers)
        solver.run(_FRESH_STEPS if number else _STEPS, patience=1)
        for at, ridge in enumerate(ridges):
            solver.set_ridge(penalty(ridge, model, n))
            solver.run(_STEPS, patience=1)
            errors[at].append(split.error(model))
            models[at].append(model.to())
    best = min(range(len(ridges)), key=lambda at: statistics.fmean(errors[at]))
    return Choice(trial, ridges[best], tuple(models[best]), tuple(errors[best]))
