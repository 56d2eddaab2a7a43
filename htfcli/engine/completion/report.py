"""What a completion says of itself: errors on what was held out, tree, widths and ranks found."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from htfcli.config.tensors import DEFAULT_TOLERANCE
from htfcli.engine.completion.model_selection import Choice
from htfcli.engine.completion.search.trial import Split, size_of
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra

_SHOWN = 2000  # held-out entries kept for a scatter plot


def facts(model: Factorization, choice: Choice, splits: Sequence[Split], unit: float) -> dict[str, Any]:
    """Plain data for the report.

    Args:
        model: the result. choice: what was chosen. splits: that it was chosen on. unit: of the splits' values.
    """
    spectra = FactoredSpectra(model).spectra()
    r2 = [_r2(error, split) for error, split in zip(choice.errors, splits, strict=False)]
    return {
        "held_out_error": choice.error,
        "held_out_error_spread": choice.spread,
        "r2": statistics.fmean(r2),
        "r2_spread": statistics.stdev(r2) if len(r2) > 1 else None,
        "tree": model.tree.to_nested(),
        "widths": {model.tree.labels[v]: model.widths[v] for v in model.tree.interior},
        "hierarchical_rank": {s.label: s.rank() for s in spectra},
        "effective_rank": {s.label: s.effective_rank for s in spectra},
        "rank_tolerance": DEFAULT_TOLERANCE,
        "ridge": choice.ridge,
        "splits": len(choice.errors),
        "held_out": _scatter(choice, splits[0], unit),
    }


def baseline(split: Split) -> float:
    """Held-out error of the mean of the training data."""
    before = split.train.value.mean()
    return size_of(split.held_out.value - before, split.loss) / split.norm


def _scatter(choice: Choice, split: Split, unit: float) -> dict[str, list[float]]:
    """Held-out values and their predictions by the model that did not see them, at most `_SHOWN`."""
    index = split.held_out.index[:_SHOWN]
    observed, subtracted = split.observed[:_SHOWN], (split.observed - split.held_out.value)[:_SHOWN]
    predicted = choice.models[0].values(index) + subtracted
    return {"observed": (observed * unit).tolist(), "predicted": (predicted * unit).tolist()}


def _r2(error: float, split: Split) -> float:
    """Share of the held-out values' variance that is explained; for a robust loss of their absolute deviation."""
    deviation = size_of(split.observed - split.observed.mean(), split.loss) or 1.0
    ratio = error * split.norm / deviation
    return 1 - ratio**2 if split.loss == "l2" else 1 - ratio
