"""What all factorizations share: weights, initialization, scaling, copies, checks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.dense_cores import TensorTrainFactorization
from htfcli.engine.factorizations.factorization import check_state
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.factorizations.registry import MODELS
from htfcli.errors import ConfigError, DataError
from tests.problems import factorizations, generator, reference_tensor


@settings(max_examples=40)
@given(factorizations())
def test_matrices_are_views_that_share_out_the_parameters(model):
    model.parameters.copy_(torch.arange(len(model.parameters), dtype=torch.float64))
    parts = [weight.flatten() for weight in model.node_weights if weight is not None]
    assert torch.equal(torch.cat(parts), model.parameters)
    named = torch.cat([weight.flatten() for weight in model.weights.values()])
    assert torch.equal(named.sort().values, model.parameters)
    model.node_weights[0].zero_()
    assert float(model.parameters[: model.node_weights[0].numel()].abs().sum()) == 0.0


@settings(max_examples=40)
@given(factorizations(), st.floats(1e-3, 1e3))
def test_scaling_multiplies_the_tensor(model, factor):
    wanted = factor * reference_tensor(model, model.node_weights)
    scaled = model.to().scale(factor)
    assert torch.allclose(scaled.dense(), wanted, rtol=1e-9, atol=1e-9 * factor)
    back = scaled.scale_log(-math.log(factor))
    assert torch.allclose(back.parameters, model.parameters, rtol=1e-9, atol=1e-12)


@settings(max_examples=40)
@given(factorizations())
def test_description_and_weights_make_the_same_factorization(model):
    """What a file holds: everything but the weights, and these by name."""
    facts = model.describe()
    tree = ModeTree(tuple(() for _ in facts["dims"]) + tuple(map(tuple, facts["children"])))
    cls = MODELS[facts["kind"]]
    again = cls.blank(facts["dims"], tree, dict(zip(cls.sized(tree), facts["widths"], strict=True)))
    assert type(again) is type(model)
    assert not again.parameters.any()
    again.load({name: weight.clone() for name, weight in model.weights.items()})
    assert torch.equal(again.parameters, model.parameters)
    assert torch.equal(again.dense(), model.dense())


def test_copies_share_nothing():
    model = CPFactorization((3, 2), 2).init_gaussian(1.0, generator())
    other = model.to(torch.float32)
    assert other.parameters.dtype == torch.float32
    assert torch.equal(other.parameters, model.parameters.float())
    other.parameters.zero_()
    assert model.parameters.all()
    stacked = model.stacked(4)
    assert stacked.parameters.shape == (4, len(model.parameters))
    assert [tuple(w.shape) for w in stacked.node_weights if w is not None] == [(4, 3, 2), (4, 2, 2)]


def test_a_seed_is_the_same_start_in_every_dtype():
    low, high = (
        CPFactorization((5, 4), 3, dtype=d).init_gaussian(0.1, generator(7)) for d in (torch.float32, torch.float64)
    )
    assert torch.equal(low.parameters, high.parameters.float())
    wanted = 0.1 * torch.randn(27, generator=generator(7), dtype=torch.float64)
    assert torch.equal(high.parameters, wanted)


@pytest.mark.parametrize("kind", ["htf", "cp", "matrix", "tensor-train"])
def test_gaussian_std_gives_the_rms_asked_for(kind):
    """Exactly in the mean over weights: the mean square is std^(2K) times the product of the widths, K matrices."""
    model = {
        "htf": lambda: HierarchicalTensorFactorization((2, 2, 2, 2), [3, 5]),
        "cp": lambda: CPFactorization((2, 2, 2), 4),
        "matrix": lambda: MatrixFactorization((2, 2), 3, [4, 2]),
        "tensor-train": lambda: TensorTrainFactorization((4, 4, 4), [3, 2]),
    }[kind]()
    matrices, widths = {"htf": (7, 3 * 3 * 5), "cp": (3, 4), "matrix": (3, 8), "tensor-train": (5, 3**3 * 2)}[kind]
    assert model.gaussian_std(0.01) ** (2 * matrices) * widths == pytest.approx(0.01**2, rel=1e-12)


def test_mean_square_of_gaussian_entries():
    """The formula above against samples: within five standard errors of their mean."""
    model = CPFactorization((3, 3, 3), 8)
    std = model.gaussian_std(1.0)
    squares = torch.stack([model.init_gaussian(std, generator(seed)).dense().square().mean() for seed in range(400)])
    error = float(squares.std()) / 400**0.5
    assert abs(float(squares.mean()) - 1.0) < 5 * error
    assert error < 0.1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CPFactorization((3,), 2), ConfigError, "a mode tree needs at least two modes"),
        (lambda: CPFactorization((3, 0), 2), ConfigError, r"a mode dimension is not positive \(got \[3, 0\], allowed 1 or more\)"),
        (lambda: CPFactorization((3, 3), 0), ConfigError, r"the width of node \{0,1\} is not positive \(got 0, allowed 1 or more\)"),
        (lambda: HierarchicalTensorFactorization((3, 3), 1, ModeTree.named("star", 3)), ConfigError, r"the mode tree does not fit the tensor \(got 3 modes, allowed 2\)"),
        (lambda: CPFactorization((10**9, 10**9), 10**6), DataError, "does not fit|needs"),
    ],
)  # fmt: skip
def test_what_cannot_be(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {"factor0": w["factor0"]}, "weight factor1 is missing from this cp factorization"),
        (lambda w: {**w, "x": w["factor0"]}, "weight x does not belong to this cp factorization"),
        (lambda w: {**w, "factor1": w["factor1"].t()}, r"weight factor1 has the wrong shape \(got \(2, 4\), allowed \(4, 2\)\)"),
        (lambda w: {**w, "factor0": w["factor0"] * math.nan}, "weight factor0 has NaN or infinite values"),
    ],
)  # fmt: skip
def test_weights_that_do_not_belong(change, message):
    model = CPFactorization((3, 4), 2).init_gaussian(1.0, generator())
    with pytest.raises(DataError, match=message):
        model.load(change({name: weight.clone() for name, weight in model.weights.items()}))


def test_states_of_other_models_are_refused():
    model = CPFactorization((3, 4), 2)
    check_state({"parameters": model.parameters, "counters": torch.zeros(2)}, model, {"counters"})
    for state in ({}, {"parameters": model.parameters}, {"parameters": torch.zeros(3), "counters": torch.zeros(2)}):
        with pytest.raises(DataError, match="the checkpoint does not fit the model"):
            check_state(state, model, {"counters"})
