"""What a completion says of itself."""
from __future__ import annotations
from typing import Any
import torch


def describe(completion, average, problem, judge, loss) -> dict[str, Any]:
    names = problem.holes.names
    found = average.averaged
    held = {}
    shift, scale = problem.units.of(judge.index)
    value, predicted = shift + scale * judge.value, shift + scale * found.mean
    for place, kind in enumerate(judge.kinds):
        rows = judge.kind == kind
        held[names[kind]] = {
            "error": float((predicted - value)[rows].norm() / value[rows].norm().clamp_min(1e-300)),
            "count": int(rows.sum()), "share": problem.holes.share[kind],
            "columns": {c.name: float((average.held[rows, k] - judge.value[rows]).norm() / judge.value[rows].norm()) for k, c in enumerate(average.columns)},
        }
    shares = {k: problem.holes.share[k] for k in judge.kinds}
    main = 0 if shares.get(0, 0) > 0.05 else max(shares, key=lambda k: shares[k])
    return {"held_out_error": held[names[main]]["error"], "held_out": held,
            "weights": [(c.name, [round(x, 3) for x in completion.weights[:, k].tolist()]) for k, c in enumerate(completion.columns)],
            "kernels": [(k.modes, k.lengths, k.nugget, k.smooth, k.cross) for k in average.kernels],
            "ordered": problem.ordered}
