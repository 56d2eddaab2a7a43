"""The steps of an evaluation one by one: values by their formula, gradients by autograd."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.factorizations import subtree_tables
from htfcli.engine.factorizations.subtree_tables import (
    Aligned,
    Gather,
    Grid,
    Measure,
    Mix,
    Pairs,
    RootGrid,
    RootPairs,
    RootRows,
    Table,
    Whole,
    grid_of,
    merge,
)
from tests.problems import generator

N, R = 12, 3


def rand(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def table(rows, seed=0, *, sampled=True, observations=False, count=N):
    """A table with random values; every row is used if there are fewer rows than observations."""
    value = rand(rows, R, seed=seed)
    row = torch.randint(rows, (count,), generator=generator(seed + 50)) if sampled else None
    if observations:
        row = torch.arange(count)
    return Table(value, torch.full_like(value, torch.nan), row, (seed,), observations)


def check_merge(step, a, b, expand):
    """Values of a merge against `expand` of the two values, and its gradients against autograd."""
    step.forward()
    left, right = a.value.clone().requires_grad_(), b.value.clone().requires_grad_()
    wanted = expand(left, right)
    assert torch.allclose(step.out.value, wanted, atol=1e-13)
    upstream = rand(*wanted.shape, seed=9)
    step.out.grad.copy_(upstream)
    step.backward()
    gradients = torch.autograd.grad(wanted, (left, right), upstream)
    assert torch.allclose(a.grad, gradients[0], atol=1e-12)
    assert torch.allclose(b.grad, gradients[1], atol=1e-12)


def test_mix():
    product, weight = table(5), rand(R, 2, seed=3)
    grad = torch.empty_like(weight)
    step = Mix(product, weight, grad)
    step.forward()
    assert torch.allclose(step.out.value, product.value @ weight)
    assert step.out.row is product.row
    step.out.grad.copy_(upstream := rand(5, 2, seed=4))
    step.backward()
    assert torch.allclose(grad, product.value.t() @ upstream)
    assert torch.allclose(product.grad, upstream @ weight.t())


def test_aligned():
    a, b = table(N, 1, observations=True), table(N, 2, observations=True)
    step = merge(a, b)
    assert isinstance(step, Aligned)
    assert step.out.is_observations
    check_merge(step, a, b, torch.mul)


@pytest.mark.parametrize("sampled", [True, False])
def test_grid(sampled):
    a, b = table(3, 1, sampled=sampled), table(4, 2, sampled=sampled)
    step = Grid(a, b)
    check_merge(step, a, b, lambda x, y: (x.unsqueeze(1) * y.unsqueeze(0)).flatten(0, 1))
    row, modes = grid_of(a, b)
    assert modes == (1, 2)
    if sampled:
        observed = step.out.value[row]
        assert torch.allclose(observed, a.value[a.row] * b.value[b.row])
    else:
        assert row is None


@pytest.mark.parametrize("sizes", [(40, 50), (2, 30)])
def test_pairs(sizes):
    """Few observations of many pairs: one row each; more that share pairs: one row per distinct pair."""
    count = 12 if sizes[0] > 30 else 100
    a, b = table(sizes[0], 1, count=count), table(sizes[1], 2, count=count)
    first, row = [], []
    distinct: dict[tuple[int, int], int] = {}
    for n, pair in enumerate(zip(a.row.tolist(), b.row.tolist(), strict=True)):
        if pair not in distinct:
            distinct[pair] = len(first)
            first.append(n)
        row.append(distinct[pair])
    step = Pairs(a, b, torch.tensor(row), torch.tensor(first), is_observations=False)
    check_merge(step, a, b, lambda x, y: x[a.row[first]] * y[b.row[first]])
    assert torch.allclose(step.out.value[step.out.row], a.value[a.row] * b.value[b.row])


@pytest.mark.parametrize("excess", [0, 2, 10**6])
@pytest.mark.parametrize("sizes", [(2, 3), (40, 50), (3, 40)])
def test_merging_keeps_what_every_observation_needs(monkeypatch, sizes, excess):
    """Whichever way is taken, a grid or pairs."""
    monkeypatch.setattr(subtree_tables, "_GRID_EXCESS", excess)
    a, b = table(sizes[0], 1, count=30), table(sizes[1], 2, count=30)
    step = merge(a, b)
    assert isinstance(step, Grid) or excess < 10**6
    assert isinstance(step, Pairs) or excess > 0
    step.forward()
    assert torch.allclose(step.out.value[step.out.row], a.value[a.row] * b.value[b.row])


def with_root(kind, weight):
    """Values of every way to end an evaluation at the root, their wanted ones, and what has gradients."""
    grad = None if weight is None else torch.full_like(weight, torch.nan)
    ones = torch.ones(R, 1, dtype=torch.float64)
    if kind == "rows":
        a = table(5, 1)
        step = RootRows(a, weight, grad)
        return step, (a,), grad, lambda w, x: x @ (ones if w is None else w)
    a, b = table(4, 1, count=6), table(5, 2, count=6)
    if kind == "pairs":
        cell = torch.randperm(20, generator=generator())[:6]  # distinct entries
        a.row, b.row = cell // 5, cell % 5
        step = RootPairs(a, b, weight, grad)
        i, j = a.row[step.order], b.row[step.order]
        return step, (a, b), grad, lambda w, x, y: (x[i] * (1.0 if w is None else w.t()) * y[j]).sum(1)
    step = RootGrid(a, b, weight, grad)
    return step, (a, b), grad, lambda w, x, y: x * (1.0 if w is None else w.t()) @ y.t()


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("kind", ["rows", "grid", "pairs"])
def test_roots(kind, weighted):
    weight = rand(R, 1, seed=7) if weighted else None
    step, tables, grad, formula = with_root(kind, weight)
    leaves = [t.value.clone().requires_grad_() for t in tables]
    w = None if weight is None else weight.clone().requires_grad_()
    wanted = formula(w, *leaves)
    values = step.forward()
    assert torch.allclose(values if kind == "pairs" else step.value, wanted, atol=1e-12)
    upstream = rand(*wanted.shape, seed=8)
    if kind == "pairs":
        step.backward(upstream)
    else:
        step.value_grad.copy_(upstream)
        step.backward()
    gradients = torch.autograd.grad(wanted, [*leaves, *([] if w is None else [w])], upstream)
    for got, gradient in zip([*(t.grad for t in tables), grad], [*gradients, None], strict=False):
        if gradient is not None:
            assert torch.allclose(got, gradient, atol=1e-12)


def test_observing():
    """Cells, the whole tensor with its axes in order, and inner products with matrices; and back."""
    root = RootGrid(table(4, 1), table(5, 2), None, None)
    root.forward()
    cell = torch.tensor([7, 3, 19])
    gather = Gather(root, cell)
    assert torch.equal(gather.forward(), root.value.flatten()[cell])
    gather.backward(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert torch.equal(root.value_grad.flatten()[cell], torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert float(root.value_grad.sum()) == 6.0
    whole = Whole(root, (4, 5), (1, 0))
    assert torch.equal(whole.forward(), root.value.t())
    whole.backward(upstream := rand(5, 4, seed=3))
    assert torch.equal(root.value_grad, upstream.t())
    matrices = rand(6, 4, 5, seed=4)
    measure = Measure(root, matrices)
    assert torch.allclose(measure.forward(), torch.einsum("nij,ij->n", matrices, root.value))
    measure.backward(upstream := rand(6, seed=5))
    assert torch.allclose(root.value_grad, torch.einsum("nij,n->ij", matrices, upstream))
