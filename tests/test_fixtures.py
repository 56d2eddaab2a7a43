"""The fixtures that all tests use."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from tests.conftest import Result

_DRAWN = pytest.StashKey[tuple[float, ...]]()


def test_the_error_of_a_command_is_one_line():
    assert Result(1, "", "Error: x is damaged.\n").error == "x is damaged."
    for printed in ("", "x is damaged.\n", "Warning: y\nError: x is damaged.\n"):
        with pytest.raises(AssertionError):
            _ = Result(1, "", printed).error


@pytest.mark.parametrize("time", [1, 2])
def test_random_numbers_are_the_same_in_every_test(time, request):
    drawn = (random.random(), float(np.random.rand()), float(torch.rand(())))
    assert drawn == request.config.stash.setdefault(_DRAWN, drawn)


def test_a_gpu_is_hidden():
    assert not torch.cuda.is_available()
