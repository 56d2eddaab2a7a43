"""Figures of networks: trainings against epochs, locality against distance; one colour a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from htfcli.errors import DataError
from htfcli.experiments.figures.style import STYLE
from htfcli.files.own.records import Records

Record = dict[str, Any]
Series = dict[str, tuple[list[float], list[float]]]  # by name: horizontal and vertical values


@dataclass(frozen=True)
class Panel:
    """One quantity of every network.

    Args:
        title, xlabel: of the panel. solid: curves in full. dashed: a companion of each in the same colour.
        companions: what solid and dashed are, for the legend. mark: where a vertical line stands, and what it says.
    """

    title: str
    xlabel: str
    solid: Series
    dashed: Series | None = None
    companions: tuple[str, str] = ("", "")
    log: bool = False
    mark: tuple[float, str] | None = None


def plot_training(runs: Sequence[Records]) -> Figure:
    """Accuracies, task loss and regularizer against epochs."""

    def series(key: str) -> Series:
        return {
            name: ([r["epoch"] for r in run.records if r.get(key) is not None], _values(run.records, key))
            for name, run in zip(_names([run.name for run in runs]), runs, strict=True)
        }

    panels = [
        Panel("accuracy", "epoch", series("test_accuracy"), series("train_accuracy"), ("test", "train")),
        Panel("loss", "epoch", series("test_loss"), series("task_loss"), ("test", "train"), log=True),
        Panel("regularizer R", "epoch", series("regularizer")),
    ]
    return _figure([panel for panel in panels if any(y for _, y in panel.solid.values())])


def plot_locality(runs: Sequence[Records]) -> Figure:
    """Every measure of `htf measure-locality` against distance.

    Raises:
        DataError: if the records hold none of them.
    """
    records = [record for run in runs for record in run.records]
    of_patches = [r for r in records if r.get("measure") in ("patches", "images")]
    trained = {r["trained_distance"] for r in of_patches if "trained_distance" in r}
    mark = (trained.pop(), "trained here") if len(trained) == 1 else None
    between = "between the two images" if any(r["measure"] == "images" for r in of_patches) else "between patches"
    xlabel = f"distance {between} (pixels)"
    ranks = [r for r in records if r.get("measure") == "hierarchical-rank"]
    fields = [r for r in records if r.get("measure") == "receptive-field"]
    panels = [
        Panel(title, xlabel, _by_model(of_patches, key), mark=mark)
        for title, key in (
            ("dependence", "dependence"),
            ("interaction: share that is not a sum", "additive_residual"),
            ("effective rank of the cross table", "effective_rank"),
        )
    ]
    profiles: Series = {
        r["model"]: ([float(d) for d in range(len(r["profile"]))], list(accumulate(r["profile"]))) for r in fields
    }
    panels.append(Panel("input gradient within a distance", "distance from the centre (pixels)", profiles))
    panels += [
        Panel(f"hierarchical tensor: {title}", "modes under a node lie this far apart", _by_model(ranks, key))
        for title, key in (("rank", "rank"), ("effective rank", "effective_rank"))
    ]
    panels = [panel for panel in panels if any(y for _, y in panel.solid.values())]
    if not panels:
        raise DataError("the records have no measure of locality to plot")
    return _figure(panels)


def _by_model(records: Sequence[Record], key: str) -> Series:
    series: Series = {}
    for record in sorted(records, key=lambda r: r["distance"]):
        if record.get(key) is not None:
            x, y = series.setdefault(record["model"], ([], []))
            x.append(record["distance"])
            y.append(record[key])
    names = list(dict.fromkeys(record["model"] for record in records))  # colours in the order of the records
    return {name: series[name] for name in names if name in series}


def _values(records: Sequence[Record], key: str) -> list[float]:
    return [record[key] for record in records if record.get(key) is not None]


def _names(names: Sequence[str]) -> list[str]:
    """Names that occur again are numbered."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)
    ]


def _figure(panels: Sequence[Panel]) -> Figure:
    columns = min(len(panels), 2 if len(panels) in (2, 4) else 3)
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns + 0.4, 2.6 * rows + 0.2), layout="constrained", dpi=160)
        FigureCanvasAgg(figure)
        for number, panel in enumerate(panels):
            _draw(figure.add_subplot(rows, columns, number + 1), panel, legend=number == 0)
    return figure


def _draw(axes: Axes, panel: Panel, legend: bool) -> None:
    for number, (name, (x, y)) in enumerate(panel.solid.items()):
        marker = "o" if len(x) <= 20 else ""
        axes.plot(x, y, color=f"C{number}", label=name, marker=marker, markersize=3.5)
        if panel.dashed is not None and name in panel.dashed:
            axes.plot(*panel.dashed[name], color=f"C{number}", linestyle=":", linewidth=1.1)
    if panel.mark is not None:
        place, text = panel.mark
        axes.axvline(place, color="0.5", linestyle="--", linewidth=0.8, zorder=1)
        axes.annotate(
            text, (place, 1), xycoords=("data", "axes fraction"), xytext=(-3, -2), textcoords="offset points",
            ha="right", va="top", fontsize=7, color="0.4",
        )  # fmt: skip
    axes.set_title(panel.title)
    axes.set_xlabel(panel.xlabel)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if panel.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    if panel.dashed is not None:
        solid, dashed = panel.companions
        axes.plot([], [], color="0.3", label=solid)
        axes.plot([], [], color="0.3", linestyle=":", linewidth=1.1, label=dashed)
    if legend or panel.dashed is not None:
        axes.legend()
