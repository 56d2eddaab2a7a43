"""Second derivatives of convolutions and normalizations; whole networks with them are in test_any_network."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from htfcli.engine.vision.regularizer.second_derivative import SecondDerivatives, second_derivatives
from tests.problems import generator

LAYERS = {
    "conv1d": (lambda: nn.Conv1d(4, 3, 3, padding=1), (4, 7)),
    "strided, dilated, grouped": (lambda: nn.Conv2d(4, 6, 3, (2, 1), (1, 2), (1, 2), groups=2), (4, 7, 6)),
    "conv3d, without bias": (lambda: nn.Conv3d(2, 3, 2, bias=False), (2, 3, 4, 3)),
    "padding by name": (lambda: nn.Conv2d(2, 3, 3, padding="same"), (2, 4, 5)),
    "batch": (lambda: nn.BatchNorm2d(3), (3, 4, 3)),
    "batch of vectors, not affine": (lambda: nn.BatchNorm1d(3, affine=False), (3,)),
    "batch, evaluated": (lambda: nn.BatchNorm2d(3).eval(), (3, 4, 3)),
    "group": (lambda: nn.GroupNorm(2, 4), (4, 3, 2)),
}


def made(name):
    torch.manual_seed(0)
    layer, sizes = LAYERS[name][0](), LAYERS[name][1]
    for tensor in layer.parameters():
        tensor.data = torch.rand_like(tensor) + 0.5
    return layer.double(), torch.randn(3, *sizes, generator=generator(1), dtype=torch.float64)


def input_gradient(layer, x, rules):
    x = x.detach().requires_grad_()
    with rules:
        outputs = layer(x).sin()
        return outputs, torch.autograd.grad(outputs.square().sum(), x, create_graph=True)[0]


@pytest.mark.parametrize("name", LAYERS)
def test_against_finite_differences(name):
    layer, x = made(name)
    parameters = list(layer.parameters())

    def found(x, *values):
        state = dict(zip([n for n, _ in layer.named_parameters()], values, strict=True))

        def run(t):
            return torch.func.functional_call(layer, state | {n: b.clone() for n, b in layer.named_buffers()}, (t,))

        with SecondDerivatives():
            outputs = run(x).sin()
            return torch.autograd.grad(outputs.square().sum(), x, create_graph=True)[0]

    assert gradcheck(found, (x.requires_grad_(), *parameters), check_undefined_grad=False)


@pytest.mark.parametrize("name", LAYERS)
def test_values_statistics_and_first_gradients_are_torchs(name):
    found = []
    for rules in (SecondDerivatives(), torch.enable_grad()):
        layer, x = made(name)
        outputs, gradient = input_gradient(layer, x, rules)
        (outputs.sum() + gradient.square().sum()).backward()
        parameters = [p.grad for p in layer.parameters()]
        found.append([outputs, gradient, *parameters, *(b for _, b in layer.named_buffers())])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-11, atol=1e-12)


def test_gradients_by_weights_are_refused_while_active():
    layer = nn.Conv2d(1, 1, 3)
    with SecondDerivatives():
        outputs = layer(torch.ones(1, 1, 4, 4))
        with pytest.raises(RuntimeError, match="appears to not have been used"):
            torch.autograd.grad(outputs.sum(), layer.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [lambda: nn.BatchNorm2d(3), lambda: nn.GroupNorm(3, 3)])
def test_normalizations_of_rounded_numbers_sum_in_float32(dtype, make):
    """Of inputs whose sums float16 cannot hold: g_x and its derivative are those of float32 but for rounding."""
    x = 4 + torch.randn(8, 3, 80, 80, generator=generator(3)).to(dtype)
    found = []
    for numbers in (x, x.float()):
        numbers = numbers.detach().requires_grad_()
        layer = make()
        with SecondDerivatives():
            outputs = layer(numbers)
            assert outputs.dtype == numbers.dtype
            weights = torch.linspace(1, 3, 80, dtype=numbers.dtype)
            g = torch.autograd.grad((outputs.sin() * weights).float().sum(), numbers, create_graph=True)[0]
        (g.float() * torch.linspace(1, 2, 80)).sum().backward()
        found.append((g.detach().float(), layer.weight.grad))
    for rounded, wanted in zip(*found, strict=True):
        assert bool(rounded.isfinite().all())
        assert float((rounded - wanted).norm() / wanted.norm()) < (0.05 if dtype == torch.bfloat16 else 0.01)


def test_only_cuda_has_them():
    assert isinstance(second_derivatives(torch.device("cuda")), SecondDerivatives)
    assert not isinstance(second_derivatives(torch.device("cpu")), SecondDerivatives)
