"""Matricizations and their spectra against closed forms."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.ranks.matricization import dense_spectrum, effective_rank, matricize
from htfcli.errors import ConfigError


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
