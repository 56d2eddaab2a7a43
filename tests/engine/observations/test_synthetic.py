"""Synthetic targets and what is observed of them."""

from __future__ import annotations

import pytest
import torch

from htfcli.config.tensors import TargetConfig
from htfcli.engine.observations.synthetic import make_observations
from htfcli.engine.samples import MatrixMeasurements, RankOneMeasurements
from htfcli.errors import ConfigError
from tests.problems import reference_values


def make(**settings):
    return make_observations(TargetConfig.checked(settings))


def distinct(index):
    return len(set(map(tuple, index.tolist()))) == len(index)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"order": 5, "dim": 3, "rank": 2, "tree": "chain"},
        {"target": "cp", "dims": [5, 6, 7], "rank": 3},
        {"target": "matrix", "dims": [9, 7], "rank": 2},
        {"rank": [2, 3], "tree": [[0, 2], [1, 3]]},
        {"target": "tucker", "dims": [5, 6, 7], "rank": 3},
        {"target": "tensor-train", "dims": [3, 4, 3, 2], "rank": [3, 2, 2]},
        {"target": "hierarchical-tucker", "order": 4, "dim": 4, "rank": [2, 3], "tree": [[0, 2], [1, 3]]},
    ],
)
def test_target_norm_and_observed_values(settings):
    observations = make(**settings, norm=10.0, observed="0.5")
    tensor = observations.target.dense()
    assert float(torch.linalg.vector_norm(tensor)) == pytest.approx(10.0, rel=1e-12)
    total = tensor.numel()
    assert len(observations.train) == round(total / 2)
    assert len(observations.train) + len(observations.test) == total
    for sample in (observations.train, observations.test):
        assert torch.allclose(sample.value, reference_values(tensor, sample), atol=1e-12)
    assert distinct(torch.cat([observations.train.index, observations.test.index]))


def test_default_norm_makes_the_entries_of_order_one():
    tensor = make(order=3, dim=6).target.dense()
    assert float(tensor.square().mean()) == pytest.approx(1.0)


def test_target_of_4_to_the_32_entries():
    observations = make(order=32, dim=4, rank=3, observed="1000", test="50")
    assert (len(observations.train), len(observations.test)) == (1000, 50)
    assert torch.isfinite(observations.train.value).all()


@pytest.mark.parametrize("target", ["htf", "cp"])
def test_rank_one_sensing(target):
    observations = make(target=target, order=3, dim=5, rank=2, task="sensing", observed="2000", test="10")
    assert isinstance(observations.train, RankOneMeasurements)
    tensor = observations.target.dense()
    assert torch.allclose(observations.train.value, reference_values(tensor, observations.train), atol=1e-12)
    outer = torch.einsum("na,nb,nc->nabc", *observations.train.vectors)
    assert float(outer.var()) == pytest.approx(1 / 125, rel=0.1)


def test_matrix_sensing():
    observations = make(target="matrix", dims=[6, 5], rank=2, task="sensing", observed="3000", test="7")
    assert isinstance(observations.train, MatrixMeasurements)
    assert len(observations.test) == 7
    assert torch.allclose(observations.train.value, reference_values(observations.target.dense(), observations.train))
    assert float(observations.train.matrices.var()) == pytest.approx(1 / 30, rel=0.05)


def test_noise_is_relative_to_the_entries():
    clean, noisy = make(norm=1.0), make(norm=1.0, noise=0.1)
    assert torch.equal(clean.train.index, noisy.train.index)
    noise = (noisy.train.value - clean.train.value).std()
    assert float(noise) == pytest.approx(0.1 / 64, rel=0.1)


def test_mask():
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[0] = mask[2, 1] = True
    config = TargetConfig.checked({"target": "matrix", "dims": [3, 4], "rank": 2})
    observations = make_observations(config, mask)
    assert observations.train.index.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [2, 1]]
    assert len(observations.test) == 7
    with pytest.raises(
        ConfigError, match=r"the mask does not have the tensor's shape \(got \(4, 3\), allowed \(3, 4\)\)"
    ):
        make_observations(config, mask.T)


def test_seed():
    assert torch.equal(make(seed=3).train.value, make(seed=3).train.value)
    assert not torch.equal(make(seed=3).train.value, make(seed=4).train.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observed": "5000"}, r"more entries requested than the tensor has \(got 5000, allowed 0 to 4096\)"),
        ({"observed": "0"}, r"nothing would be observed \(got 0, allowed 1 or more observations\)"),
        ({"target": "cp", "rank": [1, 2]}, r"a cp target has one width \(got \[1, 2\], allowed one number\)"),
        ({"rank": 0}, r"the width of node \{0,1\} is not positive \(got 0, allowed 1 or more\)"),
        ({"rank": [1, 2, 3]}, r"the widths do not match the levels of the tree \(got 3, allowed 1 or 2\)"),
        ({"tree": [[0, 1], 2]}, r"the mode tree does not fit the tensor \(got 3 modes, allowed 4\)"),
    ],
)
def test_targets_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        make(**settings)
