"""Interactive figures of reports: curves against iterations, the mode tree over iterations, sweeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import qualitative, sample_colorscale

from htfcli.config.records import Record
from htfcli.engine.factorizations.mode_tree import ModeTree, label_of
from htfcli.experiments.figures.fits import QUANTITIES, Panel
from htfcli.experiments.figures.sweeps import Point, labels, points
from htfcli.experiments.figures.tree_layout import node_places
from htfcli.experiments.sweeps.summary import FINAL_SHOWN, Row, what_varies
from htfcli.files.own.records import Records

_MOST_POINTS, _MOST_STEPS = 400, 120  # of a curve, and of a slider
_LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
    "height": 340,
    "font": {"family": "system-ui, sans-serif", "size": 12},
    "colorway": qualitative.D3,
}


def thinned(records: Sequence[Record], most: int) -> list[Record]:
    """At most `most` of the records, evenly spaced, including the first and the last."""
    if len(records) <= most:
        return list(records)
    return [records[round(k * (len(records) - 1) / (most - 1))] for k in range(most)]


def fit_figures(run: Records) -> list[go.Figure]:
    """The panels that `htf plot` draws of a fit."""
    fewer = Records(run.name, thinned(run.records, _MOST_POINTS), run.folder)
    panels = [panel for panel_of in QUANTITIES.values() for panel in panel_of([fewer], [])]
    iterations = [record["iteration"] for record in fewer.records]
    return [_curves(panel, panel.curves(fewer), iterations) for panel in panels]


def _curves(panel: Panel, curves: Sequence[tuple[str, list[float | None]]], iterations: Sequence[int]) -> go.Figure:
    shades = sample_colorscale("viridis", [0.9 * k / max(1, len(curves) - 1) for k in range(len(curves))])
    figure = go.Figure(layout={**_LAYOUT, "title": {"text": panel.title}})
    for rank, (label, values) in enumerate(curves):
        line = {"color": shades[rank]} if panel.ranked else {}
        name = f"number {label}" if panel.ranked else label
        figure.add_scatter(x=list(iterations), y=values, name=name, line=line, showlegend=not panel.ranked)
    figure.update_xaxes(title="iteration")
    figure.update_yaxes(title=panel.ylabel, type="log" if panel.log else "linear", exponentformat="power")
    return figure


def training_figures(run: Records) -> list[go.Figure]:
    """Accuracies, losses and the regularizer against epochs."""
    found = []
    for title, keys in (
        ("accuracy", {"train_accuracy": "train", "test_accuracy": "test"}),
        ("loss", {"task_loss": "train", "test_loss": "test"}),
        ("regularizer R", {"regularizer": "R"}),
    ):
        figure = go.Figure(layout={**_LAYOUT, "title": {"text": title}})
        for key, name in keys.items():
            if any(record.get(key) is not None for record in run.records):
                x, y = [r["epoch"] for r in run.records], [r.get(key) for r in run.records]
                figure.add_scatter(x=x, y=y, name=name)
        if figure.data:
            figure.update_xaxes(title="epoch")
            found.append(figure)
    return found


def tree_of_records(record: Record) -> ModeTree | None:
    """The mode tree whose nodes a record lists, or None; a node with a single child is listed only once."""
    sets = {frozenset(place["modes"]) for place in record["nodes"]}
    everything = frozenset().union(*sets)
    sets |= {everything, *(frozenset([mode]) for mode in everything)}
    if len(everything) < 2 or everything != frozenset(range(len(everything))):
        return None
    return ModeTree.from_nested(_nested(everything, sets))


def _nested(node: frozenset[int], sets: set[frozenset[int]]) -> Any:
    if len(node) == 1:
        return next(iter(node))
    below = [s for s in sets if s < node]
    children = [s for s in below if not any(s < other for other in below)]
    return [_nested(child, sets) for child in sorted(children, key=min)]


def tree_figure(run: Records) -> go.Figure | None:
    """The mode tree of a fit, its nodes coloured by effective rank, with a slider over iterations."""
    tree = tree_of_records(run.records[0])
    if tree is None:
        return None
    x, y = node_places(tree)
    inner = list(range(tree.root))
    records = thinned(run.records, _MOST_STEPS)
    ranks = [_ranks(record, tree, inner) for record in records]
    final = max((rank for rank in ranks[-1] if rank is not None), default=2.0)
    links_x = [place for v in inner for place in (x[v], x[tree.parent[v]], None)]
    links_y = [place for v in inner for place in (y[v], y[tree.parent[v]], None)]
    figure = go.Figure(layout={**_LAYOUT, "height": 420})
    figure.add_scatter(x=links_x, y=links_y, mode="lines", line={"color": "#bbb"}, hoverinfo="skip")
    figure.add_scatter(
        x=[x[tree.root]], y=[y[tree.root]], mode="markers", marker={"size": 12, "color": "#bbb"}, hoverinfo="skip"
    )
    names = [label_of(tree.modes[v], first=1) for v in inner]
    figure.add_scatter(
        x=[x[v] for v in inner],
        y=[y[v] for v in inner],
        mode="markers+text",
        text=_texts(names, ranks[-1]),
        textposition="top center",
        hoverinfo="skip",
        marker={
            **{
                "size": 38 if tree.order <= 12 else 14,
                "color": ranks[-1],
                "colorscale": "Viridis",
                "reversescale": True,
            },
            **{"cmin": 1, "cmax": 1.5 * final, "line": {"color": "#555", "width": 1}},
            "colorbar": {"title": {"text": "effective rank"}, "thickness": 12},
        },
    )
    steps = [
        {
            "label": f"{record['iteration']:,}",
            "method": "restyle",
            "args": [{"marker.color": [values], "text": [_texts(names, values)]}, [2]],
        }
        for record, values in zip(records, ranks, strict=True)
    ]
    slider = {
        "steps": steps,
        "active": len(steps) - 1,
        "currentvalue": {"prefix": "iteration ", "font": {"color": "#222", "size": 14}},
        "pad": {"t": 20},
        "ticklen": 0,
        "minorticklen": 0,
        "font": {"color": "rgba(0,0,0,0)"},  # invisible: the labels under the slider would overlap
    }
    figure.update_layout(sliders=[slider], showlegend=False, title={"text": "mode tree, effective rank of each node"})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, range=[min(y) - 0.2, max(y) + 0.4])
    return figure


def _ranks(record: Record, tree: ModeTree, nodes: Sequence[int]) -> list[float | None]:
    known = {tuple(place["modes"]): place.get("effective_rank") for place in record["nodes"]}
    everything = set(range(tree.order))
    # If the root has two children, both have the same matricization, and the record lists only one of them
    return [known.get(m) or known.get(tuple(sorted(everything - set(m)))) for m in (tree.modes[v] for v in nodes)]


def _texts(names: Sequence[str], ranks: Sequence[float | None]) -> list[str]:
    return [name if rank is None else f"{name}: {rank:.1f}" for name, rank in zip(names, ranks, strict=True)]


# --- sweeps -----------------------------------------------------------------------------------------------------------


def sweep_figures(rows: Sequence[Row]) -> list[go.Figure]:
    """The main final numbers against the first setting that varies, one curve for each combination of the others."""
    varied = what_varies(rows)
    if not varied:
        return []
    x, others = varied[0], varied[1:]
    numbers = [*FINAL_SHOWN[rows[0]["command"]][1:], *(["effective_rank"] if rows[0]["command"] == "fit" else [])]
    figures = []
    for number in numbers:
        done = [row for row in rows if isinstance((row["final"] or {}).get(number), float | int | dict)]
        if done:
            figures.append(_means(points(done, x, number, labels(done, others)), x, number))
    return figures


def _means(curves: dict[str, list[Point]], x: str, y: str) -> go.Figure:
    figure = go.Figure(layout={**_LAYOUT, "title": {"text": f"{y.replace('_', ' ')}, mean and standard error"}})
    for name, of in curves.items():
        errors = [0 if math.isnan(point.error) else point.error for point in of]
        figure.add_scatter(
            x=[point.x for point in of],
            y=[point.mean for point in of],
            error_y={"type": "data", "array": errors},
            name=name,
            mode="lines+markers",
            showlegend=len(curves) > 1,
        )
    places = [point.x for of in curves.values() for point in of]
    spread = all(isinstance(p, int | float) and p > 0 for p in places) and max(places) > 20 * min(places)
    figure.update_xaxes(title=x.replace("_", " "), type="log" if spread else "-")
    means = [point.mean for of in curves.values() for point in of]
    if min(means) > 0 and max(means) > 50 * min(means):
        figure.update_yaxes(type="log", exponentformat="power")
    return figure
