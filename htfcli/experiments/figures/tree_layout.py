"""Mode trees drawn: where their nodes stand, and what is written on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from htfcli.engine.factorizations.mode_tree import ModeTree

_LABELLED = 12  # modes up to which nodes are large enough for a number
_NAMED = 32  # modes up to which leaves are named
_LONGEST = 18  # characters of a name


def draw_tree(
    axes: Axes, tree: ModeTree, modes: Sequence[str], ranks: Mapping[str, int], effective: Mapping[str, float]
) -> None:
    """Draw a mode tree, its nodes coloured by effective rank and labelled by rank.

    Args:
        axes: where to. modes: their names. ranks, effective: by the label of a node; nodes without one stay grey.
    """
    names = [f"mode {name}" if name.isdigit() else name for name in modes]
    x, y = node_places(tree)
    for node, parent in enumerate(tree.parent[:-1]):
        axes.plot([x[node], x[parent]], [y[node], y[parent]], color="0.7", linewidth=1.2, zorder=1)
    inner = range(tree.root)
    colors = [effective.get(tree.labels[v]) or math.nan for v in inner]
    norm = Normalize(1, max([c for c in colors if math.isfinite(c)], default=2))
    size = 420 if tree.order <= _LABELLED else 120
    axes.scatter([x[v] for v in inner], [y[v] for v in inner], size, "0.85", zorder=2)
    axes.scatter([x[v] for v in inner], [y[v] for v in inner], size, colors, cmap="viridis", norm=norm, zorder=3)
    axes.scatter([x[tree.root]], [y[tree.root]], size / 3, "0.7", zorder=2)
    if tree.order <= _LABELLED:
        for v in inner:
            light = not math.isfinite(colors[v]) or norm(colors[v]) > 0.6
            text = str(ranks.get(tree.labels[v], ""))
            axes.text(x[v], y[v], text, ha="center", va="center", color="black" if light else "white", zorder=4)
    slanted = sum(map(len, names)) > 36
    for mode, name in enumerate(names if tree.order <= _NAMED else []):
        axes.annotate(
            name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}...",
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
    shades = ScalarMappable(norm, "viridis")
    axes.figure.colorbar(shades, ax=axes, label="effective rank", shrink=0.7, aspect=18, pad=0.02)


def node_places(tree: ModeTree) -> tuple[list[float], list[float]]:
    """Where nodes are drawn: leaves side by side in the order of the tree, parents above the middle of children."""
    x = [math.nan] * len(tree.children)
    y = list(map(float, tree.height))
    leaves = 0
    todo = [tree.root]
    while todo:
        node = todo.pop()
        todo.extend(reversed(tree.children[node]))
        if not tree.children[node]:
            x[node] = leaves
            leaves += 1
    for node in tree.interior:
        places = [x[child] for child in tree.children[node]]
        x[node] = sum(places) / len(places)
    return x, y
