"""Figures of fits: quantities of their records against iterations.

A panel shows one quantity: local component norms of a node, singular values of a matricization, effective ranks, or
losses. One run is drawn as a grid of panels, several runs as one column each. Modes in titles count from 1, as in the
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
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from htfcli.config.records import Record
from htfcli.engine.factorizations.mode_tree import label_of
from htfcli.errors import DataError
from htfcli.experiments.figures.style import panel_grid, refuse_unknown
from htfcli.files.own.records import Records

Curves = list[tuple[str, list[float | None]]]  # label, and one value per record

DEFAULT = ("norms", "singular-values", "effective-rank", "loss")
_DEFAULT_NODES = 3  # nodes drawn if none is named, the largest ones


@dataclass(frozen=True)
class Panel:
    """What a panel shows.

    Args:
        title: of the panel. ylabel: of its vertical axis. curves: the curves of a run. log: whether the vertical axis
            is always logarithmic.
        ranked: whether the curves are the largest value, the second largest, ...: coloured in that order, no legend.
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
    """Draw the records of one or several fits.

    Args:
        runs: records of kind `iteration`. quantities: keys of `QUANTITIES`. nodes: mode sets to show; the largest ones
            if empty.
        top: curves per panel. log_x, log_y: logarithmic axes (the vertical one of losses and errors always is).
    Raises:
        ConfigError: on an unknown quantity. DataError: if the records hold none of the quantities at these nodes.
    """
    refuse_unknown(quantities, QUANTITIES)
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
    with panel_grid(len(cells), columns, 3.4, 2.5) as (figure, grid):
        for axes, (panel, run) in zip(grid, cells, strict=True):
            iterations = [record["iteration"] for record in run.records]
            draw_panel(axes, panel, panel.curves(run)[:top], iterations, log_x, log_y or panel.log)
            axes.set_title(panel.title if len(runs) == 1 else f"{run.name}\n{panel.title}")
            axes.set_ylabel(panel.ylabel)
            axes.set_xlabel("iteration")
    return figure


def draw_panel(axes: Axes, panel: Panel, curves: Curves, iterations: list[int], log_x: bool, log_y: bool) -> None:
    """Draw the curves of a panel against iterations."""
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


# --- quantities -------------------------------------------------------------------------------------------------------


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
    """What a record says of each node of the tree, then of each extra matricization."""
    return [*record.get("nodes", []), *record.get("matricizations", [])]


def _chosen(
    runs: Sequence[Records], key: str, nodes: Sequence[Sequence[int]], most: int = _DEFAULT_NODES
) -> list[tuple[str, str]]:
    """(label, title) of the nodes and matricizations to show that have `key`: those in `nodes`, or the `most` largest.

    By default leaves are left out unless there is nothing else, and so is a matricization with the same singular values
    as one already shown.
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
        inner = [modes for modes in found if len(modes) > 1 and order > 2]
        for modes in sorted(inner or found, key=lambda m: (-len(m), m)):
            rest = tuple(m for m in range(order) if m not in modes)
            if key == "component_norms" or rest not in wanted:
                wanted.append(modes)
        wanted = wanted[:most]
    return [(found[modes], label_of(modes, first=1).replace(",", ", ")) for modes in wanted]


def _series(run: Records, label: str, key: str) -> list[Any]:
    """The value of `key` at a node or matricization in each record; None where a record lacks it."""
    return [next((p.get(key) for p in _places(r) if p["node"] == label), None) for r in run.records]


def ranked_curves(label: str, key: str) -> Callable[[Records], Curves]:
    """Curves of the largest, the second largest, ... value of a list that is recorded at a node or matricization."""

    def curves(run: Records) -> Curves:
        series = _series(run, label, key)
        count = max((len(values) for values in series if values), default=0)
        return [(f"{k + 1}", [v[k] if v and k < len(v) else None for v in series]) for k in range(count)]

    return curves
