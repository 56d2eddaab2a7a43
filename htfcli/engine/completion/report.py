"""What a completion says of itself: errors on what was held out, members and their weights, calibration, warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from htfcli.config.tensors import DEFAULT_TOLERANCE
from htfcli.engine.completion.averaging import Average
from htfcli.engine.completion.columns import BLEND
from htfcli.engine.completion.members import Judge, Recipe
from htfcli.engine.completion.preparation import Problem
from htfcli.engine.completion.result import Completion
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra
from htfcli.engine.samples import unobserved
from htfcli.errors import DataError

_FITTED = 5000  # observations, evenly spread, that the train error is of
_SHOWN = 2000  # held-out entries kept for a scatter plot
_LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99]


def describe(completion: Completion, average: Average, problem: Problem, judge: Judge) -> dict[str, Any]:
    """Plain data for the report: everything but the way there."""
    names = problem.holes.names
    found = average.averaged
    shift, scale = problem.units.of(judge.index)
    value, predicted = shift + scale * judge.value, completion.within(shift + scale * found.mean)
    mean = problem.raw.value.mean()
    held = {}
    for kind in judge.kinds:
        rows = judge.kind == kind
        held[names[kind]] = {
            "error": _relative(predicted[rows] - value[rows], value[rows]),
            "baseline": _relative(mean - value[rows], value[rows]),
            "count": int(rows.sum()),
            "share": problem.holes.share[kind],
        }
    shares = {k: problem.holes.share[k] for k in judge.kinds}
    main = 0 if shares.get(0, 0.0) > 0.05 or len(shares) == 1 else max(shares, key=lambda k: shares[k])
    members = [_column(average, k, judge, names) for k in average.used]
    strongest = completion.model
    rows = torch.linspace(0, len(problem.raw) - 1, min(len(problem.raw), _FITTED)).long()
    some = problem.raw.select(rows)
    return {
        "held_out_error": held[names[main]]["error"],
        "held_out": held,
        "r2": _r2(value[judge.kind == main], predicted[judge.kind == main]),
        "train_error": _relative(completion.values(some.index) - some.value, some.value),
        "members": members,
        "strongest": next((i for i, m in enumerate(members) if m["kind"] != "effects"), None)
        if strongest is not None
        else None,
        "ordered": [
            {"mode": k.modes[i], "length": k.lengths[i], "nugget": k.nugget, "smooth": k.smooth}
            for k in average.kernels[-1:]
            for i in range(len(k.modes))
        ],
        "units": None
        if problem.units.mode is None
        else {"mode": problem.units.mode, "scale": problem.units.scale[:-1].tolist()},
        "per_index": per_index(problem, judge.index, value, predicted),
        "calibration": _calibration(completion, average, judge, names),
        "scatter": _scatter(completion, average, judge, names, value, predicted),
        "unobserved": unobserved(problem.raw, problem.dims),
        **ranks(strongest),
    }


def ranks(model: Factorization | None) -> dict[str, Any]:
    """Tree, widths and ranks of the strongest factorization."""
    if model is None:
        nothing: dict[str, Any] = {"tree": None, "widths": {}, "hierarchical_rank": {}, "effective_rank": {}}
        return nothing | {"rank_tolerance": DEFAULT_TOLERANCE}
    found: dict[str, Any] = {
        "tree": model.tree.to_nested(),
        "widths": {model.tree.labels[v]: model.widths[v] for v in model.tree.interior},
        "rank_tolerance": DEFAULT_TOLERANCE,
    }
    try:
        spectra = FactoredSpectra(model).spectra()
    except DataError:  # a star of many modes
        spectra = []
    found["hierarchical_rank"] = {s.label: s.rank() for s in spectra}
    found["effective_rank"] = {s.label: s.effective_rank for s in spectra}
    return found


def _column(average: Average, number: int, judge: Judge, names: Sequence[str]) -> dict[str, Any]:
    column = average.columns[number]
    recipe: Recipe | None = None
    ridge = None
    if column.source == BLEND:
        kind = "average"
    else:
        source = average.sources[column.source]
        recipe = source.recipe
        kind = "effects" if recipe is None else "factorization"
        ridge = None if source.snapshot is None else source.snapshot.ridge
    errors = {
        names[k]: _relative(
            average.held[judge.kind == k, number] - judge.value[judge.kind == k], judge.value[judge.kind == k]
        )
        for k in judge.kinds
    }
    width = None if recipe is None else recipe.width
    step = len(average.weights) // len(names)  # the last row of a kind is for all variables together
    return {
        "name": column.name,
        "kind": kind,
        "tree": None if recipe is None else recipe.tree.to_nested(),
        "width": dict(width) if isinstance(width, Mapping) else width,
        "ridge": ridge,
        "interpolated": column.interpolation >= 0,
        "weights": {name: float(average.weights[k * step + step - 1, number]) for k, name in enumerate(names)},
        "held_out_error": errors,
    }


def _calibration(completion: Completion, average: Average, judge: Judge, names: Sequence[str]) -> dict[str, Any]:
    """Stated quantiles against the share of held-out entries inside, with the deviation before the conformal factor
    that stands for normal residuals."""
    found = average.averaged
    deviation = completion.calibration.deviation(judge.index, found.spread, found.kriging)
    ratio = (judge.value - found.mean).abs() / deviation.clamp_min(1e-150)
    result = {}
    for kind in judge.kinds:
        own = ratio[judge.kind == kind]
        unit = completion.calibration.quantile(torch.tensor([kind]), 0.9) / 1.6448536269514722
        stated = [math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64))) for level in _LEVELS]
        result[names[kind]] = {
            "stated": _LEVELS,
            "observed": [float((own <= s * unit).double().mean()) for s in stated],
        }
    return result


def _scatter(
    completion: Completion, average: Average, judge: Judge, names: Sequence[str], value: Tensor, predicted: Tensor
) -> dict[str, Any]:
    """Held-out values, their predictions by models that did not see them, deviations, kinds; at most `_SHOWN`."""
    step = max(1, -(-len(value) // _SHOWN))
    rows = torch.arange(0, len(value), step)
    found = average.averaged
    _, scale = completion.units.of(judge.index)
    deviation = completion.calibration.deviation(judge.index, found.spread, found.kriging)
    std = scale * deviation * (completion.calibration.quantile(judge.kind,.9)/1.6448536269514722)
    return {
        "observed": value[rows].tolist(),
        "predicted": predicted[rows].tolist(),
        "std": std[rows].tolist(),
        "kind": [names[k] for k in judge.kind[rows].tolist()],
    }


def per_index(problem: Problem, index: Tensor, value: Tensor, predicted: Tensor) -> list[dict[str, Any]] | None:
    """Held-out errors of every index of a mode of variables beside those of its own mean, over its deviation.

    Args:
        index: (n, N) of the held-out entries. value, predicted: (n,).
    """
    mode = problem.units.mode
    if mode is None:
        return None
    found = []
    for at in range(problem.dims[mode]):
        rows = index[:, mode] == at
        if int(rows.sum()) < 3:
            continue
        mean, deviation = float(problem.units.shift[at]), float(problem.units.scale[at])
        error = float((predicted[rows] - value[rows]).square().mean().sqrt()) / deviation
        baseline = float((mean - value[rows]).square().mean().sqrt()) / deviation
        found.append({"mode": mode, "index": at, "error": error, "baseline": baseline})
    return found


def warnings_of(report: Mapping[str, Any], still_falling: bool) -> list[str]:
    """What should be doubted."""
    said = []
    for name, one in report["held_out"].items():
        if one["error"] > 0.9 * one["baseline"] and one["share"] > 0:
            said.append(
                f"for holes of the kind '{name}' the prediction (held-out error {one['error']:.3g}) hardly beats "
                f"the mean ({one['baseline']:.3g})"
            )
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


def _relative(residual: Tensor, value: Tensor) -> float:
    size = float(torch.linalg.vector_norm(value))
    return float(torch.linalg.vector_norm(residual)) / size if size > 0 else float(torch.linalg.vector_norm(residual))


def _r2(value: Tensor, predicted: Tensor) -> float | None:
    """Share of the variance explained; None where it means nothing: too few values, or equal ones."""
    if len(value) < 10:
        return None
    deviation = float((value - value.mean()).square().sum())
    if deviation <= 1e-12 * float(value.square().sum()):
        return None
    return 1 - float((value - predicted).square().sum()) / deviation
