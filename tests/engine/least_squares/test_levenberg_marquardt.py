"""Levenberg-Marquardt: what its steps keep and lower, and solutions whose conditions can be written down."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.least_squares import levenberg_marquardt as second_order
from htfcli.engine.least_squares.levenberg_marquardt import LevenbergMarquardt
from htfcli.engine.least_squares.robust import robust_weights
from htfcli.engine.samples import Entries
from tests.engine.least_squares.least_squares_problems import TREES, error, problem, start_gaussian
from tests.problems import generator, random_sample, reference_tensor, reference_values

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
    """From one of several random starts; a single one may end in a local minimum."""
    errors = []
    for seed in range(10):
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
    """From a point near it, so that both descend to the same minimum."""
    _, entries, model = problem(TREES["balanced"], 2, observed=0.7, noise=0.05, seed=2)
    LevenbergMarquardt(model, entries, ridge).run(300, slow=1e-12, patience=30)
    other = model.to()
    other.parameters.mul_(1 + 0.02 * torch.randn(len(other.parameters), generator=generator(), dtype=torch.float64))
    assert error(other, model) > 1e-2
    monkeypatch.setattr(second_order, "MATRIX_LIMIT", 0)
    LevenbergMarquardt(other, entries, ridge).run(100, slow=1e-10, patience=20)
    assert error(other, model) < 1e-5


def test_conjugate_gradients_solve_the_normal_equations(monkeypatch):
    _, entries, model = problem(TREES["chain"], 2, seed=4)
    monkeypatch.setattr(second_order, "MATRIX_LIMIT", 0)
    solver = LevenbergMarquardt(model, entries, 0.1)
    parameters = model.parameters.clone()

    def residuals(parameters):
        return reference_values(reference_tensor(model, model.views(parameters)), entries) - entries.value

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
    residual = reference_values(reference_tensor(model, model.views(parameters)), entries) - entries.value
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
