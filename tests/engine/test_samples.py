"""Samples: selecting from them, keys and positions of entries, range checks, indices without observations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from htfcli.engine import samples
from htfcli.engine.samples import (
    Entries,
    MatrixMeasurements,
    RankOneMeasurements,
    check_range,
    first_out_of_range,
    row_keys,
    unobserved,
    unravel,
)
from htfcli.errors import DataError
from tests.problems import random_sample, reference_values


@pytest.mark.parametrize("kind", ["entries", "matrices", "vectors"])
def test_selected_rows_observe_what_they_did(kind):
    """By position and by a boolean mask: what is observed of a tensor is selected alike."""
    dims = (4, 3)
    tensor = torch.arange(12, dtype=torch.float64).view(dims)
    sample = random_sample(kind, dims, 7, seed=0)
    assert len(sample) == 7
    mask = torch.tensor([True, False, False, True, True, False, True])
    for rows, positions in ((torch.tensor([5, 0, 5]), [5, 0, 5]), (mask, [0, 3, 4, 6])):
        part = sample.select(rows)
        assert type(part) is type(sample)
        assert len(part) == len(positions)
        assert torch.equal(part.value, sample.value[positions])
        assert torch.allclose(reference_values(tensor, part), reference_values(tensor, sample)[positions])


def test_kinds_of_samples():
    assert {type(random_sample(kind, (2, 2), 2, 0)) for kind in ("entries", "matrices", "vectors")} == {
        Entries,
        MatrixMeasurements,
        RankOneMeasurements,
    }


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
def test_keys_and_positions_are_those_of_numpy(dims, data):
    position = data.draw(st.lists(st.integers(0, math.prod(dims) - 1), min_size=1, max_size=20))
    index = unravel(torch.tensor(position), dims)
    assert torch.equal(index, torch.from_numpy(np.stack(np.unravel_index(position, dims), 1)))
    assert row_keys(index, dims).tolist() == position


@given(st.lists(st.lists(st.integers(0, 2), min_size=70, max_size=70), min_size=1, max_size=12))
def test_keys_distinguish_rows_of_any_order(rows):
    """In order 70, where row-major positions would overflow."""
    keys = row_keys(torch.tensor(rows), (3,) * 70).tolist()
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            assert (keys[i] == keys[j]) == (a == b)


@pytest.mark.parametrize("checked", [1, 2, 2**20])
@given(rows=st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 4)), max_size=12))
def test_the_first_row_out_of_range(checked, rows):
    """Rows are checked in blocks of any size."""
    wanted = next((n for n, (i, j) in enumerate(rows) if not (0 <= i < 3 and 0 <= j < 4)), None)
    index = torch.tensor(rows, dtype=torch.int64).view(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "_CHECKED", checked)
        assert first_out_of_range(index, (3, 4)) == wanted
        assert first_out_of_range(index.int(), (3, 4)) == wanted


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([[0, 0], [0, 4]], "entry 1 has an index out of range (got [0, 4], allowed 0-2 x 0-3)."),
        ([[-1, 0]], "entry 0 has an index out of range (got [-1, 0], allowed 0-2 x 0-3)."),
        ([[0, 0, 0]], "the indices do not have the order of the tensor (got 3 modes, allowed 2 modes)."),
    ],
)
def test_indices_that_are_refused(index, message):
    with pytest.raises(DataError) as error:
        check_range(torch.tensor(index), (3, 4))
    assert str(error.value) == message


def test_indices_in_range():
    check_range(torch.tensor([[0, 0], [2, 3]]), (3, 4))
    check_range(torch.empty(0, 2, dtype=torch.int64), (3, 4))


def test_unobserved_indices():
    index = torch.tensor([[0, 0], [0, 1], [2, 1], [2, 3]])
    entries = Entries(index, torch.ones(4, dtype=torch.float64))
    assert unobserved(entries, (3, 5)) == [{"mode": 0, "indices": [1]}, {"mode": 1, "indices": [2, 4]}]
    assert unobserved(entries.select(torch.tensor([0])), (1, 1)) == []
