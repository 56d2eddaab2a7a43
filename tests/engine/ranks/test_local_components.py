"""The theorem on local component norms, checked numerically."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.dense_cores import HierarchicalTuckerFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.fitting.balanced_init import init_balanced
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.fitting.records import SampleLoss
from htfcli.engine.ranks.local_components import local_components
from tests.problems import generator, random_sample

MODELS = {
    "htf": lambda: HierarchicalTensorFactorization((4, 3, 5, 4), [4, 3]),
    "htf chain": lambda: HierarchicalTensorFactorization((3, 4, 2, 3), 3, ModeTree.named("chain", 4)),
    "htf layered": lambda: HierarchicalTensorFactorization((3, 2, 4, 3, 2), 3, ModeTree.named("layered", 5)),
    "htf ternary": lambda: HierarchicalTensorFactorization((3,) * 5, [4, 3], ModeTree.named("balanced", 5, 3)),
    "cp": lambda: CPFactorization((5, 4, 6), 4),
    "dense cores": lambda: HierarchicalTuckerFactorization((3, 4, 3, 3), 3, ModeTree.from_nested([[0, 1], [2], 3])),
    "matrix": lambda: MatrixFactorization((6, 5), 3),
    "matrix depth 4": lambda: MatrixFactorization((5, 6), 4, [5, 7, 5]),
}


@pytest.fixture(params=MODELS)
def balanced(request):
    model = MODELS[request.param]()
    init_balanced(model, model.gaussian_std(0.5), generator())
    return model


def loss_of(model, gradient):
    return SampleLoss(model, random_sample("entries", model.dims, 20, seed=3), LOSSES["l2"], gradient)


def test_balanced_initialization(balanced):
    assert local_components(balanced).unbalancedness < 1e-14
    assert torch.isfinite(balanced.parameters).all()
    assert float(balanced.dense().abs().max()) > 1e-4


def test_norms_times_directions_make_the_tensor():
    """W = sum over r of sigma^(v,r) C^(v,r): removing every component but one, at any node, leaves its share."""
    model = MODELS["htf"]().init_gaussian(1.0, generator())
    tensor = model.dense()
    for node in model.tree.interior:
        parts = []
        for r in range(model.widths[node]):
            alone = model.to()
            keep = torch.zeros(model.widths[node], dtype=torch.float64)
            keep[r] = 1.0
            alone.node_weights[node].mul_(keep.unsqueeze(1))
            parts.append(alone.dense())
        assert torch.allclose(sum(parts), tensor, rtol=0, atol=1e-12)


def test_theorem(balanced):
    """Predicted derivatives agree with a central difference along the negative gradient."""
    gradient = torch.zeros_like(balanced.parameters)
    loss_of(balanced, gradient).forward_backward()
    start, step = balanced.parameters.clone(), 1e-5 / float(torch.linalg.vector_norm(gradient))
    for node in local_components(balanced).nodes:
        predicted = local_components(balanced).predicted_derivatives(node, gradient)
        norms = []
        for sign in (1, -1):
            balanced.parameters.copy_(start - sign * step * gradient)
            norms.append(local_components(balanced).norms(node))
        balanced.parameters.copy_(start)
        measured = (norms[0] - norms[1]) / (2 * step)
        assert float(measured.abs().max()) > 1e-6
        assert float((predicted - measured).abs().max()) <= 1e-6 * float(measured.abs().max())


def gradients(model):
    """Of the mean squared residual at 30 entries: by the weights, (p,), and by the tensor, of its dimensions."""
    gradient = torch.zeros_like(model.parameters)
    sample = random_sample("entries", model.dims, 30, seed=5)
    SampleLoss(model, sample, LOSSES["l2"], gradient).forward_backward()
    at_tensor = torch.zeros(model.dims, dtype=torch.float64)
    at_tensor[sample.index.unbind(1)] = 2 / 30 * (model.values(sample.index) - sample.value)
    return gradient, at_tensor


def test_predicted_is_the_formula_on_the_dense_tensor():
    """L sigma^(2 - 2/L) <-grad phi(W), C>, with C computed by its definition, also away from balance."""
    model = MODELS["htf"]().init_gaussian(0.8, generator())
    gradient, at_tensor = gradients(model)
    components = local_components(model)
    for node in components.nodes:
        sigma, length = components.norms(node), components.length(node)
        assert length == 3
        for r in range(model.widths[node]):
            alone = model.to()
            rows = torch.arange(model.widths[node]) != r
            alone.node_weights[node][rows] = 0.0
            direction = alone.dense() / sigma[r]
            wanted = -length * sigma[r] ** (2 - 2 / length) * (at_tensor * direction).sum()
            assert float(components.predicted_derivatives(node, gradient)[r]) == pytest.approx(float(wanted), rel=1e-9)


def worst_prediction(model, gradient):
    """Largest error of a predicted derivative against a central difference along the negative gradient, over all nodes,
    relative to the largest derivative of the node (or to a thousandth of its largest norm, where nothing moves)."""
    ahead, behind = model.to(), model.to()
    ahead.parameters.sub_(gradient, alpha=1e-7)
    behind.parameters.add_(gradient, alpha=1e-7)
    here, worst = local_components(model), 0.0
    for node in here.nodes:
        predicted = here.predicted_derivatives(node, gradient)
        measured = (local_components(ahead).norms(node) - local_components(behind).norms(node)) / 2e-7
        scale = max(float(measured.abs().max()), 1e-3 * float(here.norms(node).max()))
        worst = max(worst, float((predicted - measured).abs().max()) / scale)
    return worst


def test_gradient_flow_keeps_the_balance_and_the_theorem(balanced):
    """Along gradient flow (classical Runge-Kutta steps) until the loss has changed a lot."""
    gradient = torch.zeros_like(balanced.parameters)
    loss = loss_of(balanced, gradient)

    def slope(at):
        balanced.parameters.copy_(at)
        loss.forward_backward()
        return -gradient.clone()

    loss.forward_backward()
    first, worst, step = loss.loss(), 0.0, 0.02
    for iteration in range(750):
        here = balanced.parameters.clone()
        k1 = slope(here)
        k2 = slope(here + step / 2 * k1)
        k3 = slope(here + step / 2 * k2)
        k4 = slope(here + step * k3)
        balanced.parameters.copy_(here + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
        if iteration % 150 == 0:
            loss.forward_backward()
            worst = max(worst, worst_prediction(balanced, gradient))
    assert loss.loss() < 0.8 * first
    assert local_components(balanced).unbalancedness < 1e-6
    assert worst < 1e-6


def test_small_steps_of_gradient_descent_keep_the_balance_and_the_theorem(balanced):
    gradient = torch.zeros_like(balanced.parameters)
    loss = loss_of(balanced, gradient)
    worst = 0.0
    for iteration in range(2000):
        loss.forward_backward()
        if iteration % 400 == 0:
            worst = max(worst, worst_prediction(balanced, gradient))
        balanced.parameters.sub_(gradient, alpha=1e-5)
    assert local_components(balanced).unbalancedness < 1e-6
    assert worst < 1e-6


def test_the_theorem_needs_balance():
    """The check above can fail: from a Gaussian start the prediction is not the derivative."""
    model = MODELS["htf"]().init_gaussian(0.8, generator())
    gradient = torch.zeros_like(model.parameters)
    loss_of(model, gradient).forward_backward()
    node = model.tree.root
    predicted, before = (
        local_components(model).predicted_derivatives(node, gradient),
        local_components(model).norms(node),
    )
    model.parameters.sub_(gradient, alpha=1e-7)
    measured = (local_components(model).norms(node) - before) / 1e-7
    assert float((predicted - measured).abs().max()) > 0.01 * float(measured.abs().max())


def test_norms_of_chosen_components(balanced):
    for node in local_components(balanced).nodes:
        chosen = torch.tensor([2, 0])
        every = local_components(balanced).norms(node)
        assert torch.allclose(local_components(balanced).norms(node, chosen), every[chosen], rtol=1e-12)


def test_a_component_that_is_zero_stays_zero():
    model = CPFactorization((3, 3, 3), 2).init_gaussian(1.0, generator())
    model.weights["factor0"][:, 1] = 0.0
    gradient = torch.ones_like(model.parameters)
    predicted = local_components(model).predicted_derivatives(model.tree.root, gradient)
    assert predicted[1] == 0.0
    assert predicted[0] != 0.0


def test_components_of_dense_cores():
    """Norms by definition, and the part of the tensor that a component carries: its contribution, by leaving it out."""
    model = MODELS["dense cores"]().init_gaussian(0.8, generator())
    gradient, at_tensor = gradients(model)
    components = local_components(model)
    assert components.nodes == list(range(model.tree.root))
    for node in components.nodes:
        parent = model.tree.parent[node]
        axis = model.tree.children[parent].index(node)
        for r in range(model.widths[node]):
            column, piece = model.node_weights[node][:, r], model.core(parent).select(axis, r)
            sigma = float(column.norm() * piece.norm())
            assert float(components.norms(node)[r]) == pytest.approx(sigma, rel=1e-12)
            without = model.to()
            without.node_weights[node][:, r] = 0.0
            wanted = -2 * float((at_tensor * (model.dense() - without.dense())).sum())
            assert float(components.predicted_derivatives(node, gradient)[r]) == pytest.approx(wanted, rel=1e-9)


def test_scaling_within_a_component_leaves_the_tensor():
    """Unbalancedness is about weights, not about the tensor: moving length between a component's vectors shows it."""
    model = CPFactorization((3, 4, 2), 2)
    init_balanced(model, 1.0, generator())
    before = model.dense()
    model.weights["factor0"].mul_(2.0)
    model.weights["factor2"].div_(2.0)
    assert torch.allclose(model.dense(), before)
    assert local_components(model).unbalancedness > 0.1


def test_evaluation_sees_weights_change_in_place():
    model = CPFactorization((2, 2), 1).init_gaussian(1.0, generator())
    evaluation = model.evaluation()
    before = evaluation.forward().clone()
    model.scale(3.0)
    assert torch.allclose(evaluation.forward(), 3 * before)
