"""Values and closed-form gradients against the definition, on whole tensors and differentiated by autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htfcli.engine.factorizations import evaluation
from htfcli.engine.factorizations import subtree_tables as tables
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.fitting.records import SampleLoss
from htfcli.engine.samples import Entries
from htfcli.errors import DataError
from tests.problems import factorizations, generator, random_sample, reference_tensor, reference_values


def reference_gradient(model, sample, loss):
    """Gradient of the mean loss by autograd through the whole tensor."""
    parameters = model.parameters.clone().requires_grad_()
    values = reference_values(reference_tensor(model, model.views(parameters)), sample)
    residual = values - sample.value
    mean = {
        "l2": lambda: residual.square().mean(),
        "l1": lambda: residual.abs().mean(),
        "huber": lambda: torch.nn.functional.smooth_l1_loss(values, sample.value),
    }[loss]()
    (gradient,) = torch.autograd.grad(mean, parameters)
    return mean.item(), gradient


def assert_close(got, wanted, tolerance=1e-10):
    assert float((got - wanted).abs().max()) <= tolerance * max(1.0, float(wanted.abs().max()))


@settings(max_examples=60, deadline=None)
@given(factorizations())
def test_dense_tensor_is_the_definition(model):
    assert_close(model.dense(), reference_tensor(model, model.node_weights))


@settings(max_examples=150, deadline=None)
@given(factorizations(), st.sampled_from(["entries", "vectors"]), st.integers(1, 60), st.sampled_from(list(LOSSES)))
def test_gradient_is_autograd(model, kind, count, loss):
    sample = random_sample(kind, model.dims, count, seed=count)
    gradient = torch.full_like(model.parameters, torch.nan)  # every entry must be written
    fitted = SampleLoss(model, sample, LOSSES[loss], gradient)
    fitted.forward_backward()
    mean, wanted = reference_gradient(model, sample, loss)
    assert fitted.loss() == pytest.approx(mean, rel=1e-10)
    assert_close(gradient, wanted)


@pytest.fixture
def no_grids(monkeypatch):
    """Never take the grid where pairs would do."""
    monkeypatch.setattr(tables, "_GRID_EXCESS", 0)
    monkeypatch.setattr(evaluation, "_ROOT_GRID_EXCESS", 0)


@pytest.mark.usefixtures("no_grids")
@pytest.mark.parametrize("seed", range(40))
def test_gradient_over_pairs(seed):
    g = generator(seed)
    trees = ["balanced", "chain", "star", "half", "layered"]
    order = int(torch.randint(2, 7, (), generator=g))
    dims = torch.randint(1, 6, (order,), generator=g).tolist()
    tree = ModeTree.named(trees[seed % len(trees)], order)
    model = HierarchicalTensorFactorization(dims, 3, tree).init_gaussian(1.0, g)
    sample = random_sample("entries", model.dims, 1 + 3 * seed, seed)
    gradient = torch.full_like(model.parameters, torch.nan)
    SampleLoss(model, sample, LOSSES["l2"], gradient).forward_backward()
    assert_close(gradient, reference_gradient(model, sample, "l2")[1])


@pytest.mark.parametrize("name", ["balanced", "chain", "star"])
def test_pairs_are_used_where_entries_are_sparse(name):
    """The case above is not a laboratory one: few entries of a large tensor take the same steps, and agree."""
    dims = (40, 30, 20, 25)
    model = HierarchicalTensorFactorization(dims, 3, ModeTree.named(name, 4)).init_gaussian(1.0, generator())
    sample = random_sample("entries", dims, 200, 0)
    evaluation = model.evaluation(sample)
    steps = {type(step).__name__ for step in evaluation._steps} | {type(evaluation._observe).__name__}
    assert steps & {"Pairs", "RootPairs"}
    gradient = torch.zeros_like(model.parameters)
    SampleLoss(model, sample, LOSSES["l2"], gradient).forward_backward()
    assert_close(gradient, reference_gradient(model, sample, "l2")[1])


@settings(max_examples=25, deadline=None)
@given(factorizations(max_order=4), st.sampled_from(["entries", "vectors"]))
def test_gradcheck(model, kind):
    """Numerical differentiation agrees too, so that the two references cannot share a mistake."""
    sample = random_sample(kind, model.dims, 7, seed=1)

    def at(parameters):
        other = model.to()
        other.parameters.copy_(parameters)
        return other

    class Values(torch.autograd.Function):
        @staticmethod
        def forward(ctx, parameters):
            ctx.save_for_backward(parameters)
            return at(parameters).measure(sample)

        @staticmethod
        def backward(ctx, upstream):
            (parameters,) = ctx.saved_tensors
            other = at(parameters)
            gradient = torch.zeros_like(parameters)
            evaluation = other.evaluation(sample, other.views(gradient))
            evaluation.forward()
            evaluation.backward(upstream if evaluation.order is None else upstream[evaluation.order])
            return gradient

    assert torch.autograd.gradcheck(Values.apply, model.parameters.clone().requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["htf", "matrix"])
def test_matrix_measurements(kind, loss):
    model = MatrixFactorization((6, 4), 3, 3) if kind == "matrix" else HierarchicalTensorFactorization((6, 4), 3)
    model.init_gaussian(1.0, generator())
    sample = random_sample("matrices", (6, 4), 17, 0)
    gradient = torch.zeros_like(model.parameters)
    SampleLoss(model, sample, LOSSES[loss], gradient).forward_backward()
    assert_close(gradient, reference_gradient(model, sample, loss)[1])


@settings(max_examples=40, deadline=None)
@given(factorizations(), st.integers(1, 40))
def test_values_come_in_the_order_asked(model, count):
    """Entries may be asked for in any order and more than once."""
    index = torch.stack([torch.randint(d, (count,), generator=generator(count)) for d in model.dims], 1)
    assert_close(model.values(index), reference_tensor(model, model.node_weights)[index.unbind(1)])


def test_values_in_chunks(monkeypatch):
    from htfcli.engine.factorizations import factorization

    model = HierarchicalTensorFactorization((3, 4, 5), 2).init_gaussian(1.0, generator())
    index = torch.cartesian_prod(*(torch.arange(d) for d in model.dims))
    monkeypatch.setattr(factorization, "_CHUNK", 7)
    assert_close(model.values(index).view(3, 4, 5), model.dense())


@pytest.mark.parametrize("tree", ["balanced", "half", "chain", "star", "square", "layered"])
def test_order_64_without_materializing(tree):
    """4^64 entries: values are right wherever a rank-one tensor says what they must be, and gradients are finite."""
    order, dims = 64, (4,) * 64
    model = HierarchicalTensorFactorization(dims, 3, ModeTree.named(tree, order))
    g = generator()
    leaves = [torch.rand(4, generator=g, dtype=torch.float64) + 0.5 for _ in range(order)]
    for node, weight in enumerate(model.node_weights):
        weight.zero_()
        if node < order:
            weight[:, 0] = leaves[node]
        else:
            weight[0, 0] = 1.0
    index = torch.randint(4, (500, order), generator=g)
    wanted = torch.stack([leaves[n][index[:, n]] for n in range(order)]).prod(0)
    assert_close(model.values(index) / wanted, torch.ones(500), 1e-12)
    model.init_gaussian(model.gaussian_std(1.0), g)
    gradient = torch.zeros_like(model.parameters)
    SampleLoss(model, Entries(index, wanted), LOSSES["l2"], gradient).forward_backward()
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("index", [[[0, 5]], [[-1, 0]], [[0, 0], [4, 3]]])
def test_values_out_of_range(index):
    model = HierarchicalTensorFactorization((4, 4), 1)
    with pytest.raises(DataError, match="has an index out of range"):
        model.values(torch.tensor(index))


def test_a_tensor_too_large_to_write_out():
    with pytest.raises(DataError, match=r"too large to write out \(got 10\^38 numbers, allowed 2.7e\+08\)"):
        HierarchicalTensorFactorization((4,) * 64, 2).dense()
    with pytest.raises(DataError, match="too large to write out"):  # the tensor would do, a table on the way would not
        CPFactorization((100, 100, 100), 40_000).dense()
