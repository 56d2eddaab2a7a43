"""How few observations suffice: rates of recovery against observations over degrees of freedom."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from htfcli.experiments.figures.style import new_figure
from htfcli.experiments.sweeps.summary import Row

_TUCKER_TREE = "Tucker-like"  # single-child nodes above the leaves: a CP core in subspaces of the modes
_METHODS = {
    "second-order": "Levenberg-Marquardt, random starts",
    "gradient": "gradient descent from near zero",
    "tensorly": "tensorly, CP",
}
_HALF, _GOAL = 0.5, 1.5  # the goal: half of the problems recovered at this many observations per degree of freedom

# target, order, dim, width, starts. Dims are small, so that many starts are affordable, and large enough that four
# times as many entries exist as there are degrees of freedom. With width 2 in three modes, the root's width of 3 gives
# every 2 x 2 x 2 core; in four modes 4 gives a generic 2 x 2 x 2 x 2 one
_SMALL: list[tuple[str, int, int, Any, int]] = [
    ("matrix", 2, 16, 2, 40),
    ("cp", 3, 6, 2, 40),
    (_TUCKER_TREE, 3, 5, [2, 3], 40),
    ("htf", 3, 5, 2, 40),
    ("htf", 4, 4, 2, 40),
    ("htf", 6, 3, 2, 40),
    ("htf", 8, 2, 2, 40),
    ("htf", 16, 2, 2, 4),  # a start takes ten times as long as at order 4, and none has succeeded
]
_LARGE: list[tuple[str, int, int, Any, int]] = [
    ("htf", 16, 2, 2, 60),  # the longest first
    ("htf", 12, 2, 2, 100),
    ("htf", 8, 3, 2, 200),
    ("htf", 8, 2, 2, 400),
    ("htf", 6, 3, 2, 400),
    ("htf", 5, 3, 2, 400),
    ("htf", 4, 6, 2, 400),
    ("htf", 4, 4, 2, 400),
    ("htf", 3, 6, 3, 400),
    ("htf", 3, 8, 2, 400),
    ("htf", 3, 5, 2, 400),
    (_TUCKER_TREE, 4, 4, [2, 4], 400),
    (_TUCKER_TREE, 3, 5, [2, 3], 400),
    ("cp", 4, 5, 2, 400),
    ("cp", 3, 8, 3, 400),
    ("cp", 3, 6, 2, 400),
    ("matrix", 2, 24, 3, 400),
    ("matrix", 2, 16, 2, 400),
]
_SCALES: dict[str, dict[str, Any]] = {
    "mini": {"targets": _SMALL, "ratios": [0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0], "iterations": 2000},
    "full": {"targets": _LARGE, "ratios": [0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0], "iterations": 3000},
}


def plan(scale: str) -> dict[str, Any]:
    """The plan of a scale, mini or full; peers are part of full where they are installed."""
    of = _SCALES[scale]
    rows = [(*target, method) for method in ("second-order", "gradient") for target in of["targets"]]
    if scale == "full" and importlib.util.find_spec("tensorly") is not None:
        rows += [(*target, "tensorly") for target in of["targets"] if target[0] == "cp"]
    return {
        "command": "measure-recovery",
        "base": {"problems": 20, "iterations": of["iterations"]},
        "zip": {
            "target": ["htf" if row[0] == _TUCKER_TREE else row[0] for row in rows],
            "order": [row[1] for row in rows],
            "dim": [row[2] for row in rows],
            "width": [row[3] for row in rows],
            "method": [row[5] for row in rows],
            "starts": [row[4] if row[5] == "second-order" else None for row in rows],
            "tree": [[[k] for k in range(row[1])] if row[0] == _TUCKER_TREE else None for row in rows],
        },
        "grid": {"ratio": of["ratios"]},
    }


@dataclass(frozen=True)
class Recovery:
    """One row of the table: how often tensors of one kind were recovered from so many observations.

    Args:
        rate: with its standard error. identifiable: rate of problems whose observations determine the tensor near it.
    """

    kind: ClassVar[str] = "recovery"
    target: str
    order: int
    dim: int
    width: str
    method: str
    df: int
    observations_over_df: float
    rate: str
    identifiable: float
    seeds: int


def compare_recovery(rows: Sequence[Row]) -> list[Recovery]:
    """The table of all finished cells."""
    return [_recovery(row) for row in _finished(rows)]


def _recovery(row: Row) -> Recovery:
    s, final = row["settings"], row["final"]
    rate, count = final["rate"], final["problems"]
    error = math.sqrt(rate * (1 - rate) / count)
    return Recovery(
        _name(s), s["order"], s["dim"], _width(s), _METHODS[s["method"]], final["degrees_of_freedom"], s["ratio"],
        f"{rate:.2f} ± {error:.2f}", final["determined"], count,
    )  # fmt: skip


def recovery_notes(rows: Sequence[Row]) -> list[str]:
    """For each target, how many observations it took until half of the problems were recovered."""
    lines = []
    for method, targets in _cells(rows).items():
        reached = {
            label: min((r for r, rate in of.items() if rate >= _HALF), default=None) for label, of in targets.items()
        }
        met = [label for label, ratio in reached.items() if ratio is not None and ratio <= _GOAL]
        later = [f"{label} at {ratio:g}" for label, ratio in reached.items() if ratio is not None and ratio > _GOAL]
        never = [label for label, ratio in reached.items() if ratio is None]
        parts = [f"at {_GOAL:g} times the degrees of freedom or fewer: {'; '.join(met) or 'none'}"]
        parts += [f"with more: {'; '.join(later)}"] * bool(later)
        parts += [f"at none of the ratios: {'; '.join(never)}"] * bool(never)
        lines.append(f"{_METHODS[method]}, half of the problems recovered {'. '.join(parts)}.")
    return lines


def draw_recovery(rows: Sequence[Row]) -> Figure:
    """A heat map for each method: targets downwards, observations over degrees of freedom to the right."""
    cells = _cells(rows)
    most = max(map(len, cells.values()))
    with new_figure(4.2 * len(cells) + 0.6, 0.34 * most + 1.3, dpi=200) as figure:
        for number, (method, targets) in enumerate(cells.items()):
            axes = figure.add_subplot(1, len(cells), number + 1)
            _draw_map(axes, targets)
            axes.set_title(_METHODS[method], fontsize=8)
            if number and list(targets) == list(next(iter(cells.values()))):
                axes.set_yticklabels([])  # those of the first map
    return figure


def _draw_map(axes: Axes, targets: dict[str, dict[float, float]]) -> None:
    ratios = sorted({ratio for of in targets.values() for ratio in of})
    rates = np.array([[of.get(ratio, math.nan) for ratio in ratios] for of in targets.values()])
    axes.imshow(rates, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for y, x in np.ndindex(*rates.shape):
        if not math.isnan(rates[y, x]):
            color = "black" if rates[y, x] > 0.6 else "white"
            axes.text(x, y, f"{rates[y, x]:.2f}", ha="center", va="center", fontsize=6, color=color)
    below = sum(ratio < 1 for ratio in ratios)
    axes.axvline(below - 0.5, color="#d95f02", linewidth=2)  # fewer observations than degrees of freedom to its left
    axes.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
    axes.set_yticks(range(len(targets)), list(targets))
    axes.set_xlabel("observations over degrees of freedom")
    axes.grid(visible=False)


def _cells(rows: Sequence[Row]) -> dict[str, dict[str, dict[float, float]]]:
    """Rates by method, target and ratio."""
    found: dict[str, dict[str, dict[float, float]]] = {}
    for row in sorted(_finished(rows), key=lambda row: (_place(row["settings"]), row["settings"]["ratio"])):
        s = row["settings"]
        label = f"{_name(s)}, order {s['order']}, dim {s['dim']}, width {_width(s)}"
        found.setdefault(s["method"], {}).setdefault(label, {})[s["ratio"]] = row["final"]["rate"]
    return found


def _place(settings: dict[str, Any]) -> tuple[Any, ...]:
    """Methods in the order of `_METHODS`, matrices first and hierarchical targets last."""
    kinds = ("matrix", "cp", _TUCKER_TREE, "htf")
    method = list(_METHODS).index(settings["method"])
    return method, kinds.index(_name(settings)), settings["order"], settings["dim"], _width(settings)


def _finished(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["status"] == "finished"]


def _name(settings: dict[str, Any]) -> str:
    return _TUCKER_TREE if isinstance(settings["tree"], list) else str(settings["target"])


def _width(settings: dict[str, Any]) -> str:
    width = settings["width"]
    return str(width[0] if isinstance(width, list) else width)
