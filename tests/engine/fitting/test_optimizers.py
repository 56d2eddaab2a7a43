"""Optimizers against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from htfcli.engine.fitting.optimizers import GroupRMSprop, make_optimizer
from htfcli.errors import ConfigError


def test_group_rmsprop_is_its_formula():
    parameter = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    optimizer = GroupRMSprop(parameter, lr=0.1, alpha=0.9, eps=1e-3)
    wanted, s = parameter.clone(), 0.0
    for t in range(1, 6):
        parameter.grad = torch.tensor([0.3 * t, -0.1, 0.5], dtype=torch.float64)
        optimizer.step()
        s = 0.9 * s + 0.1 * float(parameter.grad.square().sum())
        length = 0.1 / (math.sqrt(s / (1 - 0.9**t)) + 1e-3)
        wanted -= length * parameter.grad
        assert torch.allclose(parameter, wanted, rtol=1e-14)
        assert optimizer.flow_time == pytest.approx(length, rel=1e-14)


@pytest.mark.parametrize("name", ["group-rmsprop", "sgd", "adam"])
def test_optimizer_state_continues(name):
    def run(steps, optimizer, parameter, first=0):
        for t in range(first, first + steps):
            parameter.grad = torch.cos(parameter + t)
            optimizer.step()

    whole = torch.linspace(-1, 1, 5)
    whole.grad = torch.zeros(5)
    run(8, make_optimizer(name, whole, 0.01, momentum=0.9 if name == "sgd" else 0.0), whole)
    halves = torch.linspace(-1, 1, 5)
    halves.grad = torch.zeros(5)
    first = make_optimizer(name, halves, 0.01, momentum=0.9 if name == "sgd" else 0.0)
    run(4, first, halves)
    second = make_optimizer(name, halves, 0.01, momentum=0.9 if name == "sgd" else 0.0)
    second.load_state({key: value.clone() for key, value in first.state.items()})
    run(4, second, halves, first=4)
    assert torch.equal(whole, halves)


def test_unknown_optimizer():
    with pytest.raises(ConfigError, match=r"unknown optimizer \(got rmsprop, allowed group-rmsprop, sgd, adam\)"):
        make_optimizer("rmsprop", torch.zeros(2), 0.1)
