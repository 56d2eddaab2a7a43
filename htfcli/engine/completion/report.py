"""What a completion says of itself: errors on what was held out, members and their weights, calibration, warnings."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from htfcli.config.tensors import DEFAULT_TOLERANCE
from htfcli.engine.completion.averaging import Average
from htfcli.engine.completion.holes import RANDOM
from htfcli.engine.completion.preparation import Problem
from htfcli.engine.completion.result import Completion
from htfcli.engine.completion.splits import Judge
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra
from htfcli.engine.samples import unobserved
from htfcli.errors import DataError

_SHOWN = 1000  # entries, evenly spread, that the train error is of, and points of a scatter plot
_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def describe(completion: Completion, average: Average, problem: Problem, judge: Judge) -> dict[str, Any]:
    """Plain data for the report: everything but the way there."""
    names, found, units = problem.holes.names, average.averaged, problem.units
    shift, scale = units.of(judge.index)
    value, predicted = shift + scale * judge.value, completion.within(shift + scale * found.mean)
    std = average.calibration.std(judge.index, found.spread, found.kriging, judge.kind)
    deviations = (judge.value - found.mean).abs() / std
    of_kind = {names[kind]: judge.kind == kind for kind in judge.kinds}
    share = {name: problem.holes.share[names.index(name)] for name in of_kind}
    mean = problem.raw.value.mean()
    held = {
        name: {
            "error": _relative(predicted[rows] - value[rows], value[rows]),
            "baseline": _relative(mean - value[rows], value[rows]),
            "count": int(rows.sum()),
            "share": share[name],
        }
        for name, rows in of_kind.items()
    }
    main = RANDOM if share.get(RANDOM, 0.0) > 0.05 or len(share) == 1 else max(share, key=lambda name: share[name])
    members = [_column(average, number, judge, of_kind) for number in average.used]
    kernel = next((c.interpolation.kernel for c in reversed(average.columns) if c.interpolation is not None), None)
    some = problem.raw.select(_spread(len(problem.raw)))
    shown = _spread(len(value))
    return {
        "held_out_error": held[main]["error"],
        "held_out": held,
        "r2": _r2(value[of_kind[main]], predicted[of_kind[main]]),
        "train_error": _relative(completion.values(some.index) - some.value, some.value),
        "members": members,
        "strongest": None
        if completion.model is None
        else next((i for i, m in enumerate(members) if m["kind"] != "effects"), None),
        "ordered": []
        if kernel is None
        else [
            {"mode": mode, "length": length, "nugget": kernel.nugget, "smooth": kernel.smooth}
            for mode, length in zip(kernel.modes, kernel.lengths, strict=True)
        ],
        "units": None if units.mode is None else {"mode": units.mode, "scale": units.scale[:-1].tolist()},
        "per_index": _per_index(problem, judge.index, value, predicted),
        "calibration": {
            name: {
                "stated": list(_LEVELS),
                "observed": [
                    float((deviations[rows] <= NormalDist().inv_cdf((1 + level) / 2)).double().mean())
                    for level in _LEVELS
                ],
            }
            for name, rows in of_kind.items()
        },
        "scatter": {
            "observed": value[shown].tolist(),
            "predicted": predicted[shown].tolist(),
            "std": (scale * std)[shown].tolist(),
            "kind": [names[k] for k in judge.kind[shown].tolist()],
        },
        "unobserved": unobserved(problem.raw, problem.dims),
        **ranks(completion.model),
    }


def ranks(model: Factorization | None) -> dict[str, Any]:
    """Tree, widths and ranks of the strongest factorization."""
    tree, widths, spectra = None, {}, []
    if model is not None:
        tree, widths = model.tree.to_nested(), {model.tree.labels[v]: model.widths[v] for v in model.tree.interior}
        with suppress(DataError):  # a star of many modes
            spectra = FactoredSpectra(model).spectra()
    return {
        "tree": tree,
        "widths": widths,
        "rank_tolerance": DEFAULT_TOLERANCE,
        "hierarchical_rank": {s.label: s.rank() for s in spectra},
        "effective_rank": {s.label: s.effective_rank for s in spectra},
    }


def _column(average: Average, number: int, judge: Judge, of_kind: Mapping[str, Tensor]) -> dict[str, Any]:
    """One of the predictions that are averaged."""
    column, names = average.columns[number], average.problem.holes.names
    mixed = torch.nonzero(column.mix).flatten().tolist()
    candidate = average.sources[mixed[0]].candidate
    recipe = None if candidate is None or len(mixed) > 1 else candidate.recipe
    width = None if recipe is None else recipe.width
    miss, value = average.held[:, number] - judge.value, judge.value
    step = len(average.weights) // len(names)  # the last row of a kind is for all variables together
    return {
        "name": column.name,
        "kind": "average" if len(mixed) > 1 else "effects" if recipe is None else "factorization",
        "tree": None if recipe is None else recipe.tree.to_nested(),
        "width": dict(width) if isinstance(width, Mapping) else width,
        "ridge": None if candidate is None or recipe is None else candidate.ridge,
        "interpolated": column.interpolation is not None,
        "weights": dict(zip(names, average.weights[step - 1 :: step, number].tolist(), strict=True)),
        "held_out_error": {name: _relative(miss[rows], value[rows]) for name, rows in of_kind.items()},
    }


def _per_index(problem: Problem, index: Tensor, value: Tensor, predicted: Tensor) -> list[dict[str, Any]] | None:
    """Held-out errors of every index of a mode of variables beside those of its own mean, over its deviation.

    Args:
        index: (n, N) of the held-out entries. value, predicted: (n,).
    """
    mode, units, found = problem.units.mode, problem.units, []
    if mode is None:
        return None
    for at in range(problem.dims[mode]):
        rows = index[:, mode] == at
        if int(rows.sum()) >= 3:
            sizes = [
                float((guess - value[rows]).square().mean().sqrt() / units.scale[at])
                for guess in (predicted[rows], units.shift[at])
            ]
            found.append({"mode": mode, "index": at, "error": sizes[0], "baseline": sizes[1]})
    return found


def warnings_of(report: Mapping[str, Any], still_falling: bool) -> list[str]:
    """What should be doubted."""
    said = [
        f"for holes of the kind '{name}' the prediction (held-out error {one['error']:.3g}) hardly beats the mean "
        f"({one['baseline']:.3g})"
        for name, one in report["held_out"].items()
        if one["error"] > 0.9 * one["baseline"] and one["share"] > 0
    ]
    for one in report["per_index"] or []:
        if one["error"] > 0.98 * one["baseline"]:
            said.append(f"index {one['index']} of mode {one['mode']} is predicted no better than by its own mean")
    columns = [m for m in report["members"] if max(m["weights"].values()) > 0.05]
    if columns and all(m["kind"] == "effects" and not m["interpolated"] for m in columns):
        said.append(
            "no factorization is better than the mean and the effects of the modes: these are what is predicted"
        )
    if still_falling:
        said.append("the held-out error was still falling; --effort thorough tries more")
    return said


def _spread(n: int) -> Tensor:
    """Rows of n that are evenly spread."""
    return torch.linspace(0, n - 1, min(n, _SHOWN)).long()


def _relative(residual: Tensor, value: Tensor) -> float:
    return float(residual.norm() / (value.norm() or 1.0))


def _r2(value: Tensor, predicted: Tensor) -> float | None:
    """Share of the variance explained; None where it means nothing: too few values, or equal ones."""
    deviation = float((value - value.mean()).square().sum())
    if len(value) < 10 or deviation <= 1e-12 * float(value.square().sum()):
        return None
    return 1 - float((value - predicted).square().sum()) / deviation
