"""Comparison with the paper: its figures drawn from our runs, its numbers beside ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from htfcli.experiments.figures.fits import Panel, draw_panel, ranked_curves
from htfcli.experiments.figures.style import new_figure
from htfcli.experiments.figures.sweeps import Point, draw_points, points
from htfcli.experiments.paper.published import PUBLISHED_ACCURACY, PUBLISHED_DYNAMICS
from htfcli.experiments.sweeps.summary import Row
from htfcli.files.own.records import Records, load_records

LEFT_ZERO = 0.01  # a value has left zero once it exceeds this fraction of the largest final value
_TOP = 10
_PLAIN = "no regularizer"
_NORM, _SINGULAR = "component_norms", "singular_values"


@dataclass(frozen=True)
class Comparison:
    """One row of the table: a published number, empty if there is none, and ours."""

    case: str
    quantity: str
    published: str
    ours: str
    seeds: int


@dataclass(frozen=True)
class Curves:
    """A panel of curves that leave zero.

    Args:
        title: of the panel. model: whose runs are drawn. key: the list in their records. node: where it is recorded.
    """

    title: str
    model: str
    key: str
    node: str

    def of(self, run: Records) -> list[tuple[str, list[float | None]]]:
        """Label and values of the largest curves of a run."""
        return ranked_curves(self.node, self.key)(run)[:_TOP]


DYNAMICS = (
    Curves("matrix factorization", "matrix", _SINGULAR, "{0}"),
    Curves("tensor factorization", "cp", _NORM, "{0,1,2}"),
    Curves("hierarchical tensor factorization", "htf", _NORM, "{0,1,2,3}"),
)
MATRICIZATIONS = (
    Curves("local components at {1, 2}", "htf", _NORM, "{0,1}"),
    Curves("local components at {1, 2, 3, 4}", "htf", _NORM, "{0,1,2,3}"),
    Curves("matricization {1, 2}, in the tree", "htf", _SINGULAR, "{0,1}"),
    Curves("matricization {1, 3}, not in the tree", "htf", _SINGULAR, "{0,2}"),
)
_YLABEL = {_NORM: "component norm", _SINGULAR: "singular value"}


def runs_of(rows: Sequence[Row], sweep: Path, model: str) -> list[Records]:
    """Records of the finished fits of a model, in the order of the plan; `sweep` is the folder."""
    chosen = [row for row in rows if row["settings"]["model"] == model and row["status"] == "finished"]
    return [load_records(str(sweep / "runs" / row["run"])) for row in chosen]


def rises(curves: Sequence[Sequence[float | None]], iterations: Sequence[int]) -> list[int]:
    """The first recorded iteration at which each curve has left zero, for the curves that do."""
    values = np.array([[math.nan if v is None else v for v in curve] for curve in curves])
    above = values > LEFT_ZERO * np.nanmax(values[:, -1])
    return [iterations[int(np.argmax(row))] for row in above if row[-1]]


def draw_curves(rows: Sequence[Row], sweep: Path, panels: Sequence[Curves]) -> Figure:
    """Draw panels side by side, each of the first run of its model."""
    with new_figure(3.1 * len(panels), 2.5, dpi=200) as figure:
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), number + 1)
            run = runs_of(rows, sweep, panel.model)[0]
            shown = Panel(panel.title, _YLABEL[panel.key], panel.of, ranked=True)
            draw_panel(axes, shown, panel.of(run), [r["iteration"] for r in run.records], False, False)
            axes.set_title(panel.title)
            axes.set_ylabel(f"top {_TOP} {_YLABEL[panel.key]}s")
            axes.set_xlabel("iteration")
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    return figure


def compare_dynamics(rows: Sequence[Row], sweep: Path) -> list[Comparison]:
    """Compare how many values leave zero, when, and how many iterations a fit takes."""
    found = []
    for panel in DYNAMICS:
        runs = runs_of(rows, sweep, panel.model)
        rising = [rises([c for _, c in panel.of(run)], [r["iteration"] for r in run.records]) for run in runs]
        ours: dict[str, list[object]] = {
            "values that leave zero": [len(times) for times in rising],
            "one after another": ["yes" if len(set(times)) == len(times) else "some together" for times in rising],
            "they leave zero at iterations": ["; ".join(f"{time:,}" for time in times) for times in rising],
            "iterations": [run.records[-1]["iteration"] for run in runs],
        }
        for quantity, values in ours.items():
            published = PUBLISHED_DYNAMICS[quantity].get(panel.model, "")
            found.append(Comparison(panel.title, quantity, published, _listed(values), len(runs)))
    return found


def compare_matricizations(rows: Sequence[Row], sweep: Path) -> list[Comparison]:
    """Compare matricizations of nodes of the mode tree, which have low rank, with one that is not a node."""
    found = []
    for panel in MATRICIZATIONS:
        runs = runs_of(rows, sweep, panel.model)
        counts = [len(rises([c for _, c in panel.of(run)], [r["iteration"] for r in run.records])) for run in runs]
        published = "" if panel.node == "{0,2}" else "about 5"
        name = f"of the top {_TOP} {_YLABEL[panel.key]}s, those that leave zero"
        found.append(Comparison(panel.title, name, published, _listed(counts), len(runs)))
        if panel.key == _SINGULAR:
            ends = [_place(run, panel.node)["effective_rank"] for run in runs]
            found.append(Comparison(panel.title, "effective rank", "", _listed([f"{e:.2f}" for e in ends]), len(runs)))
    return found


def _place(run: Records, node: str) -> Row:
    """What the last record says of a node or matricization."""
    last = run.records[-1]
    places: list[Row] = [*last["nodes"], *last.get("matricizations", [])]
    return next(place for place in places if place["node"] == node)


def _listed(values: Sequence[object]) -> str:
    return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in values)


# --- accuracies -------------------------------------------------------------------------------------------------------


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
