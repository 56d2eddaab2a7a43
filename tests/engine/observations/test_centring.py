"""Means and effects of modes, against data that are nothing else and against least squares."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.observations.centring import Effects, estimate_effects
from htfcli.engine.samples import Entries
from tests.problems import generator, random_sample

DIMS = (6, 5, 4)


def additive(observed=1.0):
    """Mean 10 and effects that sum to zero in each mode."""
    by_mode = tuple(torch.randn(d, generator=generator(d), dtype=torch.float64) for d in DIMS)
    effects = Effects(10.0, tuple(e - e.mean() for e in by_mode))
    index = random_sample("entries", DIMS, round(observed * 120), 1).index
    return effects, Entries(index, effects.at(index))


def test_values_are_sums():
    effects = Effects(1.0, (torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0, 30.0])))
    index = torch.tensor([[0, 0], [1, 2], [1, 0]])
    assert effects.at(index).tolist() == [12.0, 33.0, 13.0]
    assert effects.scaled(2.0).at(index).tolist() == [24.0, 66.0, 26.0]
    assert Effects(3.0).at(index).tolist() == [3.0] * 3
    assert effects.at(index).dtype == torch.float64


def test_additive_data_are_recovered_up_to_the_shrinkage():
    """All entries observed: an effect is the mean over its slice, times n / (n + 1) for the one that says "none"."""
    effects, entries = additive()
    found = estimate_effects("modes", entries, DIMS)
    assert found.mean == pytest.approx(10.0)
    for effect, got, d in zip(effects.by_mode, found.by_mode, DIMS, strict=True):
        count = 120 // d
        assert torch.allclose(got, effect * count / (count + 1), rtol=1e-6)


def test_effects_are_the_ridge_solution():
    """With holes too: the normal equations of the sum of effects with one unit of penalty each; sweeps come near them."""
    _, entries = additive(0.5)
    entries = Entries(entries.index, entries.value + torch.randn(60, generator=generator(), dtype=torch.float64))
    found = estimate_effects("modes", entries, DIMS)
    one_hot = torch.cat([torch.nn.functional.one_hot(entries.index[:, m], d) for m, d in enumerate(DIMS)], 1).double()
    matrix = one_hot.t() @ one_hot + torch.eye(sum(DIMS), dtype=torch.float64)
    wanted = torch.linalg.solve(matrix, one_hot.t() @ (entries.value - entries.value.mean()))
    gap = torch.cat(found.by_mode) - wanted
    assert float((gap @ matrix @ gap) / (wanted @ matrix @ wanted)) < 1e-3


def test_an_index_without_observations_has_no_effect():
    _, entries = additive()
    entries = entries.select(entries.index[:, 1] != 2)
    found = estimate_effects("modes", entries, DIMS)
    assert float(found.by_mode[1][2]) == 0.0
    index = torch.tensor([[3, 2, 1]])
    assert float(found.at(index)) == pytest.approx(found.mean + float(found.by_mode[0][3] + found.by_mode[2][1]))


def test_mean_and_none():
    _, entries = additive(0.5)
    assert estimate_effects("none", entries, DIMS) == Effects(0.0)
    assert estimate_effects("mean", entries, DIMS) == Effects(float(entries.value.mean()))
