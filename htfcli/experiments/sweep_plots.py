"""Figures of sweeps: a final number against a setting, mean and standard error over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from htfcli.errors import ConfigError, DataError
from htfcli.experiments.plots import STYLE
from htfcli.experiments.summaries import Row, column

MARKERS = "osD^vP*X"


@dataclass(frozen=True)
class Point:
    """Runs that differ in their seed only.

    Args:
        x: their setting. mean: of their final numbers. error: standard error of the mean, NaN for one run.
        count: how many they are.
    """

    x: Any
    mean: float
    error: float
    count: int


def points(rows: Sequence[Row], x: str, y: str, groups: Sequence[str] = ()) -> dict[str, list[Point]]:
    """Means over seeds, by the name of a group, in the order of x.

    Args:
        rows: of finished runs or not; those without a number y are left out. x, y: names of columns.
        groups: settings whose combinations are curves of their own.
    Raises:
        ConfigError: on an unknown name, or if runs that would be averaged differ in more than the seed.
        DataError: if no run has a number y.
    """
    xs, ys = column(rows, x), column(rows, y)
    labels = zip(*(column(rows, name) for name in groups), strict=True) if groups else [()] * len(rows)
    cells: dict[tuple[str, Any], list[tuple[float, Row]]] = {}
    for row, at, value, label in zip(rows, xs, ys, labels, strict=True):
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = ", ".join(f"{n.replace('_', ' ')} {_shown(v)}" for n, v in zip(groups, label, strict=True))
            cells.setdefault((text, at), []).append((float(value), row))
    if not cells:
        raise DataError(f"no run has a number {y}", next_step="Have they finished? See summary.csv.")
    numeric = all(isinstance(at, int | float) for _, at in cells)
    found: dict[str, list[Point]] = {}
    for (text, at), values in cells.items():
        _refuse_mixture([row for _, row in values], x, groups)
        numbers = [value for value, _ in values]
        error = stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.nan
        found.setdefault(text, []).append(Point(at if numeric else _shown(at), fmean(numbers), error, len(numbers)))
    return {text: sorted(of, key=lambda p: p.x) if numeric else of for text, of in found.items()}


def _shown(value: Any) -> str:
    return "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _refuse_mixture(rows: Sequence[Row], x: str, groups: Sequence[str]) -> None:
    varied = [{key: value for key, value in row["varied"].items() if key != "seed"} for row in rows]
    different = sorted({key for one in varied for key in one if one[key] != varied[0].get(key)} - {x, *groups})
    if different:
        raise ConfigError(
            "runs at one point of the picture differ in more than their seed",
            got=", ".join(different),
            next_step=f"Tell them apart with --group {different[0]}.",
        )


def plot_sweep(
    rows: Sequence[Row], x: str, y: str, groups: Sequence[str] = (), *, log_x: bool = False, log_y: bool = False
) -> Figure:
    """Draw `points`, one curve a group."""
    curves = points(rows, x, y, groups)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.2), layout="constrained", dpi=200)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw_points(axes, curves)
        axes.set_xlabel(x.replace("_", " "))
        axes.set_ylabel(y.replace("_", " "))
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        if len(curves) > 1 or "" not in curves:
            axes.legend()
        counts = sorted({point.count for of in curves.values() for point in of})
        if counts[-1] > 1:
            seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            axes.set_title(f"mean and standard error, {seeds} seeds")
    return figure


def draw_points(axes: Axes, curves: dict[str, list[Point]]) -> None:
    """Curves with their errors, told apart by colour and marker."""
    colors = matplotlib.colormaps["viridis"]
    for number, (text, of) in enumerate(curves.items()):
        color = colors(0.85 * number / max(1, len(curves) - 1))
        errors = [0 if math.isnan(point.error) else point.error for point in of]
        axes.errorbar(
            [point.x for point in of],
            [point.mean for point in of],
            yerr=errors,
            label=text or None,
            color=color,
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            capsize=2.5,
        )
