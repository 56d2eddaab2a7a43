"""Starts: what a model is before the first step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from htfcli.engine.completion.search.initialization import (
    STARTS,
    grown,
    needed_widths,
    pruned,
    start_around_one,
    start_gaussian,
)
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.ranks.local_components import LocalComponents
from htfcli.engine.ranks.matricization import matricize
from tests.engine.least_squares.test_levenberg_marquardt import TREES
from tests.problems import factorizations, generator


def distance(a, b):
    return float((a - b).norm() / b.norm().clamp_min(1e-300))


@pytest.mark.parametrize("name", TREES)
def test_gaussian_start_has_the_size_of_the_data(name):
    value = 7.0 * torch.randn(100, generator=generator(), dtype=torch.float64)
    squares = []
    for seed in range(40):
        model = HierarchicalTensorFactorization((5, 6, 4, 5), 4, TREES[name])
        start_gaussian(model, value, generator(seed))
        squares.append(float(model.dense().square().mean()))
    assert sum(squares) / len(squares) == pytest.approx(float(value.square().mean()), rel=0.5)


@pytest.mark.parametrize("mean", [3.0, -3.0])
@pytest.mark.parametrize("order", [3, 16])
@pytest.mark.parametrize("name", ["balanced", "star", "chain"])
def test_around_one_is_near_the_mean(name, order, mean):
    """In high order too, where centred factors give next to nothing."""
    value = mean + 0.1 * torch.randn(100, generator=generator(), dtype=torch.float64)
    model = HierarchicalTensorFactorization((4,) * order, 3, ModeTree.named(name, order))
    start_around_one(model, value, generator(1))
    index = torch.stack([torch.randint(4, (200,), generator=generator(n)) for n in range(order)], 1)
    values = model.values(index)
    assert 1 / 3 < float(values.mean() / mean) < 3
    assert float((values / mean > 0).double().mean()) > 0.95


def test_around_one_without_root_weights():
    value = torch.full((50,), 2.0, dtype=torch.float64)
    model = CPFactorization((6, 5, 4), 4)
    start_around_one(model, value, generator())
    assert float(model.dense().mean()) == pytest.approx(2.0, rel=0.2)


def test_around_one_of_centred_data_has_their_size():
    value = torch.tensor([1.0, -1.0] * 20, dtype=torch.float64)
    model = HierarchicalTensorFactorization((4, 4, 4), 2)
    start_around_one(model, value, generator())
    assert float(model.dense().mean()) == pytest.approx(1.0, abs=0.5)


@pytest.mark.parametrize("start", STARTS)
def test_starts_of_zero_data_are_finite_and_not_zero(start):
    model = HierarchicalTensorFactorization((4, 4, 4), 2)
    STARTS[start](model, torch.zeros(9, dtype=torch.float64), generator())
    assert torch.isfinite(model.parameters).all()
    assert float(model.parameters.norm()) > 0


# --- grown and pruned -------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(factorizations())
def test_grown_is_the_old_tensor_but_for_what_is_small(model):
    widths = {v: w + 1 + v % 2 for v, w in model.widths.items()}
    before = model.dense()
    for small, tolerance in ((0.0, 1e-12), (1e-9, 1e-5)):
        wider = grown(model, widths, generator(), small)
        assert wider.widths == widths
        assert float((wider.dense() - before).abs().max()) <= tolerance * max(1.0, float(before.abs().max()))
    assert type(wider) is type(model)
    assert torch.equal(model.dense(), before)


def test_new_components_are_small_and_random():
    model = HierarchicalTensorFactorization((5, 6, 4), 2).init_gaussian(2.0, generator())
    wider = grown(model, dict.fromkeys(model.widths, 4), generator(1), 0.1)
    new = wider.node_weights[0][:, 2:]
    assert float(new.square().mean().sqrt()) == pytest.approx(
        0.1 * float(model.node_weights[0].square().mean().sqrt()), rel=0.5
    )
    assert torch.equal(wider.node_weights[0][:, :2], model.node_weights[0])


def test_pruned_keeps_the_largest():
    model = CPFactorization((5, 6, 4), 4).init_gaussian(1.0, generator())
    model.node_weights[0].mul_(torch.tensor([0.1, 10.0, 1.0, 30.0]))
    narrower = pruned(model, {model.tree.root: 2})
    norms = LocalComponents(model).norms(model.tree.root)
    assert sorted(LocalComponents(narrower).norms(model.tree.root).tolist()) == pytest.approx(
        sorted(norms[[1, 3]].tolist())
    )
    columns = [w[:, [3, 1]] for w in model.node_weights[:3]]
    assert distance(narrower.dense(), torch.einsum("ir,jr,kr->ijk", *columns)) < 1e-12


@settings(max_examples=50, deadline=None)
@given(factorizations())
def test_pruning_what_was_grown_gives_the_old_tensor(model):
    widths = {v: w + 2 for v, w in model.widths.items()}
    back = pruned(grown(model, widths, generator(), 0.0), model.widths)
    wanted = model.dense()
    assert float((back.dense() - wanted).abs().max()) <= 1e-10 * max(1.0, float(wanted.abs().max()))


# --- needed widths ----------------------------------------------------------------------------------------------------


def dense_rank(model, node):
    return int(torch.linalg.matrix_rank(matricize(model.dense(), model.tree.modes[node]), rtol=1e-9))


@pytest.mark.parametrize("name", TREES)
def test_needed_widths_of_known_ranks(name):
    """A model grown by components that are zero needs as many as the tensor's matricizations have ranks."""
    tree = TREES[name]
    model = HierarchicalTensorFactorization((6, 5, 6, 5), 2, tree).init_gaussian(1.0, generator())
    wider = grown(model, dict.fromkeys(tree.interior, 5), generator(1), 0.0)
    needed = needed_widths(wider, 1e-9)
    assert needed == {v: max(dense_rank(model, c) for c in tree.children[v]) for v in tree.interior}
    assert set(needed.values()) <= {1, 2}
    assert distance(pruned(wider, needed).dense(), model.dense()) < 1e-10


def test_needed_widths_see_weak_components_by_the_tolerance():
    model = CPFactorization((5, 6, 4), 3).init_gaussian(1.0, generator())
    model.node_weights[0][:, 2] *= 1e-4
    assert needed_widths(model, 1e-6) == {model.tree.root: 3}
    assert needed_widths(model, 1e-2) == {model.tree.root: 2}
    assert needed_widths(model, 0.999) == {model.tree.root: 1}
