"""Matricizations and their spectra against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from htfcli.engine.ranks import matricization
from htfcli.engine.ranks.matricization import (
    Spectrum,
    dense_spectrum,
    effective_rank,
    matricization_shape,
    matricize,
    times_exp,
)
from htfcli.errors import ConfigError, DataError


def test_numerical_rank_energy_and_effective_rank():
    spectrum = dense_spectrum(torch.diag(torch.tensor([4.0, 2.0, 1e-3, 0.0], dtype=torch.float64)), [0])
    assert [spectrum.rank(t) for t in (0.6, 0.1, 1e-3, 1e-6)] == [1, 2, 2, 3]
    assert spectrum.energy(1) == pytest.approx(16 / (20 + 1e-6))
    assert spectrum.shape == (4, 4)
    p = torch.tensor([4.0, 2.0, 1e-3]) / 6.001
    assert spectrum.effective_rank == pytest.approx(float(torch.exp(-(p * p.log()).sum())), rel=1e-6)
    assert effective_rank(torch.ones(5)) == pytest.approx(5)


def test_matricize():
    tensor = torch.arange(24).view(2, 3, 4)
    assert matricize(tensor, [0]).equal(tensor.view(2, 12))
    assert matricize(tensor, [2, 0])[1 * 4 + 3, 2] == tensor[1, 2, 3]
    assert matricize(tensor, [1]).shape == (3, 8)


@pytest.mark.parametrize("modes", [[], [0, 1, 2], [0, 0], [3], [-1]])
def test_bad_matricizations(modes):
    with pytest.raises(ConfigError, match="at least one mode, but not all, and each once"):
        matricize(torch.zeros(2, 2, 2), modes)


@pytest.mark.parametrize("size", [1e160, 1e-160])
def test_energy_of_extreme_values(size):
    spectrum = dense_spectrum(size * torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64)), [0])
    assert spectrum.energy(1) == pytest.approx(0.8)


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.data())
def test_matricizations_hold_the_entries_at_their_indices(dims, data):
    modes = data.draw(st.sets(st.integers(0, len(dims) - 1), min_size=1, max_size=len(dims) - 1))
    tensor = torch.arange(math.prod(dims)).view(*dims)
    matrix = matricize(tensor, sorted(modes))
    rest = [m for m in range(len(dims)) if m not in modes]
    assert matricization_shape(sorted(modes), dims) == tuple(matrix.shape)
    for index in np.ndindex(*dims):
        row = np.ravel_multi_index([index[m] for m in sorted(modes)], [dims[m] for m in sorted(modes)])
        column = np.ravel_multi_index([index[m] for m in rest], [dims[m] for m in rest])
        assert int(matrix[row, column]) == int(tensor[index])


def test_shapes_are_exact_however_large():
    assert matricization_shape([0, 2], [10**6] * 400) == (10**12, 10 ** (6 * 398))


def test_spectra_in_other_units():
    spectrum = Spectrum("{0}", (0,), (2, 2), torch.tensor([2.0, 0.5, 0.0], dtype=torch.float64), math.log(3.0))
    assert spectrum.scaled() == pytest.approx([6.0, 1.5, 0.0])
    assert spectrum.scaled(1) == pytest.approx([6.0])
    assert (spectrum.rank(0.3), spectrum.rank(0.2)) == (1, 2)
    assert times_exp(2.0, 1000.0) == math.inf
    assert times_exp(0.0, 1000.0) == 0.0
    assert times_exp(2.0, -5.0) == pytest.approx(2.0 * math.exp(-5.0))


def test_a_decomposition_that_does_not_fit_in_memory(monkeypatch):
    def refuse(what, needed, got, advice):
        raise DataError(f"{what}: {needed}", got=got, next_step=advice)

    monkeypatch.setattr(matricization, "refuse_unless_fits", refuse)
    with pytest.raises(DataError, match=r"matricization \{0\}: 384 \(got 2 x 12\)"):
        dense_spectrum(torch.zeros(2, 3, 4, dtype=torch.float64), [0])
