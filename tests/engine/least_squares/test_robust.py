"""Weights of robust losses against their formula and the estimates they lead to."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.least_squares.robust import deviation_of, robust_weights
from tests.problems import generator


def test_weights_are_their_formula():
    residual = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 100.0], dtype=torch.float64)
    deviation = 1.4826 * 1.0
    wanted = [min(1.0, 1.345 * deviation / max(abs(float(r)), 1e-300)) for r in residual]
    assert robust_weights(residual, "huber").tolist() == pytest.approx(wanted)
    weights = robust_weights(residual, "l1")
    assert weights.tolist() == pytest.approx([deviation / max(abs(float(r)), 1e-3 * deviation) for r in residual])
    absolute = weights * residual.square() / deviation  # the weighted squares are the absolute values
    assert absolute.tolist() == pytest.approx(residual.abs().tolist())
    assert robust_weights(torch.zeros(4), "l1").tolist() == [1.0] * 4


def test_deviation_is_that_of_gaussian_noise():
    """Within its standard error of about 1.17 / sqrt(n), five times over; a tenth of outliers shift it by a tenth or so."""
    noise = 3.0 * torch.randn(20_000, generator=generator(), dtype=torch.float64)
    assert deviation_of(noise.abs()) == pytest.approx(3.0, rel=5 * 1.17 / 20_000**0.5)
    noise[:2000] = 1e6
    assert 3.0 < deviation_of(noise.abs()) < 3.6
    assert deviation_of(torch.zeros(3)) == 0.0


@pytest.mark.parametrize(("loss", "minimizer"), [("l1", "median"), ("huber", "huber")])
def test_reweighted_means_minimize_the_loss(loss, minimizer):
    """The weighted mean, iterated: for l1 the median; for huber where the clipped residuals sum to zero."""
    data = torch.tensor([0.0, 0.1, 0.4, 0.7, 1.0, 1.1, 50.0], dtype=torch.float64)
    mean = data.mean()
    for _ in range(500):
        weights = robust_weights(data - mean, loss)
        mean = (weights * data).sum() / weights.sum()
    if minimizer == "median":
        assert float(mean) == pytest.approx(0.7, abs=1e-3)
        return
    limit = 1.345 * deviation_of((data - mean).abs())
    assert float((data - mean).clamp(-limit, limit).sum()) == pytest.approx(0.0, abs=1e-9)
