"""Test accuracies of the published classification tasks: drawn from our runs, and beside the published ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from htfcli.experiments.figures.style import new_figure
from htfcli.experiments.figures.sweeps import Point, draw_points, points
from htfcli.experiments.paper.comparison import Comparison
from htfcli.experiments.paper.published import PUBLISHED_ACCURACY
from htfcli.experiments.sweeps.summary import Row

_PLAIN = "no regularizer"


def method_of(row: Row) -> str:
    """The regularization of a training, named as in the published legends."""
    s = row["settings"]
    if s["reg"] != "none":
        return f"coefficient {s['reg_coeff']:g}"
    if s["weight_decay"]:
        return f"weight decay {s['weight_decay']:g}"
    return f"dropout {s['dropout']:g}" if s["dropout"] else _PLAIN


def accuracies(rows: Sequence[Row], x: str) -> dict[str, list[Point]]:
    """Test accuracies in percent against the setting x, for each method."""
    plain_first = sorted(rows, key=lambda row: method_of(row) != _PLAIN)  # in any order of the plan
    found = points(plain_first, x, "test_accuracy", method_of)
    return {m: [Point(p.x, 100 * p.mean, 100 * p.error, p.count) for p in of] for m, of in found.items()}


def paired_gains(rows: Sequence[Row], x: str) -> dict[str, list[Point]]:
    """Test accuracy in percentage points above that of plain training with the same x and seed, for each method.

    A seed fixes images, initial weights and the order of batches, so differences vary less than accuracies do.
    """
    plain = {(row["settings"][x], row["varied"]["seed"]): row for row in rows if method_of(row) == _PLAIN}
    paired = []
    for row in rows:
        own, other = (_test_accuracy(r) for r in (row, plain.get((row["settings"][x], row["varied"]["seed"]))))
        if method_of(row) != _PLAIN and own is not None and other is not None:
            paired.append({**row, "final": {"gain": 100 * (own - other)}})
    return points(paired, x, "gain", method_of) if paired else {}


def _test_accuracy(row: Row | None) -> float | None:
    """The test accuracy of a run, None of a run that has none."""
    return ((row or {}).get("final") or {}).get("test_accuracy")


def draw_accuracies(rows: Sequence[Row], name: str, scale: str, x: str) -> Figure:
    """Draw test accuracy against x, one curve per method; at scale full the published curves too."""
    curves = accuracies(rows, x)
    with new_figure(4.2, 3.1, dpi=200) as figure:
        axes = figure.add_subplot()
        if all(len(of) == 1 for of in curves.values()):
            _draw_bars(axes, curves)
        else:
            draw_points(axes, curves)
            axes.set_xlabel({"distance": "distance between the images (pixels)"}.get(x, x.replace("_", " ")))
            axes.set_xticks(sorted({p.x for of in curves.values() for p in of}))
            if scale == "full":
                for method, values in PUBLISHED_ACCURACY[name].items():
                    axes.plot(list(values), list(values.values()), "--", color="0.6", linewidth=1, zorder=1)
                    axes.annotate(f"{method} (published)", (max(values), values[max(values)]), fontsize=5, color="0.5")
            axes.legend()
            axes.set_ylabel("test accuracy (%)")
    return figure


def _draw_bars(axes: Axes, curves: dict[str, list[Point]]) -> None:
    """Draw one bar per method, for a single distance; the axis starts at chance, or lower if a bar ends below."""
    names = list(curves)
    means = [curves[name][0].mean for name in names]
    errors = [0 if math.isnan(curves[name][0].error) else curves[name][0].error for name in names]
    colors = ["0.55" if not name.startswith("coefficient") else "#31688e" for name in names]
    axes.barh(names, means, xerr=errors, color=colors, height=0.6, capsize=3)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(min(50, min(m - e for m, e in zip(means, errors, strict=True)) - 2), None)
    axes.axvline(50, color="0.3", linewidth=0.8, linestyle=":")  # chance
    axes.set_xlabel("test accuracy (%)")


def compare_accuracies(rows: Sequence[Row], name: str, scale: str, x: str) -> list[Comparison]:
    """Means and standard errors beside the published means, then the gains over plain training in pairs of one seed.

    At scale mini both images and network differ from the published ones, whose numbers follow in separate rows.
    """
    axis = x.replace("_", " ")
    found = []
    for method, of in accuracies(rows, x).items():
        for p in of:
            published = PUBLISHED_ACCURACY[name].get(method, {}).get(p.x) if scale == "full" else None
            shown = "" if published is None else f"{published:.1f}"
            ours = f"{p.mean:.1f}{_error(p)}"
            found.append(Comparison(f"{axis} {p.x}", f"test accuracy (%), {method}", shown, ours, p.count))
    for method, of in paired_gains(rows, x).items():
        for p in of:
            ours = f"{p.mean:+.1f}{_error(p)}"
            found.append(Comparison(f"{axis} {p.x}", f"gain in points, paired, {method}", "", ours, p.count))
    if scale == "mini":
        for method, values in PUBLISHED_ACCURACY[name].items():
            for at, value in values.items():
                case = f"published setting, {axis} {at}"
                found.append(Comparison(case, f"test accuracy (%), {method}", f"{value:.1f}", "", 0))
    return found


def _error(point: Point) -> str:
    """The standard error of a mean, nothing for a single run."""
    return "" if math.isnan(point.error) else f" ± {point.error:.1f}"
