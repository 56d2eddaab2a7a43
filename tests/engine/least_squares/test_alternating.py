"""Alternating least squares: every update is the exact minimizer, so the objective only falls."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.least_squares.alternating import AlternatingLeastSquares
from htfcli.engine.least_squares.levenberg_marquardt import LevenbergMarquardt
from htfcli.engine.samples import Entries
from tests.engine.least_squares.least_squares_problems import TREES, error, problem, start_gaussian
from tests.problems import generator, random_sample, reference_tensor, reference_values


def objective(model, entries, ridge):
    residual = reference_tensor(model, model.node_weights)[entries.index.unbind(1)] - entries.value
    return float(residual.square().sum() + ridge * model.parameters.square().sum())


def lowest(model, entries, ridge, node):
    """The least objective over one matrix, the others as they are: linear least squares by QR."""

    def residuals(weight):
        weights = [weight if n == node else w for n, w in enumerate(model.node_weights)]
        return reference_values(reference_tensor(model, weights), entries) - entries.value

    other = model.to()
    weight = other.node_weights[node]
    jacobian = torch.autograd.functional.jacobian(residuals, weight).flatten(1)
    penalty = ridge**0.5 * torch.eye(weight.numel(), dtype=torch.float64)
    right = torch.cat([jacobian @ weight.flatten() - residuals(weight), torch.zeros(weight.numel())])
    solution = torch.linalg.lstsq(torch.cat([jacobian, penalty]), right.unsqueeze(1), driver="gelsd").solution
    weight.copy_(solution.view_as(weight))
    return objective(other, entries, ridge)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("name", TREES)
def test_every_update_minimizes_over_its_matrix(name, ridge):
    """Up to the shift that keeps rows without data, which leaves a ten-millionth of what there was to gain."""
    _, entries, model = problem(TREES[name], 2, noise=0.1, seed=1, dims=(3, 4, 2, 3))
    solver = AlternatingLeastSquares(model, entries, ridge)
    solver.step()
    assert sorted(set(solver._order)) == [n for n, w in enumerate(model.node_weights) if w is not None]
    for node in solver._order:
        model.node_weights[node].add_(torch.randn(model.node_weights[node].shape, generator=generator(node)))
        before, wanted = objective(model, entries, ridge), lowest(model, entries, ridge, node)
        solver._solve(node)
        assert objective(model, entries, ridge) - wanted <= 1e-6 * (before - wanted)


def test_rows_without_data_stay_or_shrink():
    """Nothing is known of a slice without observations: its row stays without a ridge and goes to zero with one."""
    _, entries, model = problem(TREES["star"], 2, seed=1)
    entries = entries.select(entries.index[:, 1] != 3)
    solver = AlternatingLeastSquares(model, entries)
    row = model.node_weights[1][3].clone()
    solver._solve(1)
    assert torch.equal(model.node_weights[1][3], row)
    solver.set_ridge(0.1)
    solver._solve(1)
    assert float(model.node_weights[1][3].norm()) < 1e-4 * float(row.norm())


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("name", TREES)
def test_the_objective_never_rises(name, ridge):
    _, entries, model = problem(TREES[name], 3, noise=0.1, seed=2)
    solver = AlternatingLeastSquares(model, entries, ridge)
    values = [solver.objective]
    for _ in range(10):
        solver.step()
        residual = model.values(entries.index) - entries.value
        assert solver.loss == pytest.approx(float(residual.square().sum()), rel=1e-9)
        values.append(solver.objective)
    assert all(after <= before * (1 + 1e-9) for before, after in pairwise(values))
    assert values[-1] < 0.9 * values[0]
    assert solver.iterations == 10


@pytest.mark.parametrize("name", ["balanced", "star", "chain", "crossed"])
def test_recovery(name):
    errors = []
    for seed in range(10):
        target, entries, model = problem(TREES[name], 2, observed=0.7, seed=3)
        start_gaussian(model, entries.value, generator(seed))
        AlternatingLeastSquares(model, entries).run(400, tolerance=1e-14 * len(entries), slow=1e-6, patience=10)
        errors.append(error(model, target))
        if errors[-1] < 1e-6:
            break
    assert errors[-1] < 1e-6, errors


def test_recovery_of_a_cp_model_in_float32():
    target = CPFactorization((8, 7, 9), 2).init_gaussian(0.9, generator(7))
    entries = random_sample("entries", target.dims, 400, 0)
    value = target.values(entries.index)
    model = CPFactorization(target.dims, 2, dtype=torch.float32)
    start_gaussian(model, value, generator(1))
    AlternatingLeastSquares(model, Entries(entries.index, value.float())).run(200, slow=1e-6, patience=10)
    assert error(model.to(torch.float64), target) < 1e-4


@pytest.mark.parametrize("name", ["chain", "star"])
def test_same_solution_as_levenberg_marquardt(name):
    _, entries, model = problem(TREES[name], 2, observed=0.7, noise=0.1, seed=2)
    LevenbergMarquardt(model, entries, 0.05).run(300, slow=1e-12, patience=20)
    other = model.to()
    other.parameters.mul_(1 + 0.02 * torch.randn(len(other.parameters), generator=generator(), dtype=torch.float64))
    before = error(other, model)
    AlternatingLeastSquares(other, entries, 0.05).run(100, slow=1e-9, patience=20)
    assert before > 1e-2
    assert error(other, model) < 1e-3


def test_outliers_are_ignored():
    target, entries, model = problem(TREES["star"], 2, observed=0.8, noise=0.01, seed=3)
    value = entries.value.clone()
    value[torch.randperm(len(entries), generator=generator(9))[:10]] += 8.0
    spoilt = Entries(entries.index, value)
    least = model.to()
    AlternatingLeastSquares(least, spoilt).run(100)
    assert error(least, target) > 0.1
    solver = AlternatingLeastSquares(model, spoilt, loss="huber")
    for _ in range(20):
        solver.run(10)
    assert error(model, target) < 0.02
