"""Sums of first derivatives against the Jacobian of the definition, by autograd through the whole tensor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.dense_cores import HierarchicalTuckerFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares import jacobian as sweeps
from htfcli.engine.least_squares.jacobian import Sweeps
from htfcli.engine.samples import Entries
from tests.problems import factorizations, generator, random_sample, reference_tensor, reference_values


def reference(model, entries, weight=None):
    """Residuals (n,) and Jacobian (n, p) of the definition, both times the root of the weights."""

    def residuals(parameters):
        values = reference_values(reference_tensor(model, model.views(parameters)), entries)
        return (values - entries.value) * (1.0 if weight is None else weight.sqrt())

    parameters = model.parameters
    return residuals(parameters), torch.autograd.functional.jacobian(residuals, parameters)


def assert_close(got, wanted, tolerance=1e-10):
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= tolerance * max(1.0, float(wanted.abs().max()))


def assert_all_close(model, entries, weight=None, tolerance=1e-10):
    """Everything `Sweeps` computes, against the reference; `normal` both ways."""
    r, jacobian = reference(model, entries, weight)
    hessian, gradient, loss = jacobian.t() @ jacobian, jacobian.t() @ r, float(r @ r)
    parameters = model.parameters
    found = Sweeps(model, entries, weight)
    assert found.p == len(parameters)
    assert found.loss(parameters) == pytest.approx(loss, rel=tolerance, abs=tolerance)
    plain = reference(model, entries)[0]
    assert_close(found.residuals(parameters), plain, tolerance)
    for dense in (True, False):
        found._dense = dense
        normal = found.normal(parameters)
        assert_close(normal.hessian, hessian, tolerance)
        assert_close(normal.gradient, gradient, tolerance)
        assert normal.loss == pytest.approx(loss, rel=tolerance, abs=tolerance)
    got, total = found.gradient(parameters)
    assert_close(got, gradient, tolerance)
    assert total == pytest.approx(loss, rel=tolerance, abs=tolerance)
    direction = torch.randn(len(parameters), generator=generator(1), dtype=torch.float64).to(parameters)
    assert_close(found.product(parameters, direction), hessian @ direction, tolerance)
    for node, (start, rows, columns) in enumerate(found.spans):
        part = slice(start, start + rows * columns)
        blocks = found.diagonal_blocks(parameters)[node]
        if not rows:
            assert blocks.numel() == 0
            continue
        assert blocks.shape[0] == (rows if node < model.order else 1)
        assert_close(torch.block_diag(*blocks), hessian[part, part], tolerance)
        blocks, part_gradient = found.node_normal(parameters, node)
        assert_close(torch.block_diag(*blocks), hessian[part, part], tolerance)
        assert_close(part_gradient.flatten(), gradient[part], tolerance)


def random_weight(count, seed=0):
    weight = torch.rand(count, generator=generator(seed), dtype=torch.float64)
    weight[::5] = 0.0  # an entry that does not count at all
    return weight


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Many blocks of entries, the last one shorter."""

    def blocks(self, per_entry):
        for start in range(0, len(self.value), 7):
            yield slice(start, min(start + 7, len(self.value)))

    monkeypatch.setattr(Sweeps, "blocks", blocks)


@settings(max_examples=60, deadline=None)
@given(factorizations(), st.integers(1, 40), st.booleans())
def test_derivatives_are_autograd(model, count, weighted):
    entries = random_sample("entries", model.dims, count, seed=count)
    assert_all_close(model, entries, random_weight(len(entries)) if weighted else None)


MODELS = {
    "balanced": lambda: HierarchicalTensorFactorization((3, 2, 4, 3), [3, 2]),
    "half": lambda: HierarchicalTensorFactorization((3, 4, 2, 3, 2), 2, ModeTree.named("half", 5)),
    "star": lambda: HierarchicalTensorFactorization((3, 4, 2), 3, ModeTree.named("star", 3)),
    "chain": lambda: HierarchicalTensorFactorization((3, 4, 2, 3), [2, 3, 2], ModeTree.named("chain", 4)),
    "layered": lambda: HierarchicalTensorFactorization((2, 3, 2, 2, 3, 2), 2, ModeTree.named("layered", 6)),
    "single children": lambda: HierarchicalTensorFactorization((3, 2, 4), 2, ModeTree.from_nested([[[2, [0]], [1]]])),
    "cp": lambda: CPFactorization((3, 4, 2, 2), 3),
    "matrix": lambda: MatrixFactorization((4, 3), 3, [2, 3]),
    "dense cores": lambda: HierarchicalTuckerFactorization(
        (3, 2, 2, 3), {"default": 2, "{1}": 3}, ModeTree.from_nested([[0, 1], [2], 3])
    ),
    "dims of one": lambda: HierarchicalTensorFactorization((1, 3, 1, 2), 2),
}


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_derivatives_in_several_blocks(name, weighted):
    model = MODELS[name]().init_gaussian(1.0, generator())
    entries = random_sample("entries", model.dims, 24, seed=3)
    assert_all_close(model, entries, random_weight(len(entries)) if weighted else None)


def test_blocks_are_bounded_and_cover(monkeypatch):
    monkeypatch.setattr(sweeps, "_BLOCK", 1000)
    model = MODELS["star"]()
    entries = Entries(torch.zeros(500, 3, dtype=torch.int64), torch.zeros(500, dtype=torch.float64))
    blocks = list(Sweeps(model, entries).blocks(10))
    assert [b.start for b in blocks] == [0, 100, 200, 300, 400]
    assert blocks[-1].stop == 500
    assert [b.stop - b.start for b in Sweeps(model, entries).blocks(10**6)][:-1] == [64] * 7


@pytest.mark.parametrize("name", MODELS)
def test_derivatives_in_float32(name):
    model = MODELS[name]().init_gaussian(1.0, generator()).to(torch.float32)
    entries = random_sample("entries", model.dims, 20, seed=4)
    entries = Entries(entries.index, entries.value.float())
    assert_all_close(model, entries, tolerance=1e-5)
    assert Sweeps(model, entries).normal(model.parameters).hessian.dtype == torch.float32


def test_an_entry_more_than_once():
    """Rows that repeat are summed, not overwritten."""
    model = MODELS["chain"]().init_gaussian(1.0, generator())
    entries = random_sample("entries", model.dims, 6, seed=4)
    twice = Entries(torch.cat([entries.index, entries.index]), torch.cat([entries.value, entries.value + 1.0]))
    assert_all_close(model, twice)


@pytest.mark.parametrize("name", MODELS)
def test_curvature_is_the_second_derivative(name):
    """J^T r'', by a difference that is nearly exact for short directions and off by the third derivative for long ones."""
    model = MODELS[name]().init_gaussian(1.0, generator())
    entries = random_sample("entries", model.dims, 20, seed=5)
    direction = 1e-3 * torch.randn(len(model.parameters), generator=generator(2), dtype=torch.float64)

    def values(step):
        return reference_values(reference_tensor(model, model.views(model.parameters + step * direction)), entries)

    step = torch.zeros((), dtype=torch.float64)
    second = torch.autograd.functional.jacobian(
        lambda s: torch.autograd.functional.jacobian(values, s, create_graph=True), step
    )
    for weight in (None, random_weight(len(entries))):
        _, jacobian = reference(model, entries)
        wanted = jacobian.t() @ (second * (1.0 if weight is None else weight))
        got = Sweeps(model, entries, weight).curvature(model.parameters, direction)
        assert float((got - wanted).norm()) <= 1e-2 * float(wanted.norm())


def test_curvature_of_a_matrix_is_exact():
    """The value of a product of two matrices is quadratic along any line, so that no error is left."""
    model = MatrixFactorization((4, 3), 2, 2).init_gaussian(1.0, generator())
    entries = random_sample("entries", model.dims, 9, seed=5)
    direction = torch.randn(len(model.parameters), generator=generator(2), dtype=torch.float64)
    left, right = model.named(direction).values()
    _, jacobian = reference(model, entries)
    wanted = jacobian.t() @ reference_values(2 * left @ right, entries)
    assert_close(Sweeps(model, entries).curvature(model.parameters, direction), wanted)


def test_the_cheaper_way_is_taken():
    """Small leaves are written out; large ones are summed where they belong."""
    small, large = MODELS["balanced"](), HierarchicalTensorFactorization((50, 60, 70), 2, ModeTree.named("star", 3))
    assert Sweeps(small, random_sample("entries", small.dims, 20, 0))._dense
    assert not Sweeps(large, random_sample("entries", large.dims, 20, 0))._dense


def test_large_leaves_against_the_other_way():
    dims = (40, 30, 20)
    model = HierarchicalTensorFactorization(dims, 2, ModeTree.from_nested([[0, 2], 1])).init_gaussian(1.0, generator())
    entries = random_sample("entries", dims, 300, seed=6)
    found = Sweeps(model, entries)
    assert not found._dense
    summed = found.normal(model.parameters)
    found._dense = True
    written = found.normal(model.parameters)
    assert_close(summed.hessian, written.hessian)
    assert_close(summed.gradient, written.gradient)
    assert summed.loss == pytest.approx(written.loss)


def test_large_cores_have_the_diagonal_alone(monkeypatch):
    monkeypatch.setattr(sweeps, "_LARGEST_CORE", 7)  # the least core has eight numbers
    model = MODELS["dense cores"]().init_gaussian(1.0, generator())
    entries = random_sample("entries", model.dims, 24, seed=3)
    weight = random_weight(len(entries))
    _, jacobian = reference(model, entries, weight)
    found = Sweeps(model, entries, weight)
    blocks = found.diagonal_blocks(model.parameters)
    large = [node for node in model.tree.interior if blocks[node].shape[1] == 1]
    assert model.tree.root in large
    for node in large:
        start, rows, columns = found.spans[node]
        wanted = jacobian[:, start : start + rows * columns].square().sum(0)
        assert_close(blocks[node].flatten(), wanted)
    assert blocks[0].shape == (3, 2, 2)


def test_residuals_are_those_of_the_model():
    """In high order too, where no tensor can be written out."""
    model = HierarchicalTensorFactorization((3,) * 20, 2, ModeTree.named("half", 20))
    model.init_gaussian(model.gaussian_std(1.0), generator())
    index = torch.stack([torch.randint(3, (50,), generator=generator(n)) for n in range(20)], 1)
    value = torch.randn(50, generator=generator(), dtype=torch.float64)
    got = Sweeps(model, Entries(index, value)).residuals(model.parameters)
    assert_close(got, model.values(index) - value)


def test_the_comparison_can_fail():
    """A wrong entry of the weights, or a wrong Jacobian, is noticed."""
    model = MODELS["star"]().init_gaussian(1.0, generator())
    entries = random_sample("entries", model.dims, 20, seed=3)
    moved = Entries(entries.index.flip(0), entries.value)
    r, jacobian = reference(model, entries)
    other = Sweeps(model, moved).normal(model.parameters)
    with pytest.raises(AssertionError):
        assert_close(other.gradient, jacobian.t() @ r)
