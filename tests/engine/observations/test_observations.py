from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from htfcli.config.tensors import TargetConfig
from htfcli.engine.observations.observations import (
    Observations,
    checked_entries,
    first_duplicate,
    sample_entries,
    split,
)
from htfcli.engine.observations.synthetic import make_observations
from htfcli.engine.samples import Entries, MatrixMeasurements, RankOneMeasurements, row_keys
from htfcli.errors import ConfigError, DataError
from tests.problems import generator, reference_values


def make(**settings):
    return make_observations(TargetConfig.checked(settings))


def distinct(index):
    return len(set(map(tuple, index.tolist()))) == len(index)


# --- sampling ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.floats(0, 1), st.integers(0, 99))
def test_sampled_entries_are_distinct_and_in_range(dims, share, seed):
    total = math.prod(dims)
    count = round(share * total)
    index = sample_entries(dims, count, generator(seed))
    assert index.shape == (count, len(dims))
    assert distinct(index)
    assert bool((index < torch.tensor(dims)).all())
    others = sample_entries(dims, total - count, generator(seed + 1), exclude=index)
    assert distinct(torch.cat([index, others]))


def test_sampling_from_a_tensor_that_cannot_be_enumerated():
    dims = (4,) * 32
    index = sample_entries(dims, 20_000, generator())
    assert distinct(index)
    more = sample_entries(dims, 20_000, generator(), exclude=index)  # the same draws first, all of them refused
    assert distinct(torch.cat([index, more]))
    share = index.double().mean(0)
    assert float((share - 1.5).abs().max()) < 0.05


def test_sampling_is_uniform():
    counts = torch.zeros(12)
    for seed in range(2000):
        index = sample_entries((3, 4), 4, generator(seed))
        counts[row_keys(index, (3, 4))] += 1
    assert float((counts / 2000 - 1 / 3).abs().max()) < 0.05


def test_more_entries_than_there_are():
    with pytest.raises(ConfigError, match=r"more entries asked for than the tensor has \(got 13, allowed 0 to 12\)"):
        sample_entries((3, 4), 13, generator())


@given(st.lists(st.lists(st.integers(0, 2), min_size=70, max_size=70), min_size=1, max_size=12))
def test_row_keys_tell_rows_apart_in_any_order(rows):
    """Order 70: row-major positions would overflow."""
    index = torch.tensor(rows)
    keys = row_keys(index, (3,) * 70).tolist()
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            assert (keys[i] == keys[j]) == (a == b)


def test_first_duplicate():
    assert first_duplicate(torch.tensor([[0, 1], [1, 0]]), (2, 2)) is None
    assert first_duplicate(torch.tensor([[1, 1], [0, 1], [1, 0], [0, 1], [1, 1]]), (2, 2)) == (1, 3)


def test_split_keeps_everything_once():
    sample = Entries(sample_entries((5, 5), 20, generator()), torch.arange(20.0, dtype=torch.float64))
    train, test = split(sample, 0.25, generator())
    assert (len(train), len(test)) == (15, 5)
    assert sorted(torch.cat([train.value, test.value]).tolist()) == list(range(20))
    assert len(split(sample, 0.001, generator())[1]) == 1
    with pytest.raises(DataError, match="too few observations"):
        split(sample.select(torch.tensor([0])), 0.5, generator())


# --- checks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        ([[0, 0], [0, 3]], [1, 2], "x 1 has an index out of range (got [0, 3], allowed 0-1 x 0-2)."),
        ([[0, -1]], [1], "x 0 has an index out of range (got [0, -1], allowed 0-1 x 0-2)."),
        ([[0, 0], [1, 1]], [1, math.nan], "x 1 has no finite value (got nan)."),
        ([[0, 0], [1, 1]], [math.inf, 1], "x 0 has no finite value (got inf)."),
        ([[0, 0], [1, 1], [0, 0]], [1, 2, 3], "x 2 repeats the index of 0 (got [0, 0])."),
    ],
)
def test_entries_that_cannot_be_used(index, value, message):
    with pytest.raises(DataError) as error:
        checked_entries(torch.tensor(index), torch.tensor(value, dtype=torch.float64), (2, 3), "x")
    assert str(error.value) == message


def test_to_dense_needs_every_entry():
    observed = make(dims=[3, 4], target="matrix", rank=2, observed="1.0")
    assert torch.allclose(observed.to_dense(), observed.target.dense())
    with pytest.raises(DataError, match=r"do not cover the tensor \(got 6 of 12 entries\)"):
        make(dims=[3, 4], target="matrix", rank=2, observed="6", test="0").to_dense()


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"order": 5, "dim": 3, "rank": 2, "tree": "chain"},
        {"target": "cp", "dims": [5, 6, 7], "rank": 3},
        {"target": "matrix", "dims": [9, 7], "rank": 2},
        {"rank": [2, 3], "tree": [[0, 2], [1, 3]]},
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
        ({"observed": "5000"}, r"more entries asked for than the tensor has \(got 5000, allowed 0 to 4096\)"),
        ({"observed": "0"}, r"nothing would be observed \(got 0, allowed 1 or more observations\)"),
        ({"target": "cp", "rank": [1, 2]}, r"a cp target has one rank \(got \[1, 2\], allowed one number\)"),
        ({"rank": 0}, r"the width of node \{0,1\} is not positive \(got 0, allowed 1 or more\)"),
        ({"rank": [1, 2, 3]}, r"the widths do not match the levels of the tree \(got 3, allowed 1 or 2\)"),
        ({"tree": [[0, 1], 2]}, r"the mode tree does not fit the tensor \(got 3 modes, allowed 4\)"),
    ],
)
def test_targets_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        make(**settings)


def test_observations_know_their_order():
    assert Observations((2, 3, 4), Entries(torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1))).order == 3
