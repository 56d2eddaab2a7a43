"""Balancing: the tensor stays, and the weight vectors of every component become equally long."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from htfcli.engine.factorizations.balance import balance
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.dense_cores import HierarchicalTuckerFactorization, TuckerFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.ranks.local_components import CoreComponents, LocalComponents
from tests.problems import factorizations, generator


@settings(max_examples=40)
@given(factorizations())
def test_balance_keeps_the_tensor_and_makes_norms_equal(model):
    before = model.dense()
    balance(model, sweeps=150)
    assert float((model.dense() - before).abs().max()) <= 1e-9 * max(1.0, float(before.abs().max()))
    components = (CoreComponents if model.dense_cores else LocalComponents)(model)
    assert components.unbalancedness <= 1e-6 * max(1.0, float(model.parameters.square().sum()))
    at_rest = model.parameters.clone()
    balance(model)
    assert torch.allclose(model.parameters, at_rest, rtol=1e-6, atol=1e-9)


@settings(max_examples=30)
@given(factorizations())
def test_a_pass_of_balancing_never_adds_to_the_penalty(model):
    before = float(model.parameters.square().sum())
    balance(model)
    assert float(model.parameters.square().sum()) <= before * (1 + 1e-12)


def test_one_pass_gives_the_root_the_geometric_mean():
    model = HierarchicalTensorFactorization((3, 4), 2).init_gaussian(1.0, generator())
    left, right, root = model.node_weights
    lengths = torch.stack([left.norm(dim=0), right.norm(dim=0), root[:, 0].abs()])
    wanted = lengths.log().mean(0).exp()
    balance(model)
    for norms in (left.norm(dim=0), right.norm(dim=0), root[:, 0].abs()):
        assert torch.allclose(norms, wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_balance_leaves_dead_components_alone(dtype):
    """A zero vector cannot be made longer, and the others must not become zero, or the component could not rise."""
    model = CPFactorization((3, 4, 2), 2, dtype=dtype).init_gaussian(1.0, generator())
    model.node_weights[1][:, 0] = 0.0
    others = model.node_weights[0][:, 0].clone(), model.node_weights[2][:, 0].clone()
    balance(model, sweeps=3)
    assert torch.isfinite(model.parameters).all()
    assert torch.equal(model.node_weights[0][:, 0], others[0])
    assert torch.equal(model.node_weights[2][:, 0], others[1])
    norms = [float(w[:, 1].norm()) for w in model.node_weights[:3]]
    assert norms == pytest.approx([norms[0]] * 3)


def test_balancing_a_core_changes_nothing_but_scale():
    """In balance already, up to how the scale is shared: one pass then finds the weights it was made from."""
    model = TuckerFactorization((3, 4, 5), 3).init_gaussian(1.0, generator())
    balance(model, sweeps=200)
    wanted = model.parameters.clone()
    model.node_weights[1].mul_(3.0)
    model.core(model.tree.root).div_(3.0)
    assert not torch.allclose(model.parameters, wanted)
    balance(model, sweeps=200)
    assert torch.allclose(model.parameters, wanted, atol=1e-9)


def test_balancing_cores_leaves_the_root_alone_where_asked():
    model = HierarchicalTuckerFactorization((3, 3, 3, 3), 2).init_gaussian(1.0, generator())
    root, before = model.core(model.tree.root).clone(), model.dense()
    balance(model, sweeps=3, keep_root=True)
    assert torch.equal(model.core(model.tree.root), root)
    assert torch.allclose(model.dense(), before, atol=1e-12)
    columns, rows = model.node_weights[3], model.core(5).movedim(1, 0).flatten(1)
    assert torch.allclose(columns.t() @ columns, rows @ rows.t(), atol=1e-12)
