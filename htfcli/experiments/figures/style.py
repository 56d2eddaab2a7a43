"""The style of all figures, their file formats, and what every kind of figure needs to be set up."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from htfcli.errors import ConfigError, did_you_mean

FORMATS = ("png", "svg", "pdf")


STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "svg.hashsalt": "htf",  # so that the same figure is written as the same bytes
}


@contextmanager
def new_figure(width: float, height: float, dpi: int = 160) -> Iterator[Figure]:
    """An empty figure of width x height inches, with the common style in force while the block runs."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=dpi)
        FigureCanvasAgg(figure)
        yield figure


@contextmanager
def panel_grid(count: int, columns: int, width: float, height: float) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with `count` panels of width x height inches in rows of `columns`, as `new_figure`."""
    rows = math.ceil(count / columns)
    with new_figure(width * columns + 0.4, height * rows + 0.2) as figure:
        yield figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def refuse_unknown(names: Sequence[str], known: Collection[str]) -> None:
    """Raise ConfigError for the first of the quantities `names` that is not among those that can be drawn."""
    for name in names:
        if name not in known:
            guess = did_you_mean(name, known)
            raise ConfigError("unknown quantity to plot", got=name, allowed=", ".join(known), next_step=guess)


def kind_of(path: str) -> str:
    """The picture format that a file name asks for; PNG for stdout.

    Raises:
        ConfigError: if it is not one of `FORMATS`.
    """
    kind = "png" if path == "-" else Path(path).suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ConfigError("unsupported picture format", got=kind or "no suffix", allowed=", ".join(FORMATS))
    return kind


def render(figure: Figure, kind: str) -> bytes:
    """The figure as a file of the given format; the same figure gives the same bytes."""
    undated: Any = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, metadata=undated)
    return buffer.getvalue()
