"""Tensor completion without a knob: from observed entries to a predictor of all others, and how far to trust it.

1. Values are centred (none, their mean or effects of the modes, whichever helps) and brought to root mean square one.
2. A search on nine tenths of the data finds mode tree, width, start and ridge (`search`), the last tenth judges.
3. Where noise is left, several splits choose among the finalists (`choice`).
4. The chosen model is fitted to all observations, and kept only if that did not make it wild (`trust`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion.diagnostics import (
    doubts_of_data,
    doubts_of_error,
    has_heavy_tails,
    is_wild,
    outliers,
    unobserved,
    wildness,
)
from htfcli.engine.completion.model_selection import NEAR, Choice, choose, follow
from htfcli.engine.completion.predictor import Completion, Predictor
from htfcli.engine.completion.report import baseline, facts
from htfcli.engine.completion.search.candidate_trees import candidate_trees, paired_tree, text_of
from htfcli.engine.completion.search.large_scale import is_large, search_large
from htfcli.engine.completion.search.trial import EXACT, NOISE, Split, Trial, penalty, size_of
from htfcli.engine.completion.search.width_search import FITS, WORK, Race
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares.solver import make_solver
from htfcli.engine.observations.centring import GAIN, SMALL, WORTH, Effects, estimate_effects
from htfcli.engine.observations.observations import split
from htfcli.engine.runtime.device import choose_device
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.samples import Entries
from htfcli.errors import DataError

_SPLITS = ((5_000, 3), (20_000, 2))  # splits that choose, up to so many observations; one where there are more
_MOST_SEARCHED = 20_000  # observations that a search is given, or more where the mode dimensions are large:
_PER_INDEX = 40  # this many for each index of each mode
_MOST_HELD_OUT = 50_000  # more do not make the error better known
_LARGE = 2_000_000  # observations from which float32 is used, and the model of the search is fitted to them once
_FEWEST = 8  # observations under which nothing can be held out: the mean is all that can be said
_CENTRE_WORK = 0.1  # of a search's, for each way of centring
_AS_GOOD = 1.03  # held-out error of a robust fit over that of the best, as it counts it itself, up to which it is kept
_REFIT_STEPS = 40
_LEAST = 1e-12  # over the rms of the data: what centring leaves is taken for no smaller


def complete(
    entries: Entries,
    dims: tuple[int, ...],
    config: CompleteConfig | None = None,
    on_progress: Callable[[dict[str, Any]], None] = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
    workers: Workers | None = None,
) -> Completion:
    """Complete a tensor from some of its entries.

    Args:
        entries: what is known. dims: (d_0, ..., d_{N-1}). config: the defaults find everything from the data.
        on_progress: called with plain data after each model tried: stage, tree, width, train_error, held_out_error.
        should_stop: asked between models; True ends the search with the best so far.
        workers: the processes that share the work; each makes the same call.
    Raises:
        DataError: if nothing is observed, values are not finite, or below zero where they must not be.
        ConfigError: if a tree or widths do not fit the data.
    """
    return _Completing(entries, dims, config or CompleteConfig(), on_progress, should_stop, workers or Workers()).run()


class _Completing:
    """One call of `complete`: the data in the units of the fit, and what has been found so far."""

    def __init__(
        self,
        entries: Entries,
        dims: tuple[int, ...],
        config: CompleteConfig,
        on_progress: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
        workers: Workers,
    ) -> None:
        if len(entries) == 0:
            raise DataError("no entry is observed: there is nothing to complete from")
        if not bool(torch.isfinite(entries.value).all()):
            raise DataError("an observed value is NaN or infinite")
        if config.nonnegative and float(entries.value.min()) < 0:
            got = float(entries.value.min())
            raise DataError(
                "the data are to be non-negative and are not", got=got, next_step="Leave out --nonnegative."
            )
        least, most = entries.index.amin(0).tolist(), entries.index.amax(0).tolist()
        if len(most) != len(dims) or min(least) < 0 or any(at >= d for at, d in zip(most, dims, strict=True)):
            raise DataError(
                "an index is out of range", got=f"from {least} to {most}", allowed=f"0 to {[d - 1 for d in dims]}"
            )
        self._entries, self._dims, self._config = entries, dims, config
        self._workers = workers
        self._loss = "l2" if config.loss == "auto" else config.loss
        self._doubts: list[str] = []
        self._on_progress, self._steps = on_progress, list[dict[str, Any]]()
        self._started = time.monotonic()
        limit = math.inf if config.seconds is None else self._started + config.seconds
        self._should_stop = lambda: workers.any(should_stop() or time.monotonic() >= limit)
        self._device = choose_device(config.device, config.threads)
        largest = float(entries.value.abs().max()) or 1.0
        self._unit = largest * float((entries.value / largest).square().mean().sqrt()) or 1.0
        self._scaled = Entries(entries.index, entries.value / self._unit)
        self._sizes = {"none": 1.0}
        self._generator = torch.Generator().manual_seed(config.seed)

    def run(self) -> Completion:
        spread = float(self._scaled.value.max() - self._scaled.value.min())
        if len(self._entries) < _FEWEST or spread <= 1e-14 * float(self._scaled.value.abs().max()):
            return self._constant(spread)
        count = self._config.splits or next((splits for most, splits in _SPLITS if len(self._entries) <= most), 1)
        parts = [self._parted() for _ in range(count)]
        centre, trials, searched = self._searched(parts[0])
        splits = [self._split(part, centre) for part in parts]
        best = min(trials, key=lambda t: t.held_out_error)
        if best.held_out_error < EXACT or searched < len(parts[0][0]) or is_large(searched, self._dims):
            ridge = best.ridge * searched / len(parts[0][0])
            choice = follow(best, ridge, splits)
        else:
            choice = choose(trials, splits, lambda t: self._report(t, "chosen among"), self._config.width is not None)
        return self._finished(choice, splits, centre)

    # --- data ---------------------------------------------------------------------------------------------------------

    def _parted(self) -> tuple[Entries, Entries]:
        """A random part to train on and the rest, which is held out."""
        share = min(self._config.held_out, _MOST_HELD_OUT / len(self._scaled))
        train, held_out = split(self._scaled, share, self._generator)
        assert isinstance(train, Entries) and isinstance(held_out, Entries)
        return train, held_out

    def _sampled(self, part: tuple[Entries, Entries]) -> tuple[Entries, Entries]:
        """Not more of the training entries than a search needs."""
        train, held_out = part
        most = max(_MOST_SEARCHED, _PER_INDEX * sum(self._dims))
        if len(train) <= most:
            return part
        rows = torch.randperm(len(train), generator=self._generator)[:most]
        return train.select(rows), held_out

    def _split(self, part: tuple[Entries, Entries], centre: str) -> Split:
        """Train and held-out entries less the effects that the train entries show."""
        train, held_out = part
        effects = estimate_effects(centre, train, self._dims)
        observed = held_out.value.to(self._device) / self._size(centre)
        train, held_out = self._without(train, effects, centre), self._without(held_out, effects, centre)
        return Split(train, held_out, observed, self._loss, self._workers)

    def _size(self, centre: str) -> float:
        """Root mean square of what the effects leave, which is what is fitted: ridges are for values of size one."""
        if centre not in self._sizes:
            left = self._scaled.value - estimate_effects(centre, self._scaled, self._dims).at(self._scaled.index)
            self._sizes[centre] = max(float(left.square().mean().sqrt()), _LEAST)
        return self._sizes[centre]

    def _without(self, entries: Entries, effects: Effects, centre: str) -> Entries:
        value = (entries.value - effects.at(entries.index)) / self._size(centre)
        dtype = torch.float32 if len(self._entries) > _LARGE else torch.float64
        return Entries(entries.index.to(self._device), value.to(self._device, dtype))

    # --- search -------------------------------------------------------------------------------------------------------

    def _searched(self, part: tuple[Entries, Entries]) -> tuple[str, list[Trial], int]:
        """What to subtract, the trials of the search on what is left, and how many observations it was given.

        Large problems have a search of their own, and come here where that finds nothing.
        """
        trees = candidate_trees(self._config.tree, len(self._dims), self._config.arity)
        if is_large(len(part[0]), self._dims):
            found = search_large(
                lambda centre: self._split(part, centre),
                self._dims,
                trees,
                self._config,
                self._generator,
                lambda trial, centre: self._report(trial, _stage(centre)),
                self._should_stop,
            )
            if found is not None:
                centre, best, count = found
                return centre, [best], count
        sample = self._sampled(part)
        centre, trials = self._raced(sample, trees)
        if self._config.loss == "auto":
            trials = self._robust(sample, centre, trees, trials)
        return centre, trials, len(sample[0])

    def _raced(self, part: tuple[Entries, Entries], trees: dict[str, ModeTree]) -> tuple[str, list[Trial]]:
        """A centring that explains something is tried on the tree and with the width found without it, unless that
        explains nearly everything."""
        first = "none" if self._config.centre == "auto" else self._config.centre
        race = self._race(part, first, trees, self._config.width)
        best = race.run(self._more_trees)
        if self._config.centre != "auto":
            return first, race.trials
        found, lowest = (first, race.trials), GAIN * best.held_out_error
        for centre in ("mean", "modes"):
            left = self._split(part, centre).left
            if left > WORTH or best.held_out_error < max(EXACT, SMALL * left):
                continue
            race = self._race(part, centre, race.trees, self._config.width or best.width, _CENTRE_WORK, lowest)
            error = race.once(best.tree).held_out_error
            if error < lowest:
                found, lowest = (centre, race.trials), error
        return found

    def _robust(
        self, part: tuple[Entries, Entries], centre: str, trees: dict[str, ModeTree], trials: list[Trial]
    ) -> list[Trial]:
        """Where outliers decide the fit, one in which they count less, kept if it does as well by the others: at the
        tree and width found, or by a search from the beginning if nothing was.
        """
        best = min(trials, key=lambda t: t.held_out_error)
        if best.train_error < NOISE or not has_heavy_tails(self._split(part, centre).residual(best.model)):
            return trials
        self._loss = "huber"
        if best.held_out_error < FITS:
            narrow = min((t for t in trials if t.held_out_error < NEAR * best.held_out_error), key=lambda t: t.width)
            race = self._race(part, centre, trees, self._config.width or narrow.width)
            robust = race.once(narrow.tree)
        else:
            race = self._race(part, centre, trees, self._config.width)
            robust = race.run(self._more_trees)
        train = race.split.train
        far = outliers(robust.model.values(train.index) - train.value)
        if not far or robust.held_out_error > _AS_GOOD * race.split.error(best.model):
            self._loss = "l2"
            return trials
        self._doubts.append(
            f"{far} of {len(train)} observations lie far from what the others say, and count less "
            "(loss huber; with --loss l2 all count the same)"
        )
        return race.trials

    def _race(
        self,
        part: tuple[Entries, Entries],
        centre: str,
        trees: dict[str, ModeTree],
        widths: Any,
        share: float = 1.0,
        rival: float = math.inf,
    ) -> Race:
        """A search in a share of the work that the number of observations allows, for less than a rival's error."""
        return Race(
            self._split(part, centre),
            self._dims,
            dict(trees),
            self._config.max_width,
            self._generator,
            lambda trial: self._report(trial, _stage(centre)),
            self._should_stop,
            widths,
            share * WORK * max(1.0, len(self._entries) / 1e6),
            rival,
        )

    def _more_trees(self, best: Trial) -> dict[str, ModeTree]:
        if self._config.tree != "auto" or not EXACT < best.held_out_error < 0.9:
            return {}
        tree = paired_tree(best.model.to(device="cpu"))
        return {} if tree is None else {text_of(tree): tree}

    def _report(self, trial: Trial, stage: str) -> None:
        self._steps.append(trial.step(stage))
        self._on_progress(self._steps[-1])

    # --- result -------------------------------------------------------------------------------------------------------

    def _finished(self, choice: Choice, splits: list[Split], centre: str) -> Completion:
        effects = estimate_effects(centre, self._scaled, self._dims)
        refitted, train_error = self._refitted(choice, effects, centre)
        predictor = self._predictor(refitted, effects, centre)
        warnings = list(self._doubts)
        wild = wildness(predictor.values, self._entries, self._dims)
        if is_wild(wild):
            kept = self._predictor(choice.models[0], effects, centre)
            if not is_wild(wildness(kept.values, self._entries, self._dims)):
                predictor = kept
                warnings.append("fitting all observations made predictions wild: the model of the search is kept")
            else:
                warnings.append(
                    f"some predictions are {wild:.3g} times the observed range outside it: do not trust them"
                )
        warnings += doubts_of_error(train_error, choice.error, baseline(splits[0])) + doubts_of_data(
            refitted, self._entries
        )
        ensemble = tuple(self._predictor(model, effects, centre) for model in choice.models)
        report = facts(predictor.model, choice, splits, self._unit * self._size(centre)) | {
            "train_error": train_error,
            "centre": centre,
            "loss": self._loss,
            "solver": "second-order",
            "seconds": round(time.monotonic() - self._started, 3),
            "warnings": warnings,
            "steps": self._steps,
            "unobserved": unobserved(self._entries, self._dims),
        }
        return Completion(predictor, (predictor, *ensemble), report)

    def _refitted(self, choice: Choice, effects: Effects, centre: str) -> tuple[Factorization, float]:
        """The chosen model fitted to all observations, and its train error."""
        everything = self._without(self._scaled, effects, centre)
        model = choice.models[0].to()
        ridge = penalty(choice.ridge, model, len(everything))
        solver = make_solver(model, everything, ridge, self._loss, self._workers)
        solver.run(_REFIT_STEPS if len(everything) <= _LARGE else 1, tolerance=1e-28 * len(everything))
        norm = size_of(self._scaled.value, self._loss) / self._size(centre)
        residual = model.values(everything.index) - everything.value
        return model, size_of(residual, self._loss) / norm

    def _predictor(self, model: Factorization, effects: Effects, centre: str) -> Predictor:
        """In the units of the data; a slice without any observation is predicted as the mean of the others."""
        model = model.to(torch.float64, "cpu")
        for gap in unobserved(self._entries, self._dims):
            weight = model.node_weights[gap["mode"]]
            assert weight is not None
            empty = torch.tensor(gap["indices"])
            seen = torch.ones(len(weight), dtype=torch.bool)
            seen[empty] = False
            weight[empty] = weight[seen].mean(0)
        floor = 0.0 if self._config.nonnegative else None
        model.scale(self._size(centre)).scale(self._unit)
        return Predictor(model, effects.scaled(self._unit), floor)

    # --- nothing to search --------------------------------------------------------------------------------------------

    def _constant(self, spread: float) -> Completion:
        """Where the data are constant, or too few for anything else: their mean."""
        mean = float(self._scaled.value.mean())
        tree = ModeTree.named("star", len(self._dims))
        model = HierarchicalTensorFactorization(self._dims, 1, tree)
        floor = 0.0 if self._config.nonnegative else None
        predictor = Predictor(model, Effects(mean).scaled(self._unit), floor)
        few = len(self._entries) < _FEWEST and spread > 0
        warnings = (
            [f"only {len(self._entries)} entries are observed: their mean is all that can be said"] if few else []
        )
        residual = self._scaled.value - mean
        report = {
            "held_out_error": None,
            "train_error": size_of(residual) / (size_of(self._scaled.value) or 1.0),
            "tree": tree.to_nested(),
            "widths": {tree.labels[tree.root]: 1},
            "hierarchical_rank": dict.fromkeys(tree.labels[: tree.root], 0),
            "effective_rank": dict.fromkeys(tree.labels[: tree.root], 0.0),
            "centre": "mean",
            "loss": self._loss,
            "solver": "mean",
            "seconds": round(time.monotonic() - self._started, 3),
            "warnings": warnings,
            "steps": [],
            "unobserved": unobserved(self._entries, self._dims),
        }
        return Completion(predictor, (predictor,), report)


def _stage(centre: str) -> str:
    return "search" if centre == "none" else f"search, centre {centre}"
