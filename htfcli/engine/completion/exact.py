"""The way to an exact solution, where the data have no noise and a wide factorization is near one.

What the model does not need is cut off (`rank_truncation`), so that Levenberg-Marquardt converges quadratically. Where
that leads to no solution, the wide model itself goes on without a ridge, as it has ways out that the narrow one lacks,
or, with too many parameters for that, components are grown beside those left; then its ranks are cut off again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from htfcli.engine.completion.members import Fit, Recipe
from htfcli.engine.completion.rank_truncation import reduced
from htfcli.engine.completion.settings import Settings
from htfcli.engine.completion.splits import Split
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.least_squares.solver import make_solver
from htfcli.engine.samples import Entries

EXACT = 1e-9  # held-out relative error at which there is nothing left to find
_WORK = 5e9  # multiplications of a step of the wide model, half a second, up to which it goes on by itself (C: 1e9)


def lowered(fit: Fit, size: float, ridge: float, sweeps: int) -> float:
    """The relative train error after some sweeps at falling ridges, as long as it falls with them."""
    error = fit.train_error / size
    while error > 1e-2 and ridge > 1e-8:
        ridge *= 0.1
        fit.run(sweeps, ridge, 0.0)
        before, error = error, fit.train_error / size
        if error > 0.85 * before:
            break
    return error


def find_exact(
    recipe: Recipe,
    begin: Factorization,
    ridge: float,
    split: Split,
    fixed: bool,
    settings: Settings,
) -> tuple[Factorization, float] | None:
    """An exact solution near a wide model, and its held-out relative error; None if there is none.

    Args:
        recipe, begin, ridge: the wide model, without effects below it. split: what is fitted and what judges.
        fixed: whether the widths must stay. settings: sweeps at each ridge, and what is taken for noise.
    """
    train, held = split.train, split.held
    size = float(train.value.square().mean().sqrt())
    fit = Fit(recipe, train, {}, begin)
    error = lowered(fit, size, ridge, settings.first_sweeps)
    model = fit.member().model
    assert model is not None

    seen = torch.ones(len(held), dtype=torch.bool)
    for mode in range(len(begin.dims)):  # an index without observations in the split is not determined
        seen &= torch.isin(held.index[:, mode], train.index[:, mode])
    if not bool(seen.any()):
        return None
    held = held.select(torch.nonzero(seen).flatten())
    earlier = float((begin.values(held.index) - held.value).norm() / held.value.norm().clamp_min(1e-300))

    def judged(found: Factorization) -> float:
        return float((found.values(held.index) - held.value).norm() / held.value.norm().clamp_min(1e-300))

    def solved(found: Factorization, slow: float = 1e-3, shrink: float = 0.0) -> float:
        solver = make_solver(found, train, shrink * len(train))
        solver.run(100, tolerance=0.0 if shrink else (1e-14 * size) ** 2 * len(train), slow=slow)
        return math.sqrt(solver.loss / len(train)) / size

    if judged(model) > max(
        5 * error, 0.5 * earlier
    ):  # near a solution it follows the train error (B: 3 times; noise: 10)
        return None
    generator = torch.Generator().manual_seed(0)
    widest, free = max(model.widths.values()), len(model.parameters)
    wide = error < settings.noisy and 2 * free <= len(train) and free**2 * len(train) <= _WORK
    if error > 1e-2 and not wide:
        return None
    for _ in range(6):  # every one halves the error at least
        before = error
        narrow = reduced(model, 0.5 * error, generator) or model.to()  # what is below the error is not known
        reached = solved(narrow, slow=1e-2)
        if reached > 1e-12 and wide:
            narrow, wide = model.to(), False
            reached = solved(narrow, slow=1e-2)
        elif reached > 1e-12:
            narrow = grown(
                narrow,
                {v: min(w + 1, widest) for v, w in narrow.widths.items()},
                generator,
                min(reached, 1.0) ** (1 / 3),
            )
            reached = solved(narrow)
        if reached < error:
            model, error = narrow, reached
        if judged(model) < EXACT or error > 0.5 * before:
            break
    if EXACT < judged(model) < 1e-6:  # components that no observation holds: a ridge takes them to zero
        held_back = model.to()
        off = solved(held_back, 1e-3, 2e-6)
        for narrower in (reduced(held_back, 0.5 * off, generator), held_back):
            if narrower is not None and solved(narrower) < 1e-10 and judged(narrower) < EXACT:
                model = narrower
                break
    if judged(model) > 1e-6:
        return None
    if fixed:
        model = grown(model, begin.widths, generator, 0.0)
    return model, judged(model)


def polished(model: Factorization, entries: Entries) -> Factorization:
    """The solution fitted to all observations."""
    model = model.to()
    solver = make_solver(model, entries)
    solver.run(25, tolerance=1e-28 * float(entries.value.square().sum()))
    return model


def grown(model: Factorization, widths: Mapping[int, int], generator: torch.Generator, small: float) -> Factorization:
    """A wider copy: the old components and new ones, small and random, which then rise if the data want them."""
    wider = type(model).blank(model.dims, model.tree, widths)
    wider.init_gaussian(1.0, generator)
    for new, old in zip(wider.node_weights, model.node_weights, strict=True):
        if new is not None and old is not None:
            new.mul_(small * float(old.square().mean().sqrt()))
            new[: old.shape[0], : old.shape[1]] = old
    return wider
