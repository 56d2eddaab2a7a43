"""Preparing a problem, building its model, and the whole of `fit`."""

from __future__ import annotations

import math

import pytest
import torch

from htfcli.config.tensors import FitConfig, TargetConfig
from htfcli.engine.fitting.fit import build_model, fit, prepare
from htfcli.engine.observations.observations import Observations, split
from htfcli.engine.observations.synthetic import make_observations
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError
from tests.engine.fitting.small_fits import CPU, SMALL
from tests.problems import generator


@pytest.mark.parametrize("size", [1e160, 1e-160, 1e300])
@pytest.mark.parametrize("dims", [(6, 5), (4, 3, 4)])
def test_data_of_extreme_size(size, dims):
    """Nothing over- or underflows: the fit is that of the same data of size one, times the size, in float64."""
    observations = make_observations(TargetConfig(order=len(dims), dims=list(dims), rank=1, observed="1.0"))
    config = FitConfig(width=2, iterations=30, init_std=0.5)
    data, large = (
        Observations(dims, Entries(observations.train.index, observations.train.value * factor)) for factor in (1, size)
    )
    (wanted, before), (model, records) = fit(data, config), fit(large, config)
    got = model.values(data.train.index)
    assert got.dtype == torch.float64
    assert torch.allclose(got / size, wanted.values(data.train.index).double(), rtol=1e-3, atol=1e-3)
    assert records[-1]["train_error"] == pytest.approx(before[-1]["train_error"], rel=1e-3)


def test_data_too_small_to_scale():
    data = Observations((2, 2), Entries(torch.tensor([[0, 0]]), torch.tensor([1e-310], dtype=torch.float64)))
    with pytest.raises(DataError, match="too small to scale"):
        fit(data)


@pytest.mark.parametrize(
    "change", [{"index": [[0, 0], [0, 0]]}, {"index": [[0, 0], [5, 0]]}, {"value": [1.0, math.nan]}]
)
def test_fit_checks_what_it_is_given(change):
    index, value = change.get("index", [[0, 0], [1, 1]]), change.get("value", [1.0, 2.0])
    entries = Entries(torch.tensor(index), torch.tensor(value, dtype=torch.float64))
    with pytest.raises(DataError, match="observation 1"):
        fit(Observations((2, 2), entries))


def test_an_entry_in_train_and_test():
    entry = Entries(torch.tensor([[0, 1]]), torch.tensor([1.0], dtype=torch.float64))
    with pytest.raises(DataError, match="observation 1 repeats the index of 0"):
        fit(Observations((2, 2), entry, entry))


def test_float32_starts_where_float64_does():
    settings = FitConfig(width=4, seed=3)
    low = build_model(settings, (4, 4, 4), CPU)
    high = build_model(settings.model_copy(update={"dtype": "float64"}), (4, 4, 4), CPU)
    assert torch.equal(low.parameters, high.parameters.float())


def test_fit_is_the_whole_of_it():
    """The Python API on data of another scale: the result is in the data's units, and errors are those of the split."""
    observations = make_observations(SMALL)
    value = observations.train.value * 1e6
    data = Observations(observations.dims, Entries(observations.train.index, value))
    config = FitConfig(width=4, iterations=50, init_std=0.3, test_fraction=0.1, seed=3)
    model, records = fit(data, config)
    parts = split(data.train, 0.1, generator(3))
    for key, part in zip(("train_error", "test_error"), parts, strict=True):
        error = (model.values(part.index) - part.value).norm() / part.value.norm()
        assert records[-1][key] == pytest.approx(float(error), rel=1e-4)
    assert records[-1]["train_error"] < records[0]["train_error"]


def test_prepare():
    observations = make_observations(SMALL)
    assert prepare(observations, FitConfig())[1] == 1.0  # a known target keeps its scale
    with pytest.raises(ConfigError, match="already have a held-out part"):
        prepare(observations, FitConfig(test_fraction=0.1))
    data = Observations(observations.dims, observations.train)
    problem, scale = prepare(data, FitConfig(test_fraction=0.25))
    assert (len(problem.train), len(problem.test)) == (96, 32)
    assert float(problem.train.value.square().mean()) == pytest.approx(1.0)
    assert scale == pytest.approx(float(data.train.value.square().mean().sqrt()) ** -1, rel=0.2)
    assert prepare(data, FitConfig(scale="none"))[1] == 1.0


def test_a_model_that_does_not_fit_the_data():
    with pytest.raises(ConfigError, match=r"a matrix factorization needs two modes \(got 3, allowed 2\)"):
        build_model(FitConfig(model="matrix"), (3, 3, 3), CPU)
