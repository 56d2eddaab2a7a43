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
from htfcli.engine.samples import Entries, row_keys
from htfcli.errors import ConfigError, DataError
from tests.problems import generator


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
    with pytest.raises(ConfigError, match=r"more entries requested than the tensor has \(got 13, allowed 0 to 12\)"):
        sample_entries((3, 4), 13, generator())


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


def test_observations_know_their_order():
    assert Observations((2, 3, 4), Entries(torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1))).order == 3
