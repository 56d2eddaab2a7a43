from __future__ import annotations

import pytest

from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.experiments.figures.tree_layout import node_places


@pytest.mark.parametrize("nested", [[0, 1], [[2, 0], [1, 3]], [[[0, 1], 4], [2, 3]], [0, 1, 2, 3, 4]])
def test_leaves_stand_in_the_order_of_the_tree_and_parents_above_their_children(nested):
    tree = ModeTree.from_nested(nested)
    x, y = node_places(tree)
    order = [int(c) for c in str(nested) if c.isdigit()]
    assert sorted(range(tree.order), key=lambda leaf: x[leaf]) == order
    assert sorted(x[: tree.order]) == list(range(tree.order))
    for node in tree.interior:
        children = tree.children[node]
        assert x[node] == pytest.approx(sum(x[child] for child in children) / len(children))
        assert y[node] > max(y[child] for child in children)
