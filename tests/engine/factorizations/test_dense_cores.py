"""Tucker, tensor train and hierarchical Tucker against tensorly and against their definition."""

from __future__ import annotations

import math

import pytest
import tensorly as tl
import torch

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.dense_cores import (
    HierarchicalTuckerFactorization,
    TensorTrainFactorization,
    TuckerFactorization,
)
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.factorizations.registry import MODELS
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra, factored_spectrum, hierarchical_rank
from htfcli.engine.ranks.matricization import dense_spectrum
from htfcli.engine.samples import Entries, RankOneMeasurements
from htfcli.errors import ConfigError, DataError
from tests.problems import generator, random_sample, reference_values

DIMS = (4, 3, 5, 2)


def gaussian(model):
    return model.init_gaussian(0.8, generator())


def close(got, wanted):
    return torch.allclose(got, torch.as_tensor(wanted), rtol=1e-12, atol=1e-12)


def test_tucker_is_that_of_tensorly():
    model = gaussian(TuckerFactorization(DIMS, {"{0}": 2, "{1}": 3, "{2}": 4, "{3}": 1}))
    core, factors = model.weights["{0,1,2,3}"], [model.weights[f"{{{n}}}"] for n in range(4)]
    assert tuple(core.shape) == (2, 3, 4, 1)
    assert close(model.dense(), tl.tucker_to_tensor((core.numpy(), [f.numpy() for f in factors])))


@pytest.mark.parametrize("depth", [2, 3])
def test_a_deep_tucker_has_products_of_matrices(depth):
    model = gaussian(TuckerFactorization(DIMS, 2, depth))
    root, factors = model.tree.labels[-1], []
    for mode in range(4):
        labels = [f"{{{mode}}}{k * chr(39)}" for k in range(depth)]
        factors.append(torch.linalg.multi_dot([model.weights[label] for label in labels]).numpy())
    assert close(model.dense(), tl.tucker_to_tensor((model.weights[root].numpy(), factors)))


def test_a_train_is_that_of_tensorly():
    model = gaussian(TensorTrainFactorization(DIMS, [3, 2, 2]))
    w = model.weights
    cores = [
        w["{0}"].unsqueeze(0),
        torch.einsum("qrs,ir->qis", w["{0,1}"], w["{1}"]),
        torch.einsum("qrs,ir->qis", w["{0,1,2}"], w["{2}"]),
        torch.einsum("qr,ir->qi", w["{0,1,2,3}"], w["{3}"]).unsqueeze(2),
    ]
    assert [tuple(core.shape) for core in cores] == [(1, 4, 3), (3, 3, 2), (2, 5, 2), (2, 2, 1)]
    assert close(model.dense(), tl.tt_to_tensor([core.numpy() for core in cores]))


def test_a_hierarchical_tucker_is_its_contraction():
    tree = ModeTree.from_nested([[2, 0], [1, 3]])
    model = gaussian(HierarchicalTuckerFactorization(DIMS, [3, 2], tree))
    w = model.weights
    assert {name: tuple(core.shape) for name, core in w.items()} == {
        "{0}": (4, 3), "{1}": (3, 3), "{2}": (5, 3), "{3}": (2, 2), "{0,2}": (3, 3, 2), "{1,3}": (3, 2, 2), "{0,1,2,3}": (2, 2),
    }  # fmt: skip
    wanted = torch.einsum(
        "ia,jb,kc,ld,cax,bdy,xy->ijkl",
        *(w[name] for name in ("{0}", "{1}", "{2}", "{3}", "{0,2}", "{1,3}", "{0,1,2,3}")),
    )
    assert close(model.dense(), wanted)


def test_gradients_by_finite_differences():
    """Of a function of the parameters that goes through evaluation and its closed-form backward pass."""
    model = gaussian(TensorTrainFactorization((3, 2, 3), 2))
    sample = random_sample("entries", model.dims, 9, seed=1)

    class Values(torch.autograd.Function):
        @staticmethod
        def forward(ctx, parameters):
            model.parameters.copy_(parameters)
            ctx.gradient = torch.zeros_like(parameters)
            ctx.evaluation = model.evaluation(sample, model.views(ctx.gradient))
            values = ctx.evaluation.forward()
            ctx.order = ctx.evaluation.order
            return values.clone()

        @staticmethod
        def backward(ctx, upstream):
            ctx.evaluation.backward(upstream.contiguous())
            return ctx.gradient

    start = model.parameters.clone().requires_grad_()
    assert torch.autograd.gradcheck(Values.apply, (start,), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("observed", [4, 40])
def test_single_entries_of_high_order(observed):
    """Pairs that occur instead of grids: entries of a train of 4^20 numbers, against a product of matrices."""
    model = TensorTrainFactorization((4,) * 20, 3)
    model.init_gaussian(model.gaussian_std(1.0), generator())
    index = torch.stack([torch.randint(4, (observed,), generator=generator(n)) for n in range(20)], 1)
    for row, got in zip(index, model.values(index), strict=True):
        vector = model.weights["{0}"][row[0]]
        for mode in range(1, 20):
            node = model.tree.parent[mode]
            matrix = torch.einsum("qrs,r->qs", model.core(node), model.node_weights[mode][row[mode]])
            vector = vector @ matrix
        assert float(got) == pytest.approx(float(vector), rel=1e-10)


def test_measurements():
    model = gaussian(TuckerFactorization((3, 4, 2), 2))
    sample = random_sample("vectors", model.dims, 5, seed=2)
    assert isinstance(sample, RankOneMeasurements)
    assert close(model.measure(sample), reference_values(model.dense(), sample))


# --- widths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "widths"),
    [
        (lambda: TuckerFactorization((4, 3, 20), 7), [4, 3, 7]),
        (lambda: TuckerFactorization((2, 3, 20), 50), [2, 3, 6]),  # the last mode has rank 2 * 3 at most
        (lambda: TuckerFactorization((4, 5), [3, 2], depth=2), [3, 3, 2, 2]),
        (lambda: TensorTrainFactorization((4, 3, 5, 2), 100), [4, 3, 5, 2, 10, 2]),
        (lambda: TensorTrainFactorization((4, 3, 5, 2), {"default": 3, "{3}": 7}), [3, 3, 3, 7, 3, 2]),
        (lambda: HierarchicalTuckerFactorization((4, 3, 5, 2), [3, 100]), [3, 3, 3, 2, 10, 10]),
    ],
)
def test_widths_are_at_most_the_largest_rank(make, widths):
    """Unless one is given for the node."""
    model = make()
    assert [model.widths[v] for v in range(model.tree.root)] == widths


def test_what_a_configuration_builds():
    def built(**settings):
        config = FitConfig(**settings)
        return MODELS[config.model].from_config(config, (6, 6, 6), torch.float64, "cpu")

    assert built(model="tucker").widths == {0: 6, 1: 6, 2: 6}
    assert built(model="tucker", depth=2).tree.to_nested() == [[0], [1], [2]]
    assert built(model="tensor-train", width=2).tree.to_nested() == [[0, 1], 2]
    assert built(model="hierarchical-tucker", tree=[0, [1, 2]], width=2).tree.to_nested() == [0, [1, 2]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TuckerFactorization((3, 3), 2, 0), r"the depth of a Tucker factorization is too small \(got 0"),
        (lambda: TuckerFactorization((3, 3), 0), r"the width of node \{0\} is not positive \(got 0"),
        (lambda: TuckerFactorization((3,), 2), "a mode tree needs at least two modes"),
        (lambda: TensorTrainFactorization((3, 3, 3), [2]), r"do not match the levels of the tree \(got 1, allowed 1 or 2"),
        (lambda: HierarchicalTuckerFactorization((3, 3), {"{0,1}": 2}), "a width is given for a node the tree does not"),
        (lambda: HierarchicalTuckerFactorization((3, 3), 2, ModeTree.named("star", 3)), "does not fit the tensor"),
    ],
)  # fmt: skip
def test_what_cannot_be(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_cores_of_another_shape():
    model = gaussian(TuckerFactorization((3, 3, 3), 2))
    weights = {name: weight.clone() for name, weight in model.weights.items()}
    with pytest.raises(DataError, match=r"weight \{0,1,2\} has the wrong shape \(got \(8,\), allowed \(2, 2, 2\)\)"):
        model.load({**weights, "{0,1,2}": weights["{0,1,2}"].flatten()})


# --- ranks ----------------------------------------------------------------------------------------------------------


def test_small_singular_values_are_not_lost():
    """The core of a Tucker factorization with orthonormal matrices has the singular values of the tensor: to 1e-14."""
    model = TuckerFactorization((6, 6, 6, 6), 4)
    sigma = torch.tensor([1.0, 1e-5, 1e-10, 1e-14], dtype=torch.float64)
    for mode in range(4):
        model.node_weights[mode].copy_(torch.linalg.qr(torch.randn(6, 4, generator=generator(mode))).Q)
        model.node_weights[mode].copy_(torch.linalg.qr(model.node_weights[mode]).Q)
    core = model.core(model.tree.root).squeeze(-1)
    for k in range(4):
        core[k, k, k, k] = sigma[k]
    for spectrum in FactoredSpectra(model).spectra():
        assert spectrum.scaled(4) == pytest.approx(sigma.tolist(), rel=1e-3, abs=1e-16)
    pair = factored_spectrum(model, (0, 2))
    assert pair.scaled(4) == pytest.approx(sigma.tolist(), rel=1e-3, abs=1e-16)


def test_ranks_of_a_long_train():
    """Order 300, whose norm is beyond doubles; its ranks are the widths, which no dimension limits inside."""
    model = TensorTrainFactorization((3,) * 300, 4).init_gaussian(3.0, generator())
    factored = FactoredSpectra(model)
    assert factored.log_norm > 750
    ranks = [spectrum.rank(1e-10) for spectrum in factored.spectra()]
    assert set(ranks[:300]) == {3}
    assert ranks[300:302] == [4, 4]
    assert set(ranks[302:-1]) == {4}


def test_ranks_of_dense_tensors():
    model = gaussian(HierarchicalTuckerFactorization((4, 4, 4, 4), [2, 3]))
    assert hierarchical_rank(model, tolerance=1e-10) == hierarchical_rank(model.dense(), model.tree, 1e-10)
    assert hierarchical_rank(model, tolerance=1e-10) == (2, 2, 2, 2, 3, 3)
    norm = float(torch.linalg.vector_norm(model.dense()))
    assert math.exp(FactoredSpectra(model).log_norm) == pytest.approx(norm, rel=1e-13)
    outside = factored_spectrum(model, (0, 3))
    wanted = dense_spectrum(model.dense(), (0, 3)).singular_values
    got = torch.tensor(outside.scaled(), dtype=torch.float64)
    assert float((got - wanted[: len(got)]).abs().max()) <= 1e-12 * float(wanted[0])


def test_entries_are_those_of_the_whole():
    model = gaussian(HierarchicalTuckerFactorization(DIMS, 3, ModeTree.from_nested([[0, 1, 3], [2]])))
    sample = random_sample("entries", DIMS, 60, seed=0)
    assert isinstance(sample, Entries)
    assert close(model.values(sample.index), model.dense()[sample.index.unbind(1)])
