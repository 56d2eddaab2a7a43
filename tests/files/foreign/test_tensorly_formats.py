"""CP, Tucker and tensor trains of tensorly as factorizations and back, against dense tensors."""

from __future__ import annotations

import numpy as np
import pytest
import tensorly as tl
import torch
from tensorly import random

from htfcli import CPFactorization, HierarchicalTensorFactorization, MatrixFactorization, ModeTree
from htfcli.engine.factorizations.dense_cores import HierarchicalTuckerFactorization, TuckerFactorization
from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.tensorly_formats import from_tensorly, to_tensorly

DIMS = (3, 4, 5, 2)


def drawn(tree, dims=DIMS):
    shape = ModeTree.from_nested(tree)
    widths = {shape.labels[v]: 2 + v % 3 for v in shape.interior}
    return HierarchicalTensorFactorization(dims, widths, shape).init_gaussian(1.0, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("tree", "kind"),
    [
        ([0, 1, 2, 3], "CPTensor"), ([[0], [1], [2], [3]], "TuckerTensor"), ([[[0, 1], 2], 3], "TTTensor"),
        ([[[1, 0], 2], 3], "TTTensor"), ([[[3, 2], 1], 0], "TTTensor"), ([0, 1], "CPTensor"), ([[0], [1]], "TuckerTensor"),
    ],
    ids=str,
)  # fmt: skip
def test_there_and_back(tree, kind):
    model = drawn(tree, DIMS[: ModeTree.from_nested(tree).order])
    tensor = to_tensorly(model)
    assert type(tensor).__name__ == kind
    assert np.allclose(tensor.to_tensor(), model.dense().numpy())
    assert torch.allclose(from_tensorly(tensor).dense(), model.dense())


def test_ranks_of_a_train_are_the_widths_of_a_chain():
    model = drawn([[[0, 1], 2], 3])
    assert to_tensorly(model).rank == (1, model.widths[4], model.widths[5], model.widths[6], 1)


@pytest.mark.parametrize("weights", [None, [2.0, -1.0, 0.5]])
def test_cp(weights):
    factors = [np.random.default_rng(k).standard_normal((d, 3)) for k, d in enumerate(DIMS)]
    tensor = tl.cp_tensor.CPTensor((None if weights is None else np.array(weights), factors))
    model = from_tensorly(tensor)
    assert model.tree.to_nested() == [0, 1, 2, 3]
    assert model.widths == {4: 3}
    assert np.allclose(model.dense().numpy(), tl.cp_to_tensor(tensor))


@pytest.mark.parametrize("rank", [(2, 3, 4, 2), (3, 1, 2, 2), (1, 1, 1, 1)])
def test_tucker(rank):
    tensor = random.random_tucker(DIMS, rank, random_state=0)
    model = from_tensorly(tensor)
    assert np.allclose(model.dense().numpy(), tensor.to_tensor())
    assert np.allclose(to_tensorly(model).core, tensor.core)


@pytest.mark.parametrize("rank", [(1, 2, 3, 2, 1), (1, 3, 1, 2, 1)])
def test_trains(rank):
    tensor = random.random_tt(DIMS, rank, random_state=0)
    model = from_tensorly(tensor)
    assert np.allclose(model.dense().numpy(), tensor.to_tensor())
    assert to_tensorly(model).rank == rank


def test_other_kinds_of_factorizations():
    cp = CPFactorization(DIMS, 3).init_gaussian(1.0, torch.Generator().manual_seed(0))
    assert np.allclose(to_tensorly(cp).to_tensor(), cp.dense().numpy())
    deep = MatrixFactorization((3, 4), depth=3, widths=2)
    with pytest.raises(ConfigError, match="the mode tree is none of a tensor of tensorly"):
        to_tensorly(deep)


@pytest.mark.parametrize("tree", [[[0, 1], [2, 3]], [[[0, 2], 1], 3], [[0, 1, 2], 3]], ids=str)
def test_other_trees(tree):
    with pytest.raises(ConfigError, match=r"none of a tensor of tensorly \(got \[.*tree='star'"):
        to_tensorly(drawn(tree))


@pytest.mark.parametrize("thing", [np.ones((2, 2)), random.random_tr((3, 3, 3), (2, 2, 2, 2), random_state=0), None])
def test_what_is_none(thing):
    with pytest.raises(DataError, match="allowed CPTensor, TuckerTensor, TTTensor"):
        from_tensorly(thing)


@pytest.mark.parametrize("depth", [1, 2])
def test_tucker_factorizations(depth):
    """A deep one is multiplied out."""
    model = TuckerFactorization(DIMS, 3, depth).init_gaussian(1.0, torch.Generator().manual_seed(0))
    tensor = to_tensorly(model)
    assert [factor.shape for factor in tensor.factors] == [(3, 3), (4, 3), (5, 3), (2, 2)]
    assert np.allclose(tl.tucker_to_tensor(tensor), model.dense().numpy())
    if depth == 1:
        assert torch.equal(from_tensorly(tensor).parameters, model.parameters)


@pytest.mark.parametrize("tree", [[[[0, 1], 2], 3], [[[1, 0], 2], 3]], ids=str)
def test_trains_with_dense_cores(tree):
    model = HierarchicalTuckerFactorization(DIMS, 2, ModeTree.from_nested(tree))
    model.init_gaussian(1.0, torch.Generator().manual_seed(0))
    tensor = to_tensorly(model)
    assert tensor.rank == (1, 2, 2, 2, 1)
    assert np.allclose(tl.tt_to_tensor(tensor), model.dense().numpy())


def test_dense_cores_on_other_trees():
    with pytest.raises(ConfigError, match="the mode tree is none of a tensor of tensorly"):
        to_tensorly(HierarchicalTuckerFactorization(DIMS, 2))
