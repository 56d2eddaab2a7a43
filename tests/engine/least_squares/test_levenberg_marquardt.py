"""Levenberg-Marquardt: what its steps keep and lower, and solutions whose conditions can be written down."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from htfcli.engine.factorizations.balance import balance
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares import levenberg_marquardt as second_order
from htfcli.engine.least_squares.levenberg_marquardt import LevenbergMarquardt
from htfcli.engine.least_squares.robust import robust_weights
from htfcli.engine.ranks.local_components import LocalComponents
from htfcli.engine.samples import Entries
from tests.problems import factorizations, generator, random_sample, reference_tensor, reference_values


def start_gaussian(model, value, generator):
    """Centred Gaussian weights that give entries of the root mean square of the data."""
    model.init_gaussian(model.gaussian_std(float(value.square().mean().sqrt()) or 1.0), generator)


TREES = {
    "balanced": ModeTree.named("balanced", 4),
    "star": ModeTree.named("star", 4),
    "chain": ModeTree.named("chain", 4),
    "half": ModeTree.named("half", 4),
    "crossed": ModeTree.from_nested([[0, 2], [1, 3]]),
    "single children": ModeTree.from_nested([[[0, 1]], [2, [3]]]),
}
DIMS = (5, 6, 4, 5)


def problem(tree, widths=2, observed=0.5, noise=0.0, seed=0, dims=DIMS):
    """A target of rms about one, observed entries, and a start of the same shape."""
    target = HierarchicalTensorFactorization(dims, widths, tree)
    target.init_gaussian(target.gaussian_std(1.0), generator(seed))
    target.scale(float(target.dense().square().mean().sqrt()) ** -1)
    total = target.entries
    entries = random_sample("entries", dims, round(observed * total), seed)
    value = target.values(entries.index)
    entries = Entries(entries.index, value + noise * torch.randn(len(value), generator=generator(seed + 50)))
    model = HierarchicalTensorFactorization(dims, widths, tree)
    start_gaussian(model, entries.value, generator(seed + 100))
    return target, entries, model


def error(model, target):
    difference = model.dense() - target.dense()
    return float(difference.norm() / target.dense().norm())


# --- balancing --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(factorizations())
def test_balance_keeps_the_tensor_and_makes_norms_equal(model):
    before = model.dense()
    balance(model, sweeps=150)
    assert float((model.dense() - before).abs().max()) <= 1e-9 * max(1.0, float(before.abs().max()))
    components = LocalComponents(model)
    assert components.unbalancedness <= 1e-6 * max(1.0, float(model.parameters.square().sum()))
    at_rest = model.parameters.clone()
    balance(model)
    assert torch.allclose(model.parameters, at_rest, rtol=1e-6, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(factorizations())
def test_a_pass_of_balancing_never_adds_to_the_penalty(model):
    before = float(model.parameters.square().sum())
    balance(model)
    assert float(model.parameters.square().sum()) <= before * (1 + 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_balance_leaves_dead_components_alone(dtype):
    """A zero vector cannot be made longer, and the others must not be made zero, or the component could not rise."""
    model = CPFactorization((3, 4, 2), 2, dtype=dtype).init_gaussian(1.0, generator())
    model.node_weights[1][:, 0] = 0.0
    others = model.node_weights[0][:, 0].clone(), model.node_weights[2][:, 0].clone()
    balance(model, sweeps=3)
    assert torch.isfinite(model.parameters).all()
    assert torch.equal(model.node_weights[0][:, 0], others[0])
    assert torch.equal(model.node_weights[2][:, 0], others[1])
    norms = [float(w[:, 1].norm()) for w in model.node_weights[:3]]
    assert norms == pytest.approx([norms[0]] * 3)


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [second_order.MATRIX_LIMIT, 0])
@pytest.mark.parametrize("ridge", [0.0, 1.0])
@pytest.mark.parametrize("name", TREES)
def test_the_objective_never_rises(monkeypatch, name, ridge, limit):
    monkeypatch.setattr(second_order, "MATRIX_LIMIT", limit)
    _, entries, model = problem(TREES[name], 3, noise=0.1, seed=1)
    solver = LevenbergMarquardt(model, entries, ridge)
    assert solver._small == (limit > 0)
    before = solver.objective
    for _ in range(15):
        taken = solver.step()
        residual = model.values(entries.index) - entries.value
        wanted = float(residual.square().sum()) + ridge * float(model.parameters.square().sum())
        assert solver.objective == pytest.approx(wanted, rel=1e-9)
        assert solver.objective < before if taken else solver.objective == before
        before = solver.objective
    assert solver.iterations == 15


def assert_recovered(target, entries, model):
    """From one of a few random starts; a single one may end in a local minimum."""
    errors = []
    for seed in range(4):
        start_gaussian(model, entries.value, generator(seed))
        LevenbergMarquardt(model, entries).run(200, tolerance=1e-26 * len(entries))
        errors.append(error(model, target))
        if errors[-1] < 1e-10:
            break
    assert errors[-1] < 1e-10, errors


@pytest.mark.parametrize("name", TREES)
def test_exact_recovery(name):
    assert_recovered(*problem(TREES[name], 2, seed=3))


@pytest.mark.parametrize("kind", ["cp", "matrix"])
def test_exact_recovery_without_root_weights(kind):
    make = (lambda: CPFactorization((6, 5, 7), 3)) if kind == "cp" else lambda: MatrixFactorization((12, 10), 3, 2)
    target = make().init_gaussian(0.9, generator(7))
    entries = random_sample("entries", target.dims, round(0.7 * target.entries), 0)
    entries = Entries(entries.index, target.values(entries.index))
    assert_recovered(target, entries, make())


@pytest.mark.parametrize("ridge", [0.0, 1e-2])
def test_conjugate_gradients_reach_the_same_solution(monkeypatch, ridge):
    _, entries, model = problem(TREES["balanced"], 2, observed=0.7, noise=0.05, seed=2)
    other = model.to()
    LevenbergMarquardt(model, entries, ridge).run(300, slow=1e-12, patience=30)
    monkeypatch.setattr(second_order, "MATRIX_LIMIT", 0)
    LevenbergMarquardt(other, entries, ridge).run(300, slow=1e-10, patience=20)
    assert error(other, model) < 1e-5


def test_conjugate_gradients_solve_the_normal_equations(monkeypatch):
    _, entries, model = problem(TREES["chain"], 2, seed=4)
    monkeypatch.setattr(second_order, "MATRIX_LIMIT", 0)
    solver = LevenbergMarquardt(model, entries, 0.1)
    parameters = model.parameters.clone()

    def residuals(parameters):
        return reference_values(reference_tensor(model.tree, model.views(parameters)), entries) - entries.value

    jacobian = torch.autograd.functional.jacobian(residuals, parameters)
    matrix = jacobian.t() @ jacobian + (solver.ridge + solver._mu) * torch.eye(len(parameters), dtype=torch.float64)
    gradient = jacobian.t() @ residuals(parameters) + 0.1 * parameters
    assert torch.allclose(solver._gradient + 0.1 * parameters, gradient)
    step = solver._solve(gradient)
    wanted = torch.linalg.solve(matrix, -gradient)
    gap = step - wanted
    assert float(gap @ matrix @ gap) < 0.05 * float(wanted @ matrix @ wanted)


@pytest.mark.parametrize("name", TREES)
def test_a_ridge_solution_is_stationary(name):
    """J^T r + ridge * weights = 0, and not at zero, where it holds too."""
    _, entries, model = problem(TREES[name], 2, noise=0.1, seed=5)
    ridge = 0.5
    LevenbergMarquardt(model, entries, ridge).run(500, slow=1e-14, patience=20)
    parameters = model.parameters.clone().requires_grad_()
    residual = reference_values(reference_tensor(model.tree, model.views(parameters)), entries) - entries.value
    objective = residual.square().sum() + ridge * parameters.square().sum()
    (gradient,) = torch.autograd.grad(objective, parameters)
    assert float(parameters.detach().norm()) > 1.0
    assert float(gradient.norm()) < 1e-4 * ridge * float(parameters.detach().norm())


def test_ridge_on_a_matrix_is_soft_thresholding():
    """All entries of a matrix observed: the penalty on two balanced factors is twice the nuclear norm, and its solution
    has the singular values of the data less the ridge."""
    matrix = torch.randn(7, 6, generator=generator(), dtype=torch.float64)
    index = torch.cartesian_prod(torch.arange(7), torch.arange(6))
    model = MatrixFactorization((7, 6), 2, 6).init_gaussian(0.5, generator(1))
    ridge = 1.2
    LevenbergMarquardt(model, Entries(index, matrix.flatten()), ridge).run(500, slow=1e-14, patience=20)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    wanted = u @ torch.diag((s - ridge).clamp_min(0)) @ vh
    assert float((model.dense() - wanted).norm() / wanted.norm()) < 1e-4


def test_run_stops_at_the_tolerance_and_where_nothing_is_gained():
    _, entries, model = problem(TREES["star"], 2, seed=3)
    solver = LevenbergMarquardt(model, entries)
    solver.run(200, tolerance=0.1 * len(entries))
    assert 0 < solver.loss <= 0.1 * len(entries)
    _, entries, model = problem(TREES["star"], 2, noise=0.5, seed=3)
    solver = LevenbergMarquardt(model, entries, 1.0)
    solver.run(10_000)
    assert solver.iterations < 500


def test_a_perfect_start_stays():
    target, entries, _ = problem(TREES["half"])
    model = target.to()
    solver = LevenbergMarquardt(model, entries)
    solver.run(20)
    assert error(model, target) < 1e-12


def test_restored_run_goes_on_bit_for_bit():
    _, entries, model = problem(TREES["balanced"], 3, noise=0.1, seed=1)
    solver = LevenbergMarquardt(model, entries, 0.1, "huber")
    for _ in range(5):
        solver.run(1)
    parameters, damping = model.parameters.clone(), solver.damping
    solver.run(5)
    other = LevenbergMarquardt(problem(TREES["balanced"], 3, noise=0.1, seed=1)[2], entries, 0.1, "huber")
    other.restore(parameters, damping)
    other.run(5)
    assert torch.equal(other.model.parameters, model.parameters)
    assert torch.equal(other.damping, solver.damping)


# --- robust losses ----------------------------------------------------------------------------------------------------


def test_robust_weights_are_their_formula():
    residual = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 100.0], dtype=torch.float64)
    deviation = 1.4826 * 1.0
    wanted = [min(1.0, 1.345 * deviation / max(abs(float(r)), 1e-300)) for r in residual]
    assert robust_weights(residual, "huber").tolist() == pytest.approx(wanted)
    weights = robust_weights(residual, "l1")
    assert weights.tolist() == pytest.approx([deviation / max(abs(float(r)), 1e-3 * deviation) for r in residual])
    absolute = weights * residual.square() / deviation  # the weighted squares are the absolute values
    assert absolute.tolist() == pytest.approx(residual.abs().tolist())
    assert robust_weights(torch.zeros(4), "l1").tolist() == [1.0] * 4


@pytest.mark.parametrize("loss", ["huber", "l1"])
def test_outliers_are_ignored(loss):
    target, entries, model = problem(TREES["star"], 2, observed=0.8, noise=0.01, seed=3)
    outliers = torch.randperm(len(entries), generator=generator(9))[:10]
    value = entries.value.clone()
    value[outliers] += 8.0
    spoilt = Entries(entries.index, value)
    least = model.to()
    LevenbergMarquardt(least, spoilt).run(100)
    assert error(least, target) > 0.1
    solver = LevenbergMarquardt(model, spoilt, loss=loss)
    for _ in range(20):
        solver.run(10)
    assert error(model, target) < 0.02
    weights = robust_weights(model.values(spoilt.index) - spoilt.value, loss)
    assert float(weights[outliers].max()) < 0.1 * float(weights.median())
