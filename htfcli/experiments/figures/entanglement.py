"""Figures of the entanglement of data: against level and position; one colour per data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from htfcli.config.records import Record
from htfcli.experiments.figures.style import panel_grid
from htfcli.files.own.records import Records

_MAPS = 3  # data sets of images of which a map is drawn


def plot_entanglement(runs: Sequence[Records]) -> Figure:
    """Draw the mean of every measure against the level, and entanglement at the finest level against position."""
    records = [record for run in runs for record in run.records]
    names = list(dict.fromkeys(record["data"] for record in records))
    of = {name: [record for record in records if record["data"] == name] for name in names}
    grids = [name for name in names if len(of[name][0]["position"]) == 2][:_MAPS]
    lines = [name for name in names if len(of[name][0]["position"]) == 1]
    count = 2 + bool(lines) + len(grids)
    with panel_grid(count, min(count, 2 if count == 4 else 3), 3.4, 2.7) as (figure, panels):
        for axes, key, title in zip(
            panels, ("entanglement", "surrogate"), ("entanglement", "surrogate: mean |correlation|"), strict=False
        ):
            _by_level(axes, of, key, title)
        if lines:
            _by_position(panels[2], {name: of[name] for name in lines}, names)
        finest = {name: _finest(of[name]) for name in grids}
        highest = max((record["entanglement"] for found in finest.values() for record in found), default=1.0)
        for axes, name in zip(panels[count - len(grids) :], grids, strict=True):
            _map(axes, finest[name], name, highest)
    return figure


def _by_level(axes: Axes, of: dict[str, list[Record]], key: str, title: str) -> None:
    """Mean per level, and every partition as a dot."""
    for number, (name, records) in enumerate(of.items()):
        levels = sorted({record["level"] for record in records})
        values = [[record[key] for record in records if record["level"] == level] for level in levels]
        axes.plot(levels, list(map(np.mean, values)), color=f"C{number}", marker="o", markersize=4, label=name)
        for level, found in zip(levels, values, strict=True):
            axes.plot([level] * len(found), found, ".", color=f"C{number}", markersize=2.5, alpha=0.4)
    axes.set_title(title)
    axes.set_xlabel("level of the partitions")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend()


def _by_position(axes: Axes, of: dict[str, list[Record]], names: Sequence[str]) -> None:
    for name, records in of.items():
        found = _finest(records)
        values = [record["entanglement"] for record in found]
        axes.stairs(values, np.linspace(0, 1, len(values) + 1), baseline=None, color=f"C{names.index(name)}")
    axes.set_title("entanglement of each block, finest level")
    axes.set_xlabel("position among the features")
    axes.set_ylim(bottom=0)


def _map(axes: Axes, records: Sequence[Record], name: str, highest: float) -> None:
    """Blocks of a grid; one scale of colours for all data sets."""
    side = 1 + np.array([record["position"] for record in records]).max(axis=0)
    values = np.full(side, np.nan)
    for record in records:
        values[tuple(record["position"])] = record["entanglement"]
    shown = axes.imshow(values, vmin=0, vmax=highest, cmap="viridis")
    axes.figure.colorbar(shown, ax=axes, shrink=0.8)
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{name}: level {records[0]['level']}")


def _finest(records: Sequence[Record]) -> list[Record]:
    last = max(record["level"] for record in records)
    return sorted((record for record in records if record["level"] == last), key=lambda record: record["position"])
