"""Figures from the records of fits, in a style fit for a paper.

A panel shows one quantity: local component norms of a node, singular values of a matricization, effective ranks,
losses. One run is drawn as a grid of panels, several runs as one column each. In titles modes count from 1, as in the
literature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from htfcli.engine.factorizations.mode_tree import label_of
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.experiments.figures.style import STYLE
from htfcli.files.own.records import Records

Record = dict[str, Any]
Curves = list[tuple[str, list[float | None]]]  # label, one value a record

DEFAULT = ("norms", "singular-values", "effective-rank", "loss")
_DEFAULT_NODES = 3  # nodes drawn when none is named, largest first


@dataclass(frozen=True)
class Panel:
    """What a panel shows.

    Args:
        title: of the panel. ylabel: of its vertical axis. curves: a run's curves. log: logarithmic by nature.
        ranked: the curves are the largest value, the second largest, ...: coloured in that order, not labelled.
    """

    title: str
    ylabel: str
    curves: Callable[[Records], Curves]
    log: bool = False
    ranked: bool = False


def plot_runs(
    runs: Sequence[Records],
    quantities: Sequence[str] = DEFAULT,
    nodes: Sequence[Sequence[int]] = (),
    *,
    top: int | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> Figure:
    """Draw the records of runs.

    Args:
        runs: one or more. quantities: keys of `QUANTITIES`. nodes: mode sets to show; the largest ones if empty.
        top: curves per panel. log_x, log_y: logarithmic axes (losses and errors always have a logarithmic vertical
        one).
    Raises:
        ConfigError: on an unknown quantity. DataError: if the records hold nothing of what is asked for.
    """
    unknown = [name for name in quantities if name not in QUANTITIES]
    if unknown:
        guess = did_you_mean(unknown[0], QUANTITIES)
        raise ConfigError("unknown quantity to plot", got=unknown[0], allowed=", ".join(QUANTITIES), next_step=guess)
    panels = [panel for name in quantities for panel in QUANTITIES[name](runs, nodes)]
    if not panels:
        present = sorted(
            {place["node"] for run in runs for place in _places(run.records[0])}, key=lambda n: (len(n), n)
        )
        raise DataError(
            f"the records have no {' or '.join(quantities)} to plot",
            got=", ".join(map(label_of, nodes)) or "no node",
            allowed=", ".join(present),
        )
    if len(runs) == 1:
        columns = min(len(panels), 3)
        cells = [(panel, runs[0]) for panel in panels]
    else:
        columns = len(runs)
        cells = [(panel, run) for panel in panels for run in runs]
    rows = math.ceil(len(cells) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * columns + 0.4, 2.5 * rows + 0.2), layout="constrained", dpi=160)
        FigureCanvasAgg(figure)
        for number, (panel, run) in enumerate(cells):
            axes = figure.add_subplot(rows, columns, number + 1)
            draw_panel(
                axes, panel, panel.curves(run)[:top], [r["iteration"] for r in run.records], log_x, log_y or panel.log
            )
            axes.set_title(panel.title if len(runs) == 1 else f"{run.name}\n{panel.title}")
            axes.set_ylabel(panel.ylabel)
            axes.set_xlabel("iteration")
    return figure


def draw_panel(axes: Axes, panel: Panel, curves: Curves, iterations: list[int], log_x: bool, log_y: bool) -> None:
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, max(len(curves), 1)))
    for rank, (label, values) in enumerate(curves):
        points = [math.nan if v is None else v for v in values]
        color = colors[rank] if panel.ranked else None
        axes.plot(iterations, points, color=color, label=label, zorder=2 + len(curves) - rank)
    if log_x:
        axes.set_xscale("symlog", linthresh=max(1, *iterations[1:2]))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    if log_y:
        axes.set_yscale("log")
    axes.margins(x=0.01)
    if not panel.ranked:
        axes.legend()


# --- panels -----------------------------------------------------------------------------------------------------------


def _norms(runs: Sequence[Records], nodes: Sequence[Sequence[int]]) -> list[Panel]:
    return [
        Panel(f"local components at {title}", "component norm", ranked_curves(label, "component_norms"), ranked=True)
        for label, title in _chosen(runs, "component_norms", nodes)
    ]


def _singular_values(runs: Sequence[Records], nodes: Sequence[Sequence[int]]) -> list[Panel]:
    return [
        Panel(f"matricization {title}", "singular value", ranked_curves(label, "singular_values"), ranked=True)
        for label, title in _chosen(runs, "singular_values", nodes)
    ]


def _effective_ranks(runs: Sequence[Records], nodes: Sequence[Sequence[int]]) -> list[Panel]:
    chosen = _chosen(runs, "effective_rank", nodes, most=8)

    def curves(run: Records) -> Curves:
        return [(title, _series(run, label, "effective_rank")) for label, title in chosen]

    return [Panel("effective ranks", "effective rank", curves)] if chosen else []


def _losses(runs: Sequence[Records], nodes: Sequence[Sequence[int]]) -> list[Panel]:
    return _scalars(runs, "loss", {"train_loss": "train", "test_loss": "test"})


def _errors(runs: Sequence[Records], nodes: Sequence[Sequence[int]]) -> list[Panel]:
    names = {"train_error": "train", "test_error": "test", "reconstruction_error": "whole tensor"}
    return _scalars(runs, "relative error", names)


QUANTITIES: dict[str, Callable[[Sequence[Records], Sequence[Sequence[int]]], list[Panel]]] = {
    "norms": _norms,
    "singular-values": _singular_values,
    "effective-rank": _effective_ranks,
    "loss": _losses,
    "error": _errors,
}


def _scalars(runs: Sequence[Records], title: str, names: dict[str, str]) -> list[Panel]:
    def curves(run: Records) -> Curves:
        return [(text, [r.get(key) for r in run.records]) for key, text in names.items() if key in run.records[0]]

    return [Panel(title, title, curves, log=True)] if any(curves(run) for run in runs) else []


def _places(record: Record) -> list[Record]:
    """Nodes of the tree, then the extra matricizations, each with its label."""
    return [*record.get("nodes", []), *record.get("matricizations", [])]


def _chosen(
    runs: Sequence[Records], key: str, nodes: Sequence[Sequence[int]], most: int = _DEFAULT_NODES
) -> list[tuple[str, str]]:
    """(label, title) of the places to show among those that have `key`: the ones asked for, or the largest.

    Unasked, leaves are left out, and so is a matricization that has the singular values of one already shown.
    """
    found: dict[tuple[int, ...], str] = {}
    order = 0
    for run in runs:
        for place in _places(run.records[0]):
            order = max(order, 1 + max(place["modes"]))
            if key in place:
                found.setdefault(tuple(place["modes"]), place["node"])
    if nodes:
        wanted = [tuple(sorted(modes)) for modes in nodes if tuple(sorted(modes)) in found]
    else:
        wanted = []
        for modes in sorted((m for m in found if len(m) > 1 or order == 2), key=lambda m: (-len(m), m)):
            rest = tuple(m for m in range(order) if m not in modes)
            if key == "component_norms" or rest not in wanted:
                wanted.append(modes)
        wanted = wanted[:most]
    return [(found[modes], label_of(modes, first=1).replace(",", ", ")) for modes in wanted]


def _series(run: Records, label: str, key: str) -> list[Any]:
    """The value of `key` at a place, record by record; None where a record lacks it."""
    return [next((p.get(key) for p in _places(r) if p["node"] == label), None) for r in run.records]


def ranked_curves(label: str, key: str) -> Callable[[Records], Curves]:
    """The largest, the second largest, ... of a list recorded at a place."""

    def curves(run: Records) -> Curves:
        series = _series(run, label, key)
        count = max((len(values) for values in series if values), default=0)
        return [(f"{k + 1}", [v[k] if v and k < len(v) else None for v in series]) for k in range(count)]

    return curves


# --- files ------------------------------------------------------------------------------------------------------------
