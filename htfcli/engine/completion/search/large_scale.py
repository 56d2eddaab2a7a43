"""The search where mode dimensions and observations are many: from spectral starts, and on a part that identifies them.

A zero-mean random start is not drawn to the solution of a large sparse tensor, and the race over many starts
(`search.Race`) costs too much there. One spectral start serves every tree and width: trees are compared by their models
of the small core, widths by some sweeps of alternating least squares, and only the winner is fitted along ridges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion.search.initialization import grown, pruned
from htfcli.engine.completion.search.spectral_start import SpectralStart, some
from htfcli.engine.completion.search.trial import Split, Trial, penalty, size_of
from htfcli.engine.completion.search.width_search import MOST_PARAMETERS, RUNG_GAIN
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares.alternating import AlternatingLeastSquares
from htfcli.engine.least_squares.levenberg_marquardt import MATRIX_LIMIT
from htfcli.engine.observations.centring import GAIN, WORTH
from htfcli.engine.samples import Entries

_WIDTH = 8  # at which a model counts as large or not
_FEWEST = 20_000  # observations under which the usual search does
_PER_INDEX = 300  # observations a search is given for each index of each mode; less than that
_MOST_SEARCHED = 2_000_000  # where they would be more than this, but at least:
_LEAST_PER_INDEX = 40
_LADDER = (1, 2, 3, 4, 6, 8, 11, 16, 22, 32, 45, 64)
_RIDGE = 1e-5
_UP, _DOWN, _WEAKEST, _STRONGEST = 3.16, 0.2, 1e-9, 1e-2  # ridges tried around it
_SWEEPS = 30
_SLOW, _SLOW_BELOW = 3e-3, 1e-2
_IN_VAIN = 2
_LEAST_OF_RANK = 0.6
_HELPS = 0.999  # a ridge that does not bring the error under this times the last one ends the way
_SAME = 1.005  # times the lowest error, up to which a narrower model is preferred
_TREE_GAIN = 0.8  # of the error at the core, for which a later tree is preferred
_FOUND = 0.9  # held-out error above which nothing has been found
_EXACT_IN_SINGLE = 1e-4
_WORK = 3e11  # of a search, see `Race.work`


def is_large(count: int, dims: tuple[int, ...]) -> bool:
    """Whether these many observations of a tensor of these dimensions are for this search."""
    return count > _FEWEST and _WIDTH * sum(dims) > MATRIX_LIMIT


def enough_to_search(dims: tuple[int, ...]) -> int:
    """Observations that a search is given."""
    each = sum(dims)
    return max(_FEWEST, min(_PER_INDEX * each, _MOST_SEARCHED), _LEAST_PER_INDEX * each)


def search_large(
    split_without: Callable[[str], Split],
    dims: tuple[int, ...],
    trees: dict[str, ModeTree],
    config: CompleteConfig,
    generator: torch.Generator,
    on_trial: Callable[[Trial, str], None],
    should_stop: Callable[[], bool],
) -> tuple[str, Trial, int] | None:
    """Search tree, width and what to subtract.

    Args:
        split_without: what is subtracted (`none`, `mean`, `modes`) -> all training and held-out data less that.
        dims: of the tensor. trees: candidates by name. config: of the completion. generator: for samples and starts.
        on_trial: told of every trial and what was subtracted. should_stop: asked between models.
    Returns: what to subtract, the best trial, and the number of observations it was fitted to; None where nothing has
        been found, so that other starts should be tried.
    """
    found: tuple[str, Trial, int] | None = None
    limit = _FOUND
    for centre in ("none", "modes") if config.centre == "auto" else (config.centre,):
        split = split_without(centre)
        if found is not None and (limit < _EXACT_IN_SINGLE or split.left > WORTH):
            break
        search = _LargeSearch(split, dims, trees, config, generator, partial(_told, on_trial, centre), should_stop)
        best = search.run()
        if best is not None and best.held_out_error < limit * min(split.left, 1.0):
            winner = _finished(best, split.train.value.dtype)
            found, limit = (centre, winner, len(search.split.train)), GAIN * best.held_out_error
    return found


def _single(entries: Entries) -> Entries:
    """In float32, which is enough to choose by and costs half."""
    return Entries(entries.index, entries.value.float())


def _finished(trial: Trial, dtype: torch.dtype) -> Trial:
    """In the precision of the data; a fit as good as float32 allows goes on without a ridge."""
    ridge = 0.0 if trial.held_out_error < _EXACT_IN_SINGLE else trial.ridge
    return replace(trial, model=trial.model.to(dtype), ridge=ridge)


def _told(on_trial: Callable[[Trial, str], None], centre: str, trial: Trial) -> None:
    on_trial(trial, centre)


class _LargeSearch:
    """The search on one split, less what was subtracted.

    Args: see `search_large`.

    Attributes:
        split: what models are fitted to, a part of the training data, and what judges them. trials: so far.
    """

    def __init__(
        self,
        whole: Split,
        dims: tuple[int, ...],
        trees: dict[str, ModeTree],
        config: CompleteConfig,
        generator: torch.Generator,
        on_trial: Callable[[Trial], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._dims, self._config, self._generator = dims, config, generator
        # What costs least comes first
        self._trees = dict(sorted(trees.items(), key=lambda item: len(item[1].interior)))
        self._on_trial, self._should_stop = on_trial, should_stop
        self._spectral = SpectralStart(_single(whole.train), dims, generator, workers=whole.workers)
        part = some(whole.train, enough_to_search(dims), generator)
        self.split = replace(whole, train=_single(part), held_out=_single(whole.held_out))
        self.trials: list[Trial] = []
        self._work = 0.0

    def run(self) -> Trial | None:
        """Widths from 1 up as long as they help, a width between them that does as well, and ridges for the winner."""
        if self._config.width is not None:
            self._try("spectral", 0)
        else:
            self._climb()
            self._narrow()
        chosen = self._narrowest()
        if chosen is None or chosen.held_out_error > _FOUND:
            return chosen
        along = [trial for factor in (_UP, _DOWN) for trial in self._along_ridges(chosen, factor)]
        return min([chosen, *along], key=lambda t: t.held_out_error)

    def _narrowest(self) -> Trial | None:
        """Of the trials that are as good as the best, the best of the narrowest."""
        good = [t for t in self.trials if self.best and t.held_out_error <= _SAME * self.best.held_out_error]
        return min(good, key=lambda t: (t.width, t.held_out_error), default=None)

    @property
    def best(self) -> Trial | None:
        return min(self.trials, key=lambda t: t.held_out_error, default=None)

    def _over(self) -> bool:
        best = self.best
        return best is not None and (
            best.held_out_error < _EXACT_IN_SINGLE or self._work > _WORK or self._should_stop()
        )

    def _climb(self) -> None:
        """From a little under the rank that the spectra show; above that rank, one width in vain is enough."""
        in_vain, rank = 0, max(s.rank for s in self._spectral.subspaces)
        for width in _LADDER:
            if width < _LEAST_OF_RANK * rank:
                continue
            if width > self._config.max_width or width * sum(self._dims) > MOST_PARAMETERS * len(self.split.train):
                return
            before = self.best
            error = self._try("spectral", width)
            if before is not None and before.held_out_error < _FOUND and error > RUNG_GAIN * before.held_out_error:
                error = min(error, self._try("grown", width))
            gained = before is None or error < RUNG_GAIN * before.held_out_error
            in_vain = 0 if gained and error < _FOUND else in_vain + 1
            if in_vain == (1 if self._spectral.found and width > rank else _IN_VAIN) or self._over():
                return

    def _narrow(self) -> None:
        """Narrower than what is chosen so far by one component after the other, while that does no harm."""
        best = self._narrowest()
        while best is not None and best.width > 1 and best.held_out_error < _FOUND and not self._over():
            widths = {v: max(1, min(w, best.width - 1)) for v, w in best.model.widths.items()}
            narrower = replace(best, start="pruned", width=best.width - 1)
            if any(t.width == narrower.width for t in self.trials):
                return
            error = self._fit(narrower, pruned(best.model, widths)).held_out_error
            if error > _SAME * best.held_out_error:
                return
            best = self.trials[-1]

    def _try(self, start: str, width: int) -> float:
        """Fit a model of this width for some sweeps; its held-out error."""
        best = self.best
        if start == "grown":
            assert best is not None
            widths = dict.fromkeys(best.model.widths, width)
            tree, model = best.tree, grown(best.model, widths, self._generator)
        else:
            tree, model = self._first_model(width)
        blank_trial = Trial(tree, start, width or max(model.widths.values()), model, _RIDGE, 1.0, 1.0)
        return self._fit(blank_trial, model).held_out_error

    def _first_model(self, width: int) -> tuple[str, Factorization]:
        """The spectral start of the tree that suits the core best: the first tree, unless another is clearly better."""
        widths = width or self._config.width or 1
        found: tuple[str, Factorization] | None = None
        lowest = math.inf
        for name, tree in self._trees.items():
            small, misfit = self._spectral.fit_core(tree, widths)
            if misfit < _TREE_GAIN * lowest:
                found, lowest = (name, small), misfit
        assert found is not None
        return found[0], self._spectral.lifted(found[1])

    def _along_ridges(self, trial: Trial, factor: float) -> Iterator[Trial]:
        """The same model at stronger or weaker ridges, as long as they help."""
        while not self._over():
            before, ridge = trial.held_out_error, trial.ridge * factor
            yield (trial := self._fit(replace(trial, ridge=ridge), trial.model.to()))
            if not _WEAKEST < ridge < _STRONGEST or trial.held_out_error > _HELPS * before:
                return

    def _fit(self, trial: Trial, model: Factorization) -> Trial:
        """Fit at the ridge of a trial from where a model is, and judge; less patiently under the rank that shows."""
        split = self.split
        rank = max(s.rank for s in self._spectral.subspaces)
        ridge = penalty(trial.ridge, model, len(split.train))
        solver = AlternatingLeastSquares(model, split.train, ridge, split.loss, split.workers)
        solver.run(_SWEEPS, slow=_SLOW if trial.width >= rank else _SLOW_BELOW)
        error = math.sqrt(solver.loss) / (size_of(split.train.value) or 1.0)
        fitted = replace(trial, model=model, train_error=error, held_out_error=split.error(model))
        self._work += solver.iterations * solver.work
        self.trials.append(fitted)
        self._on_trial(fitted)
        return fitted
