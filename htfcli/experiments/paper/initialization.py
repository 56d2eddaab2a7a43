"""Balanced against unbalanced initialization: the theorem assumes the former, and training usually has the latter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from htfcli.config.records import Record
from htfcli.engine.fitting.records import derivative_error
from htfcli.experiments.figures.style import new_figure
from htfcli.experiments.paper.comparison import Comparison, quartiles
from htfcli.experiments.sweeps.summary import Row
from htfcli.files.own.records import Records, load_records

_INITS = {"balanced": "#31688e", "gaussian": "#d95f02"}
_NODE = "{0,1}"
_SEEDS = {"mini": 10, "full": 30}


def plan(scale: str) -> dict[str, Any]:
    """The plan of a scale, mini or full, which has more seeds."""
    return {
        "command": "fit",
        "generate": {"order": 4, "dim": 5, "width": 2, "observed": 0.5},
        "base": {
            "width": 8,
            "dtype": "float64",
            "iterations": 4000,
            "record_every": 50,
            "threads": 1,
            "until_loss": 0.0,
        },
        "grid": {"init_std": [0.05, 0.15, 0.4], "init": list(_INITS)},
        "seeds": _SEEDS[scale],
    }


def _effective_rank(record: Record) -> float | None:
    return next((p["effective_rank"] for p in record["nodes"] if p["node"] == _NODE), None)


_QUANTITIES: dict[str, tuple[Callable[[Record], float | None], bool]] = {  # value of a record, logarithmic axis
    "unbalancedness": (lambda record: max(record["unbalancedness"], 1e-17), True),
    "derivative: relative difference": (derivative_error, True),
    "effective rank at {1, 2}": (_effective_rank, False),
    "test error": (lambda record: record["test_error"], True),
}


def draw_initialization(rows: Sequence[Row], sweep: Path) -> Figure:
    """A row for each quantity, a column for each scale; medians over seeds as lines, quartiles as bands."""
    groups = _groups(rows, sweep)
    scales = sorted({std for std, _ in groups})
    with new_figure(2.9 * len(scales), 1.75 * len(_QUANTITIES) + 0.3, dpi=200) as figure:
        grid = figure.subplots(len(_QUANTITIES), len(scales), sharex=True, sharey="row", squeeze=False)
        for y, (name, (value, log)) in enumerate(_QUANTITIES.items()):
            for x, std in enumerate(scales):
                for init in _INITS:
                    if (std, init) in groups:
                        _draw_band(grid[y, x], groups[std, init], value, init)
                if log:
                    grid[y, x].set_yscale("log")
                if x == 0:
                    grid[y, x].set_ylabel(name.replace(": ", ":\n"))
                if y == 0:
                    grid[y, x].set_title(f"standard deviation {std:g}")
        for axes in grid[-1]:
            axes.set_xlabel("iteration")
        grid[0, 0].legend()
    return figure


def _draw_band(axes: Axes, runs: Sequence[Records], value: Callable[[Record], float | None], init: str) -> None:
    iterations = [record["iteration"] for record in runs[0].records]
    low, middle, high = np.nanquantile(
        _values(runs, value)[:, :-1], [0.25, 0.5, 0.75], axis=0
    )  # no step after the last
    axes.plot(iterations[:-1], middle, color=_INITS[init], label=init)
    axes.fill_between(iterations[:-1], low, high, color=_INITS[init], alpha=0.25, linewidth=0)


def _values(runs: Sequence[Records], value: Callable[[Record], float | None]) -> npt.NDArray[np.float64]:
    """(runs, records)"""
    found = [[value(record) for record in run.records] for run in runs]
    return np.array([[math.nan if v is None else v for v in of] for of in found])


def compare_initialization(rows: Sequence[Row], sweep: Path) -> list[Comparison]:
    """Medians and quartiles over seeds: of each seed's mean difference of derivatives, and of its end."""
    found = []
    for (std, init), runs in _groups(rows, sweep).items():
        case = f"{init}, standard deviation {std:g}"
        for name, (value, _) in _QUANTITIES.items():
            values = _values(runs, value)
            derivative = value is derivative_error
            of_seed = np.nanmedian(values, axis=1) if derivative else values[:, -1]
            where = "median over iterations" if derivative else "at the end"
            text = f"{name}, {where}: median (quartiles) over seeds"
            found.append(Comparison(case, text, "", quartiles(of_seed.tolist()), len(runs)))
    return found


def _groups(rows: Sequence[Row], sweep: Path) -> dict[tuple[float, str], list[Records]]:
    """Finished runs by scale and kind of initialization."""
    found: dict[tuple[float, str], list[Records]] = {}
    for row in rows:
        if row["status"] == "finished":
            key = row["settings"]["init_std"], row["settings"]["init"]
            found.setdefault(key, []).append(load_records(str(sweep / "runs" / row["run"])))
    return found
