"""Losses against torch's, their gradients against autograd."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import l1_loss, mse_loss, smooth_l1_loss

from htfcli.engine.fitting.losses import LOSSES
from tests.problems import generator

REFERENCE = {"l2": mse_loss, "l1": l1_loss, "huber": smooth_l1_loss}


def residuals(*shape):
    return 2 * torch.randn(shape, generator=generator(), dtype=torch.float64)


def test_all_losses_are_compared():
    assert LOSSES.keys() == REFERENCE.keys()


@pytest.mark.parametrize("name", LOSSES)
def test_mean_and_gradient(name):
    residual = residuals(50).requires_grad_()
    wanted = REFERENCE[name](residual, torch.zeros(50, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(wanted, residual)
    loss, found = LOSSES[name], torch.full((50,), torch.nan, dtype=torch.float64)
    assert loss.mean(residual.detach()).item() == pytest.approx(wanted.item(), rel=1e-12)
    loss.gradient(residual.detach(), out=found)
    assert torch.allclose(found, gradient, rtol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_runs_has_one_mean_per_run(name):
    residual = residuals(3, 20)
    found, alone = torch.empty_like(residual), torch.empty(20, dtype=torch.float64)
    LOSSES[name].gradient(residual, out=found)
    for run in range(3):
        LOSSES[name].gradient(residual[run], out=alone)
        assert torch.equal(found[run], alone)
