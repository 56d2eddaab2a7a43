"""Conjugate gradients against a direct solution."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.least_squares.conjugate_gradients import conjugate_gradients
from tests.problems import generator


def system(size=12, seed=0):
    """A symmetric positive definite matrix with condition number of order 100, and a right side."""
    g = generator(seed)
    q = torch.linalg.qr(torch.randn(size, size, generator=g, dtype=torch.float64)).Q
    matrix = q @ torch.diag(torch.logspace(0, 2, size, dtype=torch.float64)) @ q.t()
    return matrix, torch.randn(size, generator=g, dtype=torch.float64)


def solve(matrix, target, inverse, iterations=100, goal=1e-24):
    return conjugate_gradients(lambda x: matrix @ x, target, lambda r: inverse @ r, iterations=iterations, goal=goal)


@pytest.mark.parametrize("preconditioner", ["none", "diagonal", "exact"])
def test_the_solution_is_the_direct_one(preconditioner):
    matrix, target = system()
    eye = torch.eye(12, dtype=torch.float64)
    inverse = {
        "none": eye,
        "diagonal": torch.diag(1 / matrix.diagonal()),
        "exact": torch.linalg.inv(matrix),
    }[preconditioner]
    wanted = torch.linalg.solve(matrix, target)
    before = target.clone()
    got = solve(matrix, target, inverse)
    assert float((got - wanted).norm()) <= 1e-9 * float(wanted.norm())
    assert torch.equal(target, before)


def test_every_iteration_minimizes_over_the_krylov_space():
    """After k iterations x minimizes 1/2 x^T A x - b^T x over the span of b, A b, ..., A^(k-1) b."""
    matrix, target = system(seed=1)
    krylov = [target]
    for k in range(1, 6):
        basis = torch.linalg.qr(torch.stack(krylov, 1)).Q
        wanted = basis @ torch.linalg.solve(basis.t() @ matrix @ basis, basis.t() @ target)
        got = solve(matrix, target, torch.eye(12, dtype=torch.float64), iterations=k)
        assert float((got - wanted).norm()) <= 1e-8 * float(wanted.norm())
        krylov.append(matrix @ krylov[-1] / 100)


def test_it_stops_at_the_goal():
    matrix, target = system()
    products = []

    def product(x):
        products.append(x)
        return matrix @ x

    x = conjugate_gradients(product, target, torch.clone, iterations=100, goal=1e-4)
    residual = target - matrix @ x
    assert float(residual @ residual) <= 1e-4 * float(target @ target) * (1 + 1e-9)
    rougher = len(products)
    conjugate_gradients(product, target, torch.clone, iterations=100, goal=1e-8)
    assert len(products) - rougher > rougher > 1


def test_a_right_side_of_zeros():
    matrix, target = system()
    assert torch.equal(solve(matrix, torch.zeros_like(target), torch.eye(12, dtype=torch.float64)), 0 * target)
