"""Figures of completions: why this tree and width, what ranks came out, how far predictions are to be trusted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.experiments.figures.style import STYLE
from htfcli.experiments.figures.tree_layout import node_places
from htfcli.files.own import container
from htfcli.files.own.completion import Slices, to_completion
from htfcli.files.own.records import Records

Record = dict[str, Any]
Drawer = Callable[[Any], None]  # draws on its axes; the slices, which are several, on their part of the figure
Array = np.ndarray[Any, np.dtype[np.float64]]

_TREES = 6  # drawn of those tried, best first
_HOLE = "0.88"


@dataclass(frozen=True)
class _Run:
    """A completion as it was kept.

    Args:
        name: of the run. steps: models tried. chosen: the one that was taken, if the search ended.
        summary: final numbers; empty if the search did not end, or only its records are there.
        slices: what was observed of slices, and what is predicted there, both (slices, rows, columns).
    """

    name: str
    steps: list[Record]
    chosen: Record | None
    summary: Record
    slices: tuple[Slices, Array] | None


def plot_completions(runs: Sequence[Records], panels: Sequence[str]) -> Figure:
    """Draw completions, one below the other.

    Args:
        runs: records of kind `complete`. panels: keys of `PANELS`; those that a run has nothing for are left out.
    Raises:
        ConfigError: on an unknown panel. DataError: if a run has nothing of what is asked for.
    """
    unknown = [name for name in panels if name not in PANELS]
    if unknown:
        guess = did_you_mean(unknown[0], PANELS)
        raise ConfigError("unknown quantity to plot", got=unknown[0], allowed=", ".join(PANELS), next_step=guess)
    loaded = [_load(run) for run in runs]
    drawers = [{name: draw for name in panels if (draw := PANELS[name](run)) is not None} for run in loaded]
    for run, wanted in zip(loaded, drawers, strict=True):
        if not wanted:
            raise DataError(f"{run.name} has nothing to draw of this", got=", ".join(panels), allowed="a finished run")
    heights = [_heights(run, wanted) for run, wanted in zip(loaded, drawers, strict=True)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, sum(map(sum, heights)) + 0.3 * len(runs)), layout="constrained", dpi=160)
        FigureCanvasAgg(figure)
        parts = figure.subfigures(len(runs), 1, height_ratios=list(map(sum, heights)), squeeze=False)[:, 0]
        for part, run, wanted, height in zip(parts, loaded, drawers, heights, strict=True):
            if len(runs) > 1:
                part.suptitle(run.name, fontweight="bold")
            _draw(part, wanted, height)
    return figure


def _heights(run: _Run, drawers: dict[str, Drawer]) -> list[float]:
    """Inches for the panels side by side, and for the slices below them."""
    slices = 2.2 * len(run.slices[0].at) if "slices" in drawers and run.slices is not None else 0.0
    return [3.4 if drawers.keys() - {"slices"} else 0.0, slices]


def _draw(part: SubFigure, drawers: dict[str, Drawer], heights: list[float]) -> None:
    above, below = part, part
    if all(heights):
        above, below = part.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    panels = [name for name in drawers if name != "slices"]
    if panels:
        for name, axes in zip(panels, above.subplots(1, len(panels), squeeze=False)[0], strict=True):
            drawers[name](axes)
    if "slices" in drawers:
        drawers["slices"](below)


def _load(records: Records) -> _Run:
    chosen = [r for r in records.records if r.get("stage") == "chosen"]
    steps = [r for r in records.records if r.get("stage") != "chosen"]
    summary: Record = {}
    slices = None
    if records.folder is not None and (records.folder / "summary.json").exists():
        try:
            summary = json.loads((records.folder / "summary.json").read_text(encoding="utf-8"))
        except ValueError:
            raise DataError(f"{records.folder / 'summary.json'} is damaged: it is not JSON") from None
        slices = _predicted_slices(records.folder)
    return _Run(records.name, steps, chosen[-1] if chosen else None, summary, slices)


def _predicted_slices(folder: Path) -> tuple[Slices, Array] | None:
    saved = to_completion(container.read(folder / "model.safetensors"))
    slices = saved.slices
    if slices is None:
        return None
    sides = [d for mode, d in enumerate(saved.completion.predictor.dims) if mode != slices.mode]
    rows, columns = (torch.arange(0, d, step) for d, step in zip(sides, slices.step, strict=True))
    parts = list(torch.meshgrid(torch.tensor(slices.at), rows, columns, indexing="ij"))
    across = parts.pop(0)
    parts.insert(slices.mode, across)
    index = torch.stack([part.flatten() for part in parts], dim=1)
    predicted = saved.completion.predictor.values(index).view(across.shape)
    return slices, predicted.numpy()


# --- panels: a run -> what draws it, or None if the run has nothing for it --------------------------------------------


def _validation(run: _Run) -> Drawer | None:
    """Held-out and train error by width, a line a tree."""
    steps = [s for s in run.steps if _finite(s.get("held_out_error")) and isinstance(s.get("width"), int)]
    if not steps:
        return None

    def draw(axes: Axes) -> None:
        best: dict[str, dict[int, Record]] = {}  # of every tree and width the model with the least held-out error
        for step in sorted(steps, key=lambda s: -s["held_out_error"]):
            best.setdefault(str(step.get("tree", "")), {})[step["width"]] = step
        trees = sorted(best, key=lambda tree: min(s["held_out_error"] for s in best[tree].values()))[:_TREES]
        for color, tree in zip(matplotlib.colormaps["tab10"].colors, trees, strict=False):  # type: ignore[attr-defined]
            curve = [best[tree][width] for width in sorted(best[tree])]
            at = [s["width"] for s in curve]
            label = _with_names(tree, run.summary.get("modes"))
            axes.plot(at, [s["held_out_error"] for s in curve], "o-", color=color, markersize=4, label=label)
            train = [s["train_error"] if _finite(s.get("train_error")) else math.nan for s in curve]
            axes.plot(at, train, "--", color=color, linewidth=1, alpha=0.7)
        if run.chosen is not None and _finite(run.chosen.get("held_out_error")):
            point = ([run.chosen["width"]], [run.chosen["held_out_error"]])
            axes.plot(*point, "*", color="black", markersize=10, linestyle="none", label="chosen", zorder=9)
        axes.plot([], [], "--", color="0.4", linewidth=1, label="train")
        axes.set(title="error by width (solid: held out)", xlabel="width", ylabel="relative error", yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=2)  # inside it would hide the minimum

    return draw


def _tree(run: _Run) -> Drawer | None:
    """The mode tree, its nodes coloured by effective rank and labelled by rank."""
    if "mode_tree" not in run.summary:
        return None

    def draw(axes: Axes) -> None:
        tree = ModeTree.from_nested(run.summary["mode_tree"])
        names = [f"mode {name}" if name.isdigit() else name for name in run.summary["modes"]]
        ranks = run.summary["hierarchical_rank"]
        effective: Record = run.summary.get("effective_rank") or ranks
        x, y = node_places(tree)
        for node, parent in enumerate(tree.parent[:-1]):
            axes.plot([x[node], x[parent]], [y[node], y[parent]], color="0.7", linewidth=1.2, zorder=1)
        inner = range(tree.root)
        colors = [effective.get(tree.labels[v]) or math.nan for v in inner]
        norm = Normalize(1, max([c for c in colors if _finite(c)], default=2))
        size = 420 if tree.order <= 12 else 120
        axes.scatter([x[v] for v in inner], [y[v] for v in inner], size, colors, cmap="viridis", norm=norm, zorder=2)
        axes.scatter([x[tree.root]], [y[tree.root]], size / 3, "0.7", zorder=2)
        if tree.order <= 12:
            for v in inner:
                light = _finite(colors[v]) and norm(colors[v]) > 0.6
                text = ranks.get(tree.labels[v], "")
                axes.text(x[v], y[v], str(text), ha="center", va="center", color="black" if light else "white")
        slanted = sum(map(len, names)) > 36
        for mode, name in enumerate(names if tree.order <= 32 else []):
            axes.annotate(
                name if len(name) <= 18 else f"{name[:17]}...",
                (x[mode], y[mode]),
                (0, -15),
                textcoords="offset points",
                ha="right" if slanted else "center",
                va="top",
                rotation=35 if slanted else 0,
                rotation_mode="anchor",
            )
        axes.set_axis_off()
        axes.margins(0.12, 0.22)
        axes.set_title("mode tree: rank of every node")
        shades = ScalarMappable(norm, "viridis")
        axes.figure.colorbar(shades, ax=axes, label="effective rank", shrink=0.7, aspect=18, pad=0.02)

    return draw


def _held_out(run: _Run) -> Drawer | None:
    """Predicted against observed values of held-out entries."""
    points = run.summary.get("held_out") or {}
    pairs = [
        (o, p)
        for o, p in zip(points.get("observed", []), points.get("predicted", []), strict=False)
        if _finite(o) and _finite(p)
    ]
    if not pairs:
        return None

    def draw(axes: Axes) -> None:
        observed, predicted = np.array(pairs).T
        low, high = min(observed.min(), predicted.min()), max(observed.max(), predicted.max())
        axes.axline((low, low), (high, high), color="0.5", linewidth=1) if high > low else None
        axes.scatter(observed, predicted, 9, alpha=min(1.0, 0.2 + 60 / len(pairs)), linewidths=0, color="tab:blue")
        r2 = run.summary.get("r2")
        text = f"held-out entries, $R^2$ = {r2:.3g}" if _finite(r2) else "held-out entries"
        axes.set(title=text, xlabel="observed", ylabel="predicted", aspect="equal", adjustable="datalim")

    return draw


def _slices(run: _Run) -> Drawer | None:
    """Slices as they were observed, completed, and the difference where something was observed."""
    if run.slices is None:
        return None
    slices, predicted = run.slices
    names = run.summary["modes"]

    def draw(part: Figure | SubFigure) -> None:
        observed = slices.observed.numpy()
        completed = np.where(np.isnan(observed), predicted, observed)
        difference = predicted - observed
        known = observed[np.isfinite(observed)]
        low, high = np.quantile(known, [0.01, 0.99]) if len(known) else (completed.min(), completed.max())
        far = float(np.nanmax(np.abs(difference), initial=0.0)) or 1.0
        grid = part.subplots(len(slices.at), 3, squeeze=False)
        for row, at in enumerate(slices.at):
            label = f"{'mode ' if names[slices.mode].isdigit() else ''}{names[slices.mode]}, index {at}"
            for axes, (title, image, limits, colors) in zip(
                grid[row],
                (
                    ("observed", observed, (low, high), "viridis"),
                    ("completed", completed, (low, high), "viridis"),
                    ("model - observed", difference, (-far, far), "RdBu_r"),
                ),
                strict=True,
            ):
                shades = matplotlib.colormaps[colors].with_extremes(bad=_HOLE)
                shown = axes.imshow(image[row], shades, vmin=limits[0], vmax=limits[1], aspect="auto")
                axes.set(title=f"{title} ({label})" if title == "observed" else title, xticks=[], yticks=[])
                axes.grid(visible=False)
                if title != "observed":
                    part.colorbar(shown, ax=axes, aspect=18, pad=0.02)

    return draw


PANELS: dict[str, Callable[[_Run], Drawer | None]] = {
    "validation": _validation,
    "tree": _tree,
    "held-out": _held_out,
    "slices": _slices,
}


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _with_names(tree: str, names: Sequence[str] | None) -> str:
    """A tree as the engine writes it, `((0, 1), 2)`, with the names of its modes."""
    text = tree
    if names is not None and all(int(mode) < len(names) for mode in re.findall(r"\d+", tree)):
        text = re.sub(r"\d+", lambda mode: names[int(mode[0])], tree)
    return text if len(text) <= 48 else f"{text[:47]}..."
