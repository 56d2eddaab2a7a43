"""Balanced initialization: unbalancedness zero by the definition, norms and products as described."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.fitting.balanced_init import init_balanced
from htfcli.engine.ranks.local_components import local_components
from tests.problems import factorizations, generator


@settings(max_examples=60)
@given(factorizations())
def test_balanced_initialization_of_any_factorization(model):
    init_balanced(model, 0.3, generator(1))
    assert torch.isfinite(model.parameters).all()
    assert local_components(model).unbalancedness < 1e-13


@pytest.mark.parametrize("tree", ["balanced", "chain", "layered"])
def test_all_weight_vectors_of_a_component_are_equally_long(tree):
    """By the definition: row r of a node's matrix and column r of each child's."""
    model = HierarchicalTensorFactorization((3, 4, 2, 3, 2), 3, ModeTree.named(tree, 5))
    init_balanced(model, 0.5, generator())
    for node in model.tree.interior:
        norms = [model.node_weights[child].norm(dim=0) for child in model.tree.children[node]]
        norms.append(model.node_weights[node].norm(dim=1))
        for other in norms[1:]:
            assert torch.allclose(other, norms[0], rtol=1e-10)


def test_the_product_of_frobenius_norms_is_kept():
    model = HierarchicalTensorFactorization((3, 4, 2, 3), [4, 3])
    plain = model.to().init_gaussian(0.5, generator(2))
    init_balanced(model, 0.5, generator(2))
    before, after = (sum(w.norm().log() for w in m.node_weights) for m in (plain, model))
    assert float(after) == pytest.approx(float(before), rel=1e-10)


def test_components_of_cp_keep_their_relative_norms():
    """A component's norm is the geometric mean of its Gaussian vectors', up to one factor for all; the directions of
    the vectors are those that were drawn."""
    model = CPFactorization((5, 4, 3), 4)
    plain = model.to().init_gaussian(1.0, generator(3))
    init_balanced(model, 1.0, generator(3))
    drawn = torch.stack([w.norm(dim=0) for w in plain.weights.values()]).log().mean(0)
    found = model.weights["factor0"].norm(dim=0).log()
    assert torch.allclose(found - found[0], drawn - drawn[0], rtol=1e-9, atol=1e-10)
    for name, weight in model.weights.items():
        cosines = torch.nn.functional.cosine_similarity(weight, plain.weights[name], dim=0)
        assert torch.allclose(cosines, torch.ones(4, dtype=torch.float64))


def test_a_matrix_keeps_its_product():
    model = MatrixFactorization((6, 5), 3, [5, 5])
    plain = model.to().init_gaussian(0.7, generator(4))
    init_balanced(model, 0.7, generator(4))
    assert torch.allclose(model.dense(), plain.dense(), rtol=1e-10, atol=1e-12)
    first, second, third = model.weights.values()
    assert torch.allclose(first.t() @ first, second @ second.t(), atol=1e-12)
    assert torch.allclose(second.t() @ second, third @ third.t(), atol=1e-12)


def test_in_float32_too():
    model = CPFactorization((3, 4), 2, dtype=torch.float32)
    init_balanced(model, 0.1, generator())
    assert local_components(model).unbalancedness < 1e-8
