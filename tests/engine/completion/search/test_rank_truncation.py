"""A factorization brought to its own ranks."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.completion.search.initialization import grown
from htfcli.engine.completion.search.rank_truncation import reduced, rewritten
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def wide(tree: str, dims: tuple[int, ...], width: int, extra: int) -> HierarchicalTensorFactorization:
    """A Gaussian model with `extra` more components at every node, which overlap the others and add nothing."""
    nested = ModeTree.named(tree, len(dims))
    model = HierarchicalTensorFactorization(dims, width, nested).init_gaussian(1.0, generator())
    wider = grown(model, dict.fromkeys(nested.interior, width + extra), generator(), 0.0)
    assert isinstance(wider, HierarchicalTensorFactorization)
    root = wider.node_weights[nested.root]
    assert root is not None
    for weight in wider.node_weights:
        assert weight is not None
        if weight is not root and extra:
            weight[:, -1] += weight[:, 0]  # a copy of the first component, at weight zero above
    return wider


@pytest.mark.parametrize("tree", ["balanced", "chain", "star"])
@pytest.mark.parametrize(("dims", "width"), [((6, 7), 2), ((5, 6, 7), 2), ((6, 5, 4, 6), 3)])
def test_the_widths_of_an_exact_model_are_found_and_its_tensor_stays(
    tree: str, dims: tuple[int, ...], width: int
) -> None:
    model = wide(tree, dims, width, 2)
    narrow = reduced(model, 1e-6, generator())
    assert narrow is not None
    assert set(narrow.widths.values()) == {width}
    dense = model.dense()
    assert (narrow.dense() - dense).norm() < 1e-4 * dense.norm()


def test_what_is_cut_off_bounds_what_changes() -> None:
    """Against the dense hierarchical SVD's bound: sqrt(2 N - 3) times what the cut leaves out at one node, at most."""
    dims, tolerance = (6, 6, 6, 6), 0.05
    model = HierarchicalTensorFactorization(dims, 3).init_gaussian(1.0, generator())
    model.parameters.add_(0.01)
    narrow = reduced(model, tolerance, generator())
    assert narrow is not None
    dense = model.dense()
    change = float((narrow.dense() - dense).norm() / dense.norm())
    assert change < 5 * tolerance


def test_dims_and_widths_of_one() -> None:
    model = HierarchicalTensorFactorization((1, 4, 3), 1).init_gaussian(1.0, generator())
    narrow = reduced(model, 1e-9, generator())
    assert narrow is not None
    torch.testing.assert_close(narrow.dense(), model.dense())


def test_no_wider_than_it_was() -> None:
    """A core whose own rank is higher than the widths of the model keeps the width, at the cost of some error."""
    model = HierarchicalTensorFactorization((4,) * 8, 2).init_gaussian(1.0, generator())
    narrow = reduced(model, 1e-12, generator())
    assert narrow is not None
    assert max(narrow.widths.values()) <= 2


def test_too_many_children_and_no_output_weights_are_not_for_it() -> None:
    star = HierarchicalTensorFactorization((3,) * 12, 3, ModeTree.named("star", 12)).init_gaussian(1.0, generator())
    assert reduced(star, 1e-6, generator()) is None
    assert reduced(CPFactorization((3, 3, 3), 2).init_gaussian(1.0, generator()), 1e-6, generator()) is None


def test_a_tensor_is_written_on_the_tree_that_suits_it() -> None:
    """A target of width 2 on one tree takes more on others, modes in another order included."""
    dims = (3, 4, 3, 4, 3)
    own = ModeTree.from_nested([[0, 3], [[1, 4], 2]])
    model = HierarchicalTensorFactorization(dims, 2, own).init_gaussian(1.0, generator())
    chain = ModeTree.from_nested([[[[0, 1], 2], 3], 4])
    there = rewritten(grown(model, dict.fromkeys(own.interior, 16), generator(), 0.0), [chain], 1e-9, generator())
    assert there is not None and there.tree == chain and max(there.widths.values()) > 2
    back = rewritten(there, [chain, ModeTree.named("star", 5), own], 1e-6, generator())
    assert back is not None and back.tree == own
    assert set(back.widths.values()) == {2}
    dense = model.dense()
    for found in (there, back):
        assert (found.dense() - dense).norm() < 1e-4 * dense.norm()


def test_a_tree_on_which_a_tensor_needs_wider_nodes_is_not_for_it() -> None:
    model = HierarchicalTensorFactorization((4, 4, 4, 4), 3).init_gaussian(1.0, generator())
    other = ModeTree.from_nested([[0, 2], [1, 3]])
    assert rewritten(model, [other], 1e-6, generator()) is None
    large = HierarchicalTensorFactorization((70, 70, 70), 2).init_gaussian(1.0, generator())
    assert rewritten(large, [large.tree], 1e-6, generator()) is None
