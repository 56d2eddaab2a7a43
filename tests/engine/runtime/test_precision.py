"""Precision: what is chosen, that flags hold only inside a block, and what rounding does to R and its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from htfcli.config.vision import TrainCnnConfig
from htfcli.engine.runtime.precision import Precision
from htfcli.engine.vision.datasets.image_set import Patch
from htfcli.engine.vision.regularizer.non_local import NonLocalRegularizer
from htfcli.errors import ConfigError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "device", "dtype", "chosen"),
    [
        (None, CPU, torch.float32, "float32"),
        (None, CUDA, torch.float32, "tf32"),
        ("float32", CUDA, torch.float32, "float32"),
        ("bf16", CPU, torch.float32, "bf16"),
        (None, CUDA, torch.float64, "float64"),
        ("float32", CPU, torch.float64, "float64"),
    ],
)
def test_choice(name, device, dtype, chosen):
    assert Precision.choose(name, device, dtype).name == chosen


def test_files_of_version_0_1_have_amp():
    assert TrainCnnConfig.checked({"amp": False}) == TrainCnnConfig()
    assert TrainCnnConfig.checked({"amp": True}).precision == "bf16"


def test_tf32_is_for_cuda():
    with pytest.raises(ConfigError, match=r"^--precision tf32 is for CUDA \(got cpu, allowed float32, bf16, fp16\)\.$"):
        Precision.choose("tf32", CPU)


def flags():
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
    )


@pytest.mark.parametrize(("name", "tf32"), [("tf32", True), ("float32", False), ("float64", False), ("bf16", False)])
def test_flags_hold_inside_the_block_only(name, tf32):
    before = flags()
    assert not before[0]  # so a fit, which is matrix products, is never rounded
    inside = []

    def fails():
        with Precision(name, CUDA).set():
            inside.append(flags())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert inside == [(tf32, tf32, True)]
    assert flags() == before
    with Precision(name, CPU).set():
        assert flags() == before


def network(depth=1):
    """A smooth network, whose gradients change little with small changes of its values. Its weights are
    larger than usual, so that it is far from linear and R from one."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, padding=1), *(nn.Conv2d(8, 8, 3, padding=1) for _ in range(depth))]
    body = [part for layer in layers for part in (layer, nn.Softplus())]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(4)
    return model


def penalty_and_gradient(precision, formulation, scale=1.0, side=12):
    model = network()
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 1, side, side, generator=generator), torch.zeros(4, dtype=torch.int64)
    regularizer = NonLocalRegularizer((Patch(0, 0, 4, 4), Patch(5, 5, 4, 4)), formulation=formulation, scale=scale)
    with precision.autocast():
        penalty = regularizer(model, x, y)
    assert penalty.dtype == torch.float32
    (32 * penalty).backward()  # as the training does in float16
    return penalty.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def cosine(a, b):
    return float(nn.functional.cosine_similarity(a, b, 0))


@pytest.mark.parametrize("formulation", ["double-backward", "tangent"])
def test_rounding_turns_the_gradient_by_the_bits_that_it_leaves(formulation):
    exact, gradient = penalty_and_gradient(Precision("float32", CPU), formulation)
    apart = {}
    for name in ("bf16", "fp16"):
        precision = Precision(name, CPU)
        penalty, rounded = penalty_and_gradient(precision, formulation, precision.scale)
        assert rounded.dtype == torch.float32
        assert penalty == pytest.approx(exact, abs=0.01)
        apart[name] = 1 - cosine(rounded, gradient)
    assert 1e-6 < apart["fp16"] < 1e-4  # it is rounded, and little
    assert 5 * apart["fp16"] < apart["bf16"] < 0.01


@pytest.mark.parametrize("formulation", ["double-backward", "tangent"])
def test_float16_needs_the_scale(formulation):
    """The mean over the positions of a large image makes gradients that underflow in float16, and whose inverses
    overflow, unless the logit is scaled; in float32 R does not mind the scale."""
    half = Precision("fp16", CPU)
    exact, gradient = penalty_and_gradient(Precision("float32", CPU), formulation, side=160)
    scaled, same = penalty_and_gradient(Precision("float32", CPU), formulation, half.scale, side=160)
    assert scaled == pytest.approx(exact, rel=1e-5)
    assert cosine(same, gradient) == pytest.approx(1, abs=1e-6)
    _, plain = penalty_and_gradient(half, formulation, 1.0, side=160)
    kept, rounded = penalty_and_gradient(half, formulation, half.scale, side=160)
    assert kept == pytest.approx(exact, abs=1e-3)
    off = 1 - cosine(rounded, gradient)
    assert off < 1e-3
    assert not 1 - cosine(plain, gradient) < 3 * off  # not a number, or turned far more
