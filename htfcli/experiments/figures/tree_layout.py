"""Where the nodes of a mode tree are drawn."""

from __future__ import annotations

import math

from htfcli.engine.factorizations.mode_tree import ModeTree


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
