"""Style and file formats of all figures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from htfcli.errors import ConfigError

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
    "svg.hashsalt": "htf",  # the same bytes for the same figure
}


def kind_of(path: str) -> str:
    """Picture format by suffix; PNG for stdout.

    Raises:
        ConfigError: if it is not one of `FORMATS`.
    """
    kind = "png" if path == "-" else Path(path).suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ConfigError(
            "pictures are not written in this format", got=kind or "no suffix", allowed=", ".join(FORMATS)
        )
    return kind


def render(figure: Figure, kind: str) -> bytes:
    """The figure as a file of the given kind; the same bytes for the same figure."""
    undated: Any = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, metadata=undated)
    return buffer.getvalue()
