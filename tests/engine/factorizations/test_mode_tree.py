from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htfcli.engine.factorizations.mode_tree import TREES, ModeTree, label_of, tree_of
from htfcli.errors import ConfigError
from tests.problems import nested_trees


@pytest.mark.parametrize(
    ("name", "order", "arity", "nested"),
    [
        ("balanced", 4, None, [[0, 1], [2, 3]]),
        ("balanced", 5, 3, [[0, 1, 2], [3, 4]]),
        ("balanced", 5, None, [[[0, 1], [2, 3]], 4]),
        ("balanced", 2, 5, [0, 1]),
        ("layered", 5, None, [[[0, 1], [2, 3]], [[4]]]),
        ("layered", 3, None, [[0, 1], [2]]),
        ("half", 4, None, [[0, 2], [1, 3]]),
        ("half", 8, None, [[[0, 4], [2, 6]], [[1, 5], [3, 7]]]),
        ("half", 5, None, [[[0, 3], 2], [1, 4]]),
        ("chain", 4, None, [[[0, 1], 2], 3]),
        ("star", 3, None, [0, 1, 2]),
        ("square", 4, None, [0, 1, 2, 3]),
        ("square", 16, None, [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]),
        ("square", 9, None, [[0, 1, 3, 4], [2, 5], [6, 7], 8]),
        ("square:2x4", 8, None, [[0, 1, 4, 5], [2, 3, 6, 7]]),
        ("square", 9, 9, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_named_trees(name, order, arity, nested):
    assert ModeTree.named(name, order, arity).to_nested() == nested


@given(st.sampled_from(sorted(TREES)), st.integers(2, 40), st.sampled_from([None, 2, 3, 4, 9]))
def test_named_trees_hold_every_mode_once(name, order, arity):
    if name == "square":
        order, arity = order**2, None if arity in (2, 3) else arity
    tree = ModeTree.named(name, order, None if name in ("chain", "star") else arity)
    assert tree.modes[tree.root] == tuple(range(order))
    assert tree.order == order
    for node, children in enumerate(tree.children):
        assert all(child < node and tree.parent[child] == node for child in children)
        if name != "layered":
            assert len(children) != 1


@given(nested_trees(7))
def test_nested_lists_there_and_back(nested):
    tree = ModeTree.from_nested(nested)
    assert ModeTree.from_nested(tree.to_nested()) == tree
    assert len(set(tree.labels)) == len(tree.labels)


def test_nodes_are_numbered_by_height():
    tree = ModeTree.from_nested([[3, [0, 1]], 2])
    assert tree.children == ((), (), (), (), (0, 1), (3, 4), (5, 2))
    assert tree.modes[4:] == ((0, 1), (0, 1, 3), (0, 1, 2, 3))
    assert tree.height == (0, 0, 0, 0, 1, 2, 3)
    assert tree.find([3, 1, 0]) == 5
    assert tree.find([0, 2]) is None


def test_labels():
    assert ModeTree.from_nested([[0], [1]]).labels == ("{0}", "{1}", "{0}'", "{1}'", "{0,1}")
    assert label_of(range(32)) == "{0-31}"
    assert label_of([0, 1, 2, 3]) == "{0,1,2,3}"
    assert label_of([7, 0, 2], first=1) == "{1,3,8}"


def test_a_chain_of_a_thousand_modes():
    tree = ModeTree.named("chain", 1000)
    assert len(tree.children) == 1999
    assert tree.height[tree.root] == 999


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([[0, 1], [1, 2]], "a mode appears twice in the mode tree (got mode 1)."),
        (
            [[0, 1], 3],
            "the mode tree must hold every mode once, numbered from 0 (got [3] without [2], allowed 0 to 2).",
        ),
        ([[0, 1], []], "an interior node of the mode tree has no children (got [])."),
        ([0, "a"], "a leaf of the mode tree is not a mode number (got 'a')."),
        ([0, True], "a leaf of the mode tree is not a mode number (got True)."),
        (3, "a mode tree is written as nested lists of modes (got 3, allowed e.g. [[0, 1], [2, 3]])."),
    ],
)
def test_bad_nested_lists(tree, message):
    with pytest.raises(ConfigError) as error:
        ModeTree.from_nested(tree)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "order", "arity", "message"),
    [
        ("balance", 4, None, "unknown mode tree (got balance, allowed balanced, half, square, chain, star, layered). "
         "Did you mean balanced? Nested lists are possible too, e.g. '[[0, 1], [2, 3]]'."),
        ("balanced", 1, None, "a mode tree needs at least two modes (got 1, allowed 2 or more)."),
        ("balanced", 4, 1, "the arity of a mode tree is too small (got 1, allowed 2 or more)."),
        ("chain", 4, 2, "the chain tree does not take an arity (got 2, allowed none)."),
        ("square", 5, None, "the square tree needs a square number of modes (got 5, allowed 4, 9, 16, ...). "
         "For a grid that is not square write e.g. square:4x8."),
        ("square", 9, 3, "the arity of the square tree must be a square (got 3, allowed 4, 9, 16, ...)."),
        ("square:3x3", 8, None, "the grid of the square tree does not match the modes (got 3x3, allowed 8 modes)."),
        ("square:3", 8, None, "the grid of the square tree is malformed (got 3, allowed e.g. 4x8)."),
    ],
)  # fmt: skip
def test_bad_names(name, order, arity, message):
    with pytest.raises(ConfigError) as error:
        tree_of(name, order, arity)
    assert str(error.value) == message
