"""The directional derivative: its value and parameter gradient against double backward, and that it does no idle work."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as f
from torch.utils._python_dispatch import TorchDispatchMode

from htfcli.engine.vision.regularizer.directional_derivative import directional_derivative
from htfcli.engine.vision.regularizer.logits import true_logit
from tests.problems import generator

# name: layer of width 4 on (b, 4, ...), and the number of axes of positions
LAYERS = {
    "conv1d": (lambda: nn.Conv1d(4, 4, 3, padding=1), 1),
    "conv2d, strided, grouped": (lambda: nn.Conv2d(4, 4, 3, 2, 1, groups=2), 2),
    "conv3d": (lambda: nn.Conv3d(4, 4, 3, padding=1), 3),
    "transposed, without bias": (lambda: nn.ConvTranspose2d(4, 4, 2, 2, bias=False), 2),
    "reflecting": (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), 2),
    "linear": (lambda: nn.Linear(6, 5), 2),
    "batch": (lambda: nn.BatchNorm2d(4), 2),
    "batch, not affine": (lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False), 2),
    "batch, evaluated": (lambda: nn.BatchNorm2d(4).eval(), 2),
    "batch, evaluated, not affine": (lambda: nn.BatchNorm2d(4, affine=False).eval(), 2),
    "instance": (lambda: nn.InstanceNorm2d(4, affine=True), 2),
    "instance, evaluated": (lambda: nn.InstanceNorm2d(4, track_running_stats=True).eval(), 2),
    "group": (lambda: nn.GroupNorm(2, 4), 2),
    "group, not affine": (lambda: nn.GroupNorm(4, 4, affine=False), 2),
    "layer": (lambda: nn.LayerNorm((4, 6, 6)), 2),
    "layer, no bias": (lambda: nn.LayerNorm(6, bias=False), 2),
}


class Called(nn.Module):
    """One of torch's own functions, with weight, bias and statistics of its own."""

    def __init__(self, function, *options):
        super().__init__()
        self.function, self.options = function, options
        self.weight, self.bias = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        return self.function(x, self.weight, self.bias, self.mean, self.var, *self.options)


LAYERS |= {
    "torch.batch_norm": (lambda: Called(torch.batch_norm, True, 0.1, 1e-5, False), 2),
    "torch.batch_norm, evaluated": (lambda: Called(torch.batch_norm, False, 0.1, 1e-5, False), 2),
    "torch.instance_norm": (lambda: Called(torch.instance_norm, True, 0.1, 1e-5, False), 2),
}


def case(name):
    torch.manual_seed(0)
    make, axes = LAYERS[name]
    layer = make()
    for tensor in (*layer.parameters(), *layer.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor) + 0.5
    model = nn.Sequential(nn.Conv2d(4, 4, 1) if axes == 2 else nn.Identity(), layer, nn.Tanh(), nn.Flatten(1)).double()
    x = torch.randn(3, 4, *[6] * axes, generator=generator(1), dtype=torch.float64)
    return model, x, torch.randn(x.shape, generator=generator(2), dtype=torch.float64)


def first(outputs, y):
    return outputs.square().sum(1)


@pytest.mark.parametrize("name", LAYERS)
def test_against_double_backward(name):
    model, x, dx = case(name)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(first(model(leaf), None).sum(), leaf, create_graph=True)
    wanted = (g * dx).sum()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(wanted, parameters, allow_unused=True)
    outputs, along = directional_derivative(model, dict(model.named_buffers()), first, x, torch.zeros(3), dx)
    torch.testing.assert_close(outputs, model(x))
    torch.testing.assert_close(along.sum(), wanted)
    found = torch.autograd.grad(along.sum(), parameters, allow_unused=True)
    for a, b in zip(found, gradients, strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(
            zero if a is None else a, zero if b is None else b, check_dtype=False, atol=1e-10, rtol=1e-10
        )


def test_layers_called_with_names():
    weight, bias = torch.randn(4, 4, 1, dtype=torch.float64), torch.randn(4, dtype=torch.float64)

    class Named(nn.Module):
        def forward(self, x):
            x = f.conv1d(input=x, weight=weight, bias=bias).tanh()
            x = f.batch_norm(input=x, running_mean=None, running_var=None, weight=bias, training=True)
            return f.linear(input=x, weight=torch.ones(1, 5, dtype=torch.float64)).flatten(1)

    x, dx = (torch.randn(3, 4, 5, generator=generator(k), dtype=torch.float64) for k in (1, 2))
    model, step = Named(), 1e-6
    _, along = directional_derivative(model, dict(model.named_buffers()), first, x, torch.zeros(3), dx)
    between = (first(model(x + step * dx), None) - first(model(x - step * dx), None)) / (2 * step)
    torch.testing.assert_close(along, between, rtol=1e-6, atol=1e-6)


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **kwargs or {})


def test_no_product_with_tangents_of_weights():
    """They are zero. A layer is applied to value and tangent, and each application has one backward."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 1)
    )
    x, dx = torch.randn(2, 1, 6, 6), torch.randn(2, 1, 6, 6)
    with Counting() as mode:
        _, along = directional_derivative(model, dict(model.named_buffers()), true_logit, x, torch.zeros(2), dx)
        along.sum().backward()
    assert mode.counts["convolution"] == 4
    assert mode.counts["convolution_backward"] == 4
    # The value of the last layer is not in the derivative: two products forwards, two backwards, of its tangent alone
    assert mode.counts.get("addmm", 0) + mode.counts.get("mm", 0) == 4
