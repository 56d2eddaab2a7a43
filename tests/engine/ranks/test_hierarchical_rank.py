from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.ranks.hierarchical_rank import (
    FactoredSpectra,
    factored_spectrum,
    hierarchical_rank,
    spectra_at,
    spectra_of,
)
from htfcli.engine.ranks.matricization import dense_spectrum
from htfcli.errors import ConfigError, DataError
from tests.problems import factorizations, generator


def assert_same_spectrum(got, wanted):
    """Equal up to 1e-12 of the largest singular value; what is not listed is zero."""
    values = torch.tensor(got.scaled(), dtype=torch.float64)
    padded = torch.nn.functional.pad(values, (0, len(wanted.singular_values) - len(values)))
    assert float((padded - wanted.singular_values).abs().max()) <= 1e-12 * float(wanted.singular_values[0])
    assert got.modes == wanted.modes
    assert got.shape == wanted.shape


@settings(max_examples=120, deadline=None)
@given(factorizations())
def test_factored_spectra_are_the_dense_ones(model):
    tensor = model.dense()
    factored = FactoredSpectra(model)
    for got in factored.spectra():
        assert_same_spectrum(got, dense_spectrum(tensor, got.modes))
    assert math.exp(factored.log_norm) == pytest.approx(float(torch.linalg.vector_norm(tensor)), rel=1e-12)


@settings(max_examples=120, deadline=None)
@given(factorizations(), st.data())
def test_any_matricization_from_the_factors(model, data):
    size = data.draw(st.integers(1, model.order - 1))
    modes = data.draw(st.permutations(range(model.order)))[:size]
    assert_same_spectrum(factored_spectrum(model, modes), dense_spectrum(model.dense(), modes))


def test_small_singular_values_are_not_lost():
    """A Gram matrix would lose everything under 1e-8 of the largest; here 1e-14 is still right."""
    model = HierarchicalTensorFactorization((6, 6, 6, 6), 4)
    g = generator()
    sigma = torch.tensor([1.0, 1e-5, 1e-10, 1e-14], dtype=torch.float64)
    q = [torch.linalg.qr(torch.randn(6, 4, generator=g, dtype=torch.float64)).Q for _ in range(4)]
    for node, weight in enumerate(model.node_weights):
        weight.copy_(q[node] if node < 4 else torch.eye(4) if node < 6 else sigma.unsqueeze(1))
    spectrum = FactoredSpectra(model).spectra()[4]
    assert spectrum.label == "{0,1}"
    assert spectrum.scaled(4) == pytest.approx(sigma.tolist(), rel=1e-3, abs=1e-16)


@pytest.mark.parametrize("tree", ["balanced", "chain", "star", "half"])
def test_known_hierarchical_rank(tree):
    """For Gaussian weights, the least of the node's width, its parent's and what the dimensions allow."""
    order = 6
    model = HierarchicalTensorFactorization((3,) * order, 2, ModeTree.named(tree, order)).init_gaussian(
        1.0, generator()
    )
    ranks = hierarchical_rank(model, tolerance=1e-10)
    assert ranks == hierarchical_rank(model.dense(), model.tree, tolerance=1e-10)
    assert set(ranks) == {2}


def test_the_zero_tensor():
    spectra = spectra_of(torch.zeros(3, 3, 3))
    assert [s.rank() for s in spectra] == [0] * len(spectra)
    assert all(math.isnan(s.effective_rank) and math.isnan(s.energy(1)) for s in spectra)
    model = CPFactorization((3, 3, 3), 2)
    assert FactoredSpectra(model).log_norm == -math.inf
    assert hierarchical_rank(model) == (0, 0, 0)


@pytest.mark.parametrize("tree", ["balanced", "chain", "star"])
def test_orders_beyond_the_range_of_doubles(tree):
    """The norm of an order-1000 tensor may leave the range of a double; ranks and relative values do not mind."""
    order = 1000 if tree != "star" else 600
    model = HierarchicalTensorFactorization((3,) * order, 4, ModeTree.named(tree, order)).init_gaussian(
        3.0, generator()
    )
    factored = FactoredSpectra(model)
    assert factored.log_norm > 750
    spectra = factored.spectra()
    assert {s.rank(1e-10) for s in spectra} == ({3, 4} if tree != "star" else {3})
    assert spectra[-1].scaled(1) == [math.inf]
    assert math.isfinite(spectra[-1].effective_rank)


def test_ranks_on_another_tree():
    model = HierarchicalTensorFactorization((3, 3, 3, 3), 2).init_gaussian(1.0, generator())
    half = ModeTree.named("half", 4)
    for got, wanted in zip(spectra_of(model, half), spectra_of(model.dense(), half), strict=True):
        assert_same_spectrum(got, wanted)


def test_a_matricization_that_grows_too_large_is_refused():
    model = HierarchicalTensorFactorization((2,) * 64, 8).init_gaussian(1.0, generator())
    with pytest.raises(DataError, match="cuts the mode tree in too many places"):
        factored_spectrum(model, range(0, 64, 2))


def test_tree_of_another_order():
    with pytest.raises(ConfigError, match=r"the mode tree does not fit the tensor \(got 3 modes, allowed 2\)"):
        spectra_of(torch.zeros(2, 2), ModeTree.named("star", 3))


def test_matricizations_in_the_tree_are_cheap_at_any_size():
    """And so are their complements; by the general way this one would need more memory than there is."""
    model = HierarchicalTensorFactorization((8,) * 16, 64).init_gaussian(1.0, generator())
    pair, rest = spectra_at(model, [[1, 0], list(range(2, 16))])
    wanted = FactoredSpectra(model).spectra()[16]
    assert (pair.label, pair.modes, rest.label, rest.modes) == ("{0,1}", (0, 1), "{2-15}", tuple(range(2, 16)))
    assert pair.shape == wanted.shape == rest.shape[::-1]
    assert pair.scaled() == rest.scaled() == wanted.scaled()


def test_a_root_with_a_single_child():
    """Nodes that hold all modes have no matricization, for dense tensors and factorizations alike."""
    tree = ModeTree.from_nested([[[0, 1], [2, 3]]])
    model = HierarchicalTensorFactorization((2, 3, 2, 3), 2, tree).init_gaussian(1.0, generator())
    factored, dense = spectra_of(model), spectra_of(model.dense(), tree)
    assert [s.label for s in factored] == [s.label for s in dense] == ["{0}", "{1}", "{2}", "{3}", "{0,1}", "{2,3}"]
    for a, b in zip(factored, dense, strict=True):
        assert_same_spectrum(a, b)


def test_labels_of_another_tree():
    model = CPFactorization((2,) * 5, 2).init_gaussian(1.0, generator())
    layered = ModeTree.named("layered", 5)
    labels = [s.label for s in spectra_of(model, layered)]
    assert labels == [s.label for s in spectra_of(model.dense(), layered)]
    assert len(set(labels)) == len(labels)
