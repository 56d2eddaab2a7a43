"""Arrays of every kind as tensors, and back: the same kind and type, holes filled, the rest as it was."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.arrays import read_array
from tests.files.foreign.predictions import numbers
from tests.numbering import number

HOLES = [(0, 1, 2), (1, 2, 3)]


def array(dtype="float64"):
    values = (np.arange(24.0).reshape(2, 3, 4) / 4).astype(dtype)
    values[tuple(zip(*HOLES, strict=True))] = np.nan
    return values


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "longdouble"])
def test_floats(dtype):
    given = array(dtype)
    filled = read_array(given).filled(numbers)
    assert filled.dtype == given.dtype
    assert [filled[at] for at in HOLES] == [number(*at) for at in HOLES]
    known = ~np.isnan(given)
    assert (filled[known] == given[known]).all()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "bool"])
def test_whole_numbers_with_a_mask_come_back_in_their_type(dtype):
    given = np.arange(24).reshape(2, 3, 4).astype(dtype)
    mask = np.ones(given.shape, dtype=bool)
    mask[0, 1, 2] = False
    for read in (read_array(given, mask=mask), read_array(np.ma.MaskedArray(given, ~mask))):
        assert read.asked().tolist() == [[0, 1, 2]]
        filled = read.filled(lambda index: torch.full((len(index),), 1e30).double())
        assert filled.dtype == given.dtype
        assert filled[0, 1, 2] == (True if dtype == "bool" else np.iinfo(dtype).max)
        assert (np.asarray(filled)[mask] == given[mask]).all()
    filled = read_array(given, mask=mask).filled(lambda index: torch.full((len(index),), -7.6).double())
    assert filled[0, 1, 2] == (False if dtype == "bool" else max(-8, np.iinfo(dtype).min))


def test_whole_numbers_that_no_double_has():
    given = np.array([[2**63 - 1, 2**53 + 1], [1, 2]])
    filled = read_array(given, mask=np.array([[True, True], [True, False]])).filled(numbers)
    assert filled.tolist() == [[2**63 - 1, 2**53 + 1], [1, number(1, 1)]]


def test_a_masked_array_comes_back_as_one():
    given = np.ma.masked_equal(np.arange(6.0).reshape(2, 3), 4)
    filled = read_array(given).filled(numbers)
    assert isinstance(filled, np.ma.MaskedArray)
    assert filled.mask.sum() == 0
    assert filled[1, 1] == number(1, 1)


def test_nested_lists():
    assert read_array([[1, 2.5], [None, 4]]).filled(numbers) == [[1, 2.5], [number(1, 0), 4]]
    assert read_array(((1, 2), (3, float("nan")))).filled(numbers) == [[1, 2], [3, number(1, 1)]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_torch(dtype):
    given = torch.tensor(array()).to(dtype)
    filled = read_array(given.requires_grad_()).filled(numbers)
    assert filled.dtype == dtype
    known = ~given.isnan()
    assert bool((filled[known] == given[known]).all())
    assert [filled[at] for at in HOLES] == [torch.tensor(number(*at)).to(dtype) for at in HOLES]


def test_the_array_given_is_not_changed_and_later_changes_of_it_count_for_nothing():
    given = array()
    read = read_array(given)
    given[:] = 7
    filled = read.filled(numbers)
    assert (given == 7).all()
    assert filled[0, 0, 1] == 0.25


def test_something_else_of_every_entry():
    read = read_array(array("float32"))
    assert read.like(numbers).dtype == np.float64
    assert read.like(numbers)[1, 0, 0] == number(1, 0, 0)
    kept = read.like(numbers, keep=True)
    assert kept[1, 0, 0] == 3
    assert kept[HOLES[0]] == number(*HOLES[0])
    assert read.filled(numbers, everywhere=True)[1, 0, 0] == number(1, 0, 0)


def test_named_modes_and_their_order():
    read = read_array(array(), names=["row", "column", "hour"], ordered=["hour"])
    assert [axis.name for axis in read.axes] == ["row", "column", "hour"]
    places, unordered = read.coordinates()
    assert places[:2] == [None, None]
    assert places[2].tolist() == [0, 1, 2, 3]
    assert unordered == []


def test_results_can_be_copied_and_sent_to_other_processes():
    read = read_array(array())
    for other in (copy.deepcopy(read), pickle.loads(pickle.dumps(read))):
        assert np.array_equal(other.filled(numbers), read.filled(numbers))


@pytest.mark.parametrize(
    ("given", "how", "error", "words"),
    [
        (np.arange(3.0), {}, DataError, "the array has too few axes (got 1, allowed 2 or more)"),
        (np.empty((0, 3)), {}, DataError, "the array is empty"),
        (np.array([["a", "b"]]), {}, DataError, "does not contain numbers"),
        (np.ones((2, 2), dtype=complex), {}, DataError, "does not contain numbers (got type complex128"),
        (torch.ones(2, 2, dtype=torch.complex64), {}, DataError, "the tensor has complex numbers"),
        ([[1, 2], [3]], {}, DataError, "the list is ragged"),
        (np.ones((2, 2)), {"mask": np.ones((2, 3), dtype=bool)}, ConfigError, "the mask does not have the tensor's shape (got (2, 3), allowed (2, 2))"),
        (np.ones((2, 2)), {"mask": np.ones((2, 2))}, ConfigError, "a mask is boolean"),
        (np.ones((2, 2)), {"names": ["a"]}, ConfigError, "another number of modes (got 1 names, allowed 2)"),
        (np.ones((2, 2)), {"names": ["year", "b"], "ordered": ["yaer"]}, ConfigError, "Did you mean year?"),
    ],
)  # fmt: skip
def test_refused(given, how, error, words):
    with pytest.raises(error) as caught:
        read_array(given, **how)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_observed():
    with pytest.raises(DataError, match="no observed entry: all are NaN"):
        read_array(np.full((2, 2), np.nan)).observed()
