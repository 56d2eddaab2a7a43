"""Figures of completions: which members count, what ranks came out, how far predictions are to be trusted."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from htfcli.config.records import Record
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.experiments.figures.style import STYLE
from htfcli.experiments.figures.tree_layout import draw_tree
from htfcli.experiments.runs.completion_summary import COUNTS, member_name
from htfcli.files.own import container
from htfcli.files.own.completion import SavedCompletion, Slices, to_completion
from htfcli.files.own.records import Records

Drawer = Callable[[Any], None]  # draws on its axes; the slices, which are several, on their part of the figure
Array = np.ndarray[Any, np.dtype[np.float64]]

_CURVES = 4  # models drawn of those fitted, best first
_BARS = 10  # members drawn, heaviest first
_COLUMNS = 3  # panels side by side
_HOLE = "0.88"


@dataclass(frozen=True)
class DrawnCompletion:
    """A completion as it is drawn.

    Args:
        name: of the run. steps: models fitted. summary: final numbers; empty if the run did not end, or only its
            records are there.
        slices: what was observed of slices, and what is predicted there, both (slices, rows, columns).
    """

    name: str
    steps: list[Record]
    summary: Record
    slices: tuple[Slices, Array] | None


def plot_completions(runs: Sequence[Records], panels: Sequence[str]) -> Figure:
    """Draw completions, one below the other.

    Args:
        runs: records of kind `complete`. panels: keys of `PANELS`; those that a run has nothing for are left out.
    Raises:
        ConfigError: on an unknown panel. DataError: if a run has nothing of what is asked for.
    """
    return draw_completions([_load(run) for run in runs], panels)


def draw_completions(loaded: Sequence[DrawnCompletion], panels: Sequence[str]) -> Figure:
    """As `plot_completions`, for completions that need not have been kept in files."""
    unknown = [name for name in panels if name not in PANELS]
    if unknown:
        guess = did_you_mean(unknown[0], PANELS)
        raise ConfigError("unknown quantity to plot", got=unknown[0], allowed=", ".join(PANELS), next_step=guess)
    drawers = [{name: draw for name in panels if (draw := PANELS[name](run)) is not None} for run in loaded]
    for run, wanted in zip(loaded, drawers, strict=True):
        if not wanted:
            raise DataError(f"{run.name} has nothing to draw of this", got=", ".join(panels), allowed="a finished run")
    heights = [_heights(run, wanted) for run, wanted in zip(loaded, drawers, strict=True)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, sum(map(sum, heights)) + 0.3 * len(loaded)), layout="constrained", dpi=160)
        FigureCanvasAgg(figure)
        parts = figure.subfigures(len(loaded), 1, height_ratios=list(map(sum, heights)), squeeze=False)[:, 0]
        for part, run, wanted, height in zip(parts, loaded, drawers, heights, strict=True):
            if len(loaded) > 1:
                part.suptitle(run.name, fontweight="bold")
            _draw(part, wanted, height)
    return figure


def _heights(run: DrawnCompletion, drawers: dict[str, Drawer]) -> list[float]:
    """Inches for the panels side by side, and for the slices below them."""
    slices = 2.2 * len(run.slices[0].at) if "slices" in drawers and run.slices is not None else 0.0
    return [3.2 * -(-len(drawers.keys() - {"slices"}) // _COLUMNS), slices]


def _draw(part: SubFigure, drawers: dict[str, Drawer], heights: list[float]) -> None:
    above, below = part, part
    if all(heights):
        above, below = part.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    panels = [name for name in drawers if name != "slices"]
    if panels:
        columns = min(len(panels), _COLUMNS)
        grid = above.subplots(-(-len(panels) // columns), columns, squeeze=False).flatten()
        for name, axes in zip(panels, grid, strict=False):
            drawers[name](axes)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
    if "slices" in drawers:
        drawers["slices"](below)


def _load(records: Records) -> DrawnCompletion:
    summary: Record = {}
    slices = None
    if records.folder is not None and (records.folder / "summary.json").exists():
        try:
            summary = json.loads((records.folder / "summary.json").read_text(encoding="utf-8"))
        except ValueError:
            raise DataError(f"{records.folder / 'summary.json'} is damaged: it is not JSON") from None
        slices = predicted_slices(to_completion(container.read(records.folder / "model.safetensors")))
    return DrawnCompletion(records.name, list(records.records), summary, slices)


def predicted_slices(saved: SavedCompletion) -> tuple[Slices, Array] | None:
    """The slices that a completion kept, and what it predicts there, (slices, rows, columns)."""
    slices = saved.slices
    if slices is None:
        return None
    sides = [d for mode, d in enumerate(saved.completion.dims) if mode != slices.mode]
    rows, columns = (torch.arange(0, d, step) for d, step in zip(sides, slices.step, strict=True))
    parts = list(torch.meshgrid(torch.tensor(slices.at), rows, columns, indexing="ij"))
    across = parts.pop(0)
    parts.insert(slices.mode, across)
    index = torch.stack([part.flatten() for part in parts], dim=1)
    predicted = saved.completion.values(index).view(across.shape)
    return slices, predicted.numpy()


# --- panels: a run -> what draws it, or None if the run has nothing for it --------------------------------------------


def _members(run: DrawnCompletion) -> Drawer | None:
    """The weights of the members, one bar per kind of holes."""
    members = [m for m in run.summary.get("members") or [] if any(map(_counts, (m.get("weights") or {}).values()))]
    if not members:
        return None

    def draw(axes: Axes) -> None:
        shown = sorted(members, key=lambda m: -sum(filter(_counts, m["weights"].values())))[:_BARS]
        kinds = list(dict.fromkeys(kind for member in shown for kind in member["weights"]))
        height = 0.8 / len(kinds)
        for number, kind in enumerate(kinds):
            at = [row + (number - (len(kinds) - 1) / 2) * height for row in range(len(shown))]
            weights = [member["weights"].get(kind) or 0.0 for member in shown]
            axes.barh(at, weights, height, color=_color(number), label=_short(kind, 40))
        axes.set_yticks(range(len(shown)), [_wrapped(member_name(member), 34) for member in shown], fontsize=6)
        axes.invert_yaxis()
        axes.set(title="members and their weights", xlabel="weight", xlim=(0, 1))
        if len(kinds) > 1:
            axes.legend(title="kind of holes", loc="lower right", fontsize=7, title_fontsize=7)

    return draw


def _errors(run: DrawnCompletion) -> Drawer | None:
    """Held-out errors for random and hole-like patterns, beside the baseline."""
    kinds = {kind: one for kind, one in (run.summary.get("held_out") or {}).items() if _finite(one.get("error"))}
    if not kinds:
        return None

    def draw(axes: Axes) -> None:
        at = np.arange(len(kinds))
        errors = [one["error"] for one in kinds.values()]
        baselines = [_or_nan(one.get("baseline")) for one in kinds.values()]
        axes.bar(at - 0.2, errors, 0.4, color=[_color(number) for number in range(len(kinds))], label="completion")
        axes.bar(at + 0.2, baselines, 0.4, color="0.75", label="baseline")
        for x, height in zip([*(at - 0.2), *(at + 0.2)], [*errors, *baselines], strict=True):
            if math.isfinite(height):
                axes.annotate(f"{height:.2g}", (x, height), (0, 2), textcoords="offset points", ha="center", fontsize=7)
        labels = []
        for kind, one in kinds.items():
            share = one.get("share")
            labels.append(_wrapped(kind, 16) + (f"\n{100 * share:.0f} % of the holes" if _finite(share) else ""))
        axes.set_xticks(at, labels, fontsize=7)
        axes.set(title="held-out error by kind of holes", ylabel="relative error")
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.25)
        handles = [Patch(color="0.3", label="completion"), Patch(color="0.75", label="baseline")]
        axes.legend(handles=handles, fontsize=7, loc="upper center", ncols=2)

    return draw


def _calibration(run: DrawnCompletion) -> Drawer | None:
    """The share of held-out entries inside intervals, against what the intervals state."""
    curves = {
        kind: (one["stated"], one["observed"])
        for kind, one in (run.summary.get("calibration") or {}).items()
        if one.get("stated") and len(one["stated"]) == len(one.get("observed", []))
    }
    if not curves:
        return None

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="as stated")
        for number, (kind, (stated, observed)) in enumerate(curves.items()):
            axes.plot(stated, observed, "o-", color=_color(number), markersize=3, label=_short(kind, 40))
        axes.set(
            title="calibration of intervals",
            xlabel="stated share inside",
            ylabel="held-out share inside",
            xlim=(0, 1),
            ylim=(0, 1.02),
        )
        axes.legend(loc="upper left", fontsize=7)

    return draw


def _ridge(run: DrawnCompletion) -> Drawer | None:
    """Held-out and train error of the factorizations along the falling ridge, one line per tree and width."""
    steps = [s for s in run.steps if all(_finite(s.get(key)) for key in ("held_out_error", "ridge", "width"))]
    steps = [s for s in steps if s["ridge"] > 0]
    if not steps:
        return None

    def draw(axes: Axes) -> None:
        models: dict[tuple[str, str, int], dict[float, Record]] = {}
        for step in steps:
            key = (str(step.get("stage", "")), str(step.get("tree", "")), step["width"])
            curve = models.setdefault(key, {})
            if step["held_out_error"] <= curve.get(step["ridge"], step)["held_out_error"]:
                curve[step["ridge"]] = step
        best = sorted(models, key=lambda key: min(s["held_out_error"] for s in models[key].values()))[:_CURVES]
        for number, key in enumerate(best):
            at = sorted(models[key])
            label = f"{_with_names(key[1], run.summary.get('modes'))}, width {key[2]}"
            label += f", {key[0]}" if key[0] not in ("", "factorization") else ""
            axes.plot(at, [models[key][r]["held_out_error"] for r in at], "o-", color=_color(number), markersize=3)
            train = [_or_nan(models[key][r].get("train_error")) for r in at]
            axes.plot(at, train, "--", color=_color(number), linewidth=1, alpha=0.7)
            axes.plot([], [], "o-", color=_color(number), markersize=3, label=_short(label, 52))
        axes.plot([], [], "--", color="0.4", linewidth=1, label="train")
        axes.set(title="error along the ridge (solid: held out)", xlabel="ridge", xscale="log", yscale="log")
        axes.set_ylabel("relative error")
        axes.invert_xaxis()
        for axis, subs in ((axes.xaxis, (1, 2, 5)), (axes.yaxis, (1, 1.5, 2, 3, 5, 7))):
            axis.set_major_locator(LogLocator(subs=subs))
            axis.set_major_formatter("{x:.3g}")
            axis.set_minor_formatter(NullFormatter())
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), fontsize=6)  # inside it would hide the minimum

    return draw


def _tree(run: DrawnCompletion) -> Drawer | None:
    """The mode tree of the strongest factorization, its nodes coloured by effective rank and labelled by rank."""
    if not run.summary.get("mode_tree"):
        return None
    tree = ModeTree.from_nested(run.summary["mode_tree"])
    ranks = run.summary.get("hierarchical_rank") or {}
    effective = run.summary.get("effective_rank") or ranks

    def draw(axes: Axes) -> None:
        draw_tree(axes, tree, run.summary["modes"], ranks, effective)
        axes.set_title("strongest factorization: rank of every node")

    return draw


def _held_out(run: DrawnCompletion) -> Drawer | None:
    """Predicted against observed values of held-out entries, coloured by kind of holes."""
    points = run.summary.get("scatter") or {}
    columns = [points.get(key, []) for key in ("observed", "predicted")]
    kinds = points.get("kind") or [""] * len(columns[0])
    triples = [t for t in zip(*columns, kinds, strict=False) if _finite(t[0]) and _finite(t[1])]
    if not triples:
        return None

    def draw(axes: Axes) -> None:
        values = np.array([t[:2] for t in triples])
        low, high = values.min(), values.max()
        axes.axline((low, low), (high, high), color="0.5", linewidth=1) if high > low else None
        present = {str(t[2]) for t in triples}
        names = [name for name in run.summary.get("held_out", {}) if name in present]  # coloured as in other panels
        names += sorted(present - set(names))
        alpha = min(1.0, 0.2 + 60 / len(triples))
        for number, name in enumerate(names):
            own = np.array([t[:2] for t in triples if str(t[2]) == name])
            label = _short(name, 40) if len(names) > 1 else None
            axes.scatter(own[:, 0], own[:, 1], 9, alpha=alpha, linewidths=0, color=_color(number), label=label)
        r2 = run.summary.get("r2")
        text = f"held-out entries, $R^2$ = {r2:.3g}" if _finite(r2) else "held-out entries"
        axes.set(title=text, xlabel="observed", ylabel="predicted", aspect="equal", adjustable="datalim")
        if len(names) > 1:
            axes.legend(loc="upper left", fontsize=7)

    return draw


def _slices(run: DrawnCompletion) -> Drawer | None:
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


PANELS: dict[str, Callable[[DrawnCompletion], Drawer | None]] = {
    "members": _members,
    "errors": _errors,
    "calibration": _calibration,
    "held-out": _held_out,
    "tree": _tree,
    "ridge": _ridge,
    "slices": _slices,
}


def _or_nan(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _color(number: int) -> Any:
    colors = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    return colors[number % len(colors)]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _wrapped(text: str, width: int) -> str:
    """A name over several lines, beside or below a bar."""
    return "\n".join(textwrap.wrap(text, width)[:3])


def _counts(value: object) -> bool:
    return isinstance(value, int | float) and value >= COUNTS


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _with_names(tree: str, names: Sequence[str] | None) -> str:
    """A tree as the engine writes it, `((0, 1), 2)`, with the names of its modes."""
    text = tree
    if names is not None and all(int(mode) < len(names) for mode in re.findall(r"\d+", tree)):
        text = re.sub(r"\d+", lambda mode: names[int(mode[0])], tree)
    return text
