"""Candidates for the mode tree, and the pairing that a fitted model shows."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.completion.search.candidate_trees import candidate_trees, paired_tree, text_of
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.errors import ConfigError
from tests.problems import generator


def groups(nested):
    """The sets of modes under every node: trees are the same if these are, whatever the order of children."""
    if isinstance(nested, int):
        return {frozenset([nested])}
    below = set().union(*map(groups, nested))
    return below | {frozenset().union(*below)}


@pytest.mark.parametrize("order", range(2, 7))
def test_candidates_are_trees_over_all_modes(order):
    found = candidate_trees("auto", order)
    assert all(tree.order == order for tree in found.values())
    assert all(text_of(tree) == name for name, tree in found.items())
    sets = [frozenset(groups(tree.to_nested())) for tree in found.values()]
    assert len(set(sets)) == len(sets)  # none twice
    assert frozenset(groups(ModeTree.named("star", order).to_nested())) in sets
    assert frozenset(groups(ModeTree.named("balanced", order).to_nested())) in sets
    assert len(found) == {2: 1, 3: 4, 4: 5, 5: 3, 6: 3}[order]


def test_every_pairing_of_few_modes_is_a_candidate():
    three = {frozenset(groups(t.to_nested())) for t in candidate_trees("auto", 3).values()}
    assert {frozenset(groups([[a, b], c])) for a, b, c in ((0, 1, 2), (0, 2, 1), (1, 2, 0))} <= three
    four = {frozenset(groups(t.to_nested())) for t in candidate_trees("auto", 4).values()}
    assert {frozenset(groups(t)) for t in ([[0, 1], [2, 3]], [[0, 2], [1, 3]], [[0, 3], [1, 2]])} <= four


def test_the_tree_asked_for_is_the_only_one():
    assert list(candidate_trees("chain", 4)) == [text_of(ModeTree.named("chain", 4))]
    assert list(candidate_trees([[0, 2], 1], 3)) == ["[[0, 2], 1]"]
    assert list(candidate_trees("balanced", 6, 3)) == ["[[0, 1, 2], [3, 4, 5]]"]
    with pytest.raises(ConfigError, match="unknown mode tree"):
        candidate_trees("ring", 4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", [6, 8])
def test_pairing_of_a_model_on_a_permuted_tree(order, seed):
    """The modes that are joined in the tree of the model are found, whatever their numbers."""
    modes = torch.randperm(order, generator=generator(seed)).tolist()
    pairs = [[modes[k], modes[k + 1]] for k in range(0, order, 2)]
    tree = ModeTree.from_nested([pairs[0], [pairs[1], pairs[2]]] if order == 6 else [pairs[:2], pairs[2:]])
    model = HierarchicalTensorFactorization((4,) * order, 2, tree).init_gaussian(1.0, generator(seed + 10))
    for weight in model.node_weights[: tree.root]:  # orthonormal columns: all singular values of a node are alike
        weight.copy_(torch.linalg.qr(weight).Q)
    model.node_weights[tree.root].fill_(1.0)
    found = paired_tree(model)
    assert found is not None
    assert {frozenset(p) for p in pairs} <= groups(found.to_nested())
    if order == 8:
        assert groups(found.to_nested()) == groups(tree.to_nested())


def test_odd_orders_and_rank_one_still_give_a_binary_tree():
    for order in (5, 7):
        model = HierarchicalTensorFactorization((3,) * order, 1, ModeTree.named("star", order))
        tree = paired_tree(model.init_gaussian(1.0, generator()))
        assert tree is not None and tree.order == order
        assert all(len(tree.children[v]) == 2 for v in tree.interior)


@pytest.mark.parametrize("order", [2, 4, 25])
def test_nothing_is_asked_of_few_or_very_many_modes(order):
    model = HierarchicalTensorFactorization((2,) * order, 1, ModeTree.named("half", order))
    assert paired_tree(model.init_gaussian(1.0, generator())) is None
