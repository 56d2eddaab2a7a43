"""The theorem on component norms: predicted against measured derivatives over whole trajectories.

Gradient descent with short steps from unbalancedness zero, for every factorization, several mode trees and every loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from htfcli.engine.fitting.records import derivative_error
from htfcli.experiments.figures.style import new_figure
from htfcli.experiments.paper.comparison import Comparison
from htfcli.experiments.sweeps.summary import Row
from htfcli.files.own.records import Records, load_records

_CASES: list[tuple[str, str, list[int], str | None, float]] = [  # title, model, dims, tree, standard deviation at first
    ("matrix", "matrix", [10, 10], None, 0.2),
    ("CP", "cp", [6, 6, 6], None, 0.4),
    ("HTF, balanced tree", "htf", [5, 5, 5, 5], "balanced", 0.3),
    ("HTF, tree half", "htf", [5, 5, 5, 5], "half", 0.3),
    ("HTF, order 5", "htf", [4, 4, 4, 4, 4], "balanced", 0.4),
]
_LOSSES = {"l2": "#31688e", "huber": "#35b779", "l1": "#d95f02"}
# Group RMSprop takes steps along the gradient, each about as long as the learning rate: so the plateau near zero is
# left soon, and the whole way is 12 long at most. The difference is proportional to the step
_SCALES: dict[str, dict[str, Any]] = {
    "mini": {"lr": 4e-3, "iterations": 3000, "seeds": 3},
    "full": {"lr": 4e-4, "iterations": 30_000, "seeds": 10},
}
_UNTIL_LOSS = 5e-3  # near the end, steps of this length jump to and fro across the minimum


def plan(scale: str) -> dict[str, Any]:
    """The plan of a scale, mini or full."""
    of = _SCALES[scale]
    rows = list(product(_LOSSES, _CASES))
    return {
        "command": "fit",
        "generate": {"width": 2, "observed": 0.5, "test": 0},
        "base": {
            **{"init": "balanced", "lr": of["lr"], "dtype": "float64", "until_loss": _UNTIL_LOSS, "patience": 1},
            **{"iterations": of["iterations"], "record_every": of["iterations"] // 100, "threads": 1},
        },
        "zip": {
            "loss": [loss for loss, _ in rows],
            "model": [case[1] for _, case in rows],
            "generate.target": [case[1] for _, case in rows],
            "generate.dims": [case[2] for _, case in rows],
            "tree": [case[3] for _, case in rows],
            "generate.tree": [case[3] for _, case in rows],
            "width": [None if case[1] == "matrix" else 5 for _, case in rows],
            "init_std": [case[4] for _, case in rows],
        },
        "seeds": of["seeds"],
    }


def draw_theorem(rows: Sequence[Row], sweep: Path) -> Figure:
    """For each factorization, measured against predicted derivatives, and below it how they differ along the way."""
    cases = _by_case(rows)
    with new_figure(2.6 * len(cases), 4.8, dpi=200) as figure:
        for number, (title, of) in enumerate(cases.items()):
            above = figure.add_subplot(2, len(cases), number + 1)
            below = figure.add_subplot(2, len(cases), len(cases) + number + 1)
            for loss, runs in of.items():
                _draw(above, below, load_records(str(sweep / "runs" / runs[0]["run"])), loss)
            above.set_title(title)
            above.set_xlabel("predicted derivative")
            above.axline((0, 0), slope=1, color="0.6", linewidth=0.8, zorder=1)
            for axis in (above.xaxis, above.yaxis):
                axis.set_major_locator(MaxNLocator(3))
            below.set_yscale("log")
            below.set_xlabel("iteration")
            if number == 0:
                above.set_ylabel("measured derivative")
                below.set_ylabel("relative difference (line)\nunbalancedness (dotted)")
                above.legend(markerscale=3)
    return figure


def _draw(above: Axes, below: Axes, run: Records, loss: str) -> None:
    """One run: a dot per record and component, its relative difference, and its unbalancedness."""
    color = _LOSSES[loss]
    pairs = [pair for record in run.records for pair in _derivatives(record)]
    above.plot([p for _, p in pairs], [m for m, _ in pairs], ".", markersize=2, color=color, label=loss, alpha=0.6)
    known = [(r["iteration"], derivative_error(r)) for r in run.records]
    below.plot([i for i, e in known if e is not None], [e for _, e in known if e is not None], color=color)
    balance = [max(r["unbalancedness"], 1e-17) for r in run.records]
    below.plot([r["iteration"] for r in run.records], balance, ":", color=color)


def _derivatives(record: Row) -> list[tuple[float, float]]:
    return [
        pair
        for place in record["nodes"]
        for pair in zip(place.get("measured_derivative", []), place.get("predicted_derivative", []), strict=False)
    ]


def compare_theorem(rows: Sequence[Row], sweep: Path) -> list[Comparison]:
    """The relative differences over all records of all seeds: median and largest; and the largest unbalancedness."""
    found = []
    for title, of in _by_case(rows).items():
        for loss, runs in of.items():
            records = [r for row in runs for r in load_records(str(sweep / "runs" / row["run"])).records]
            errors = [e for e in map(derivative_error, records) if e is not None]
            case = f"{title}, {loss}"
            median_error = f"{median(errors) if errors else math.nan:.1e}"
            largest = f"{max(r['unbalancedness'] for r in records):.1e}"
            found.append(Comparison(case, "relative difference of derivatives, median", "0", median_error, len(runs)))
            found.append(Comparison(case, "the same, largest", "0", f"{max(errors, default=math.nan):.1e}", len(runs)))
            found.append(Comparison(case, "unbalancedness, largest", "0", largest, len(runs)))
    return found


def _by_case(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Finished runs by factorization and loss."""
    found: dict[str, dict[str, list[Row]]] = {title: {} for title, *_ in _CASES}
    for row in rows:
        s, dims = row["settings"], row["generate"]["dims"]
        for title, model, of_case, tree, _ in _CASES:
            if row["status"] == "finished" and (model, of_case) == (s["model"], dims) and tree in (None, s["tree"]):
                found[title].setdefault(s["loss"], []).append(row)
    return {title: of for title, of in found.items() if of}
