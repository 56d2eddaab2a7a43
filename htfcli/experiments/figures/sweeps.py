"""Figures of sweeps: a final number against a setting, mean and standard error over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from htfcli.errors import ConfigError, DataError
from htfcli.experiments.figures.style import STYLE
from htfcli.experiments.sweeps.summary import FINAL_SHOWN, Row, column, what_varies

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


def points(rows: Sequence[Row], x: str, y: str, label: Callable[[Row], str]) -> dict[str, list[Point]]:
    """Means over runs, by curve, in the order of x.

    Args:
        rows: of finished runs or not; those without a number y are left out. x, y: names of columns.
        label: row -> the curve it belongs to.
    Raises:
        ConfigError: on an unknown name. DataError: if no run has a number y.
    """
    cells: dict[tuple[str, Any], list[float]] = {}
    for row, at, value in zip(rows, column(rows, x), column(rows, y), strict=True):
        if isinstance(value, int | float) and not isinstance(value, bool):
            cells.setdefault((label(row), at), []).append(float(value))
    if not cells:
        raise DataError(f"no run has a number {y}", next_step="Have they finished? See summary.csv.")
    numeric = all(isinstance(at, int | float) for _, at in cells)
    found: dict[str, list[Point]] = {}
    for (text, at), values in cells.items():
        error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        found.setdefault(text, []).append(Point(at if numeric else _shown(at), fmean(values), error, len(values)))
    return {text: sorted(of, key=lambda p: p.x) if numeric else of for text, of in found.items()}


def labels(rows: Sequence[Row], groups: Sequence[str]) -> Callable[[Row], str]:
    """Names of curves by the settings `groups`."""
    columns = [column(rows, name) for name in groups]
    texts = {
        row["run"]: ", ".join(f"{n.replace('_', ' ')} {_shown(v[k])}" for n, v in zip(groups, columns, strict=True))
        for k, row in enumerate(rows)
    }
    return lambda row: texts[row["run"]]


def _shown(value: Any) -> str:
    return "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def refuse_mixtures(rows: Sequence[Row], x: str, groups: Sequence[str]) -> None:
    """Raise ConfigError if runs that would be averaged differ in more than their seed."""
    alike: dict[tuple[Any, ...], Row] = {}
    for row, *at in zip(rows, *(column(rows, name) for name in (x, *groups)), strict=True):
        first = alike.setdefault(tuple(map(repr, at)), row["varied"])
        different = sorted(key for key, value in row["varied"].items() if key != "seed" and value != first.get(key))
        if different:
            raise ConfigError(
                "runs at one point of the picture differ in more than their seed",
                got=", ".join(different),
                next_step=f"Tell them apart with --group {different[0]}.",
            )


def default_axes(rows: Sequence[Row]) -> tuple[str, str, list[str]]:
    """What a sweep is about: x, the first setting that varies; y, its first final number; groups, what else varies.

    Raises:
        ConfigError: if nothing but the seed varies.
    """
    varied = what_varies(rows)
    if not varied:
        raise ConfigError("the runs of this sweep differ in their seed only", next_step="Name --x and --y.")
    return varied[0], FINAL_SHOWN[rows[0]["command"]][1], varied[1:]


def plot_sweep(
    rows: Sequence[Row], x: str, y: str, groups: Sequence[str] = (), *, log_x: bool = False, log_y: bool = False
) -> Figure:
    """Draw `points`, one curve for each combination of the settings `groups`.

    Raises:
        ConfigError: on an unknown name, or if runs that would be averaged differ in more than the seed.
        DataError: if no run has a number y.
    """
    curves = points(rows, x, y, labels(rows, groups))
    refuse_mixtures(rows, x, groups)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.2), layout="constrained", dpi=200)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw_points(axes, curves)
        axes.set_xlabel(x.replace("_", " "))
        axes.set_ylabel(y.replace("_", " "))
        values = list(dict.fromkeys(point.x for of in curves.values() for point in of))
        if log_x:
            axes.set_xscale("log")
        if len(values) <= 10 and (log_x or len(values) <= 4) and all(isinstance(v, int | float) for v in values):
            axes.set_xticks(sorted(values), [f"{value:g}" for value in sorted(values)])  # what was run
            axes.minorticks_off()
        if log_y:
            axes.set_yscale("log")
        if len(curves) > 1 or "" not in curves:
            axes.legend()
        counts = sorted({point.count for of in curves.values() for point in of})
        title = []
        if counts[-1] > 1:
            seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            title.append(f"mean and standard error, {seeds} seeds")
        if missing := len(rows) - sum(point.count for of in curves.values() for point in of):
            title.append(f"not shown: {missing} of {len(rows)} runs, failed or not finished")
        axes.set_title("\n".join(title))
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
