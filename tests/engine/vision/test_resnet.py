from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from htfcli.config.vision import NETWORKS
from htfcli.engine.vision.resnet import RESNETS, ResNet, ResNetShape, resnet
from htfcli.errors import ConfigError
from tests.problems import generator

# Parameters and entries of torchvision's state dicts, 1000 classes
TORCHVISION = {"resnet18": (11_689_512, 122), "resnet34": (21_797_672, 218), "resnet50": (25_557_032, 320)}


def names_of(blocks, convolutions):
    """Names in torchvision's state dict, from its documentation of the layout."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{n}" for n in norm)}
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            for k in range(1, convolutions + 1):
                names |= {f"{prefix}.conv{k}.weight", *(f"{prefix}.bn{k}.{n}" for n in norm)}
            if block == 0 and (stage > 1 or convolutions == 3):
                names |= {f"{prefix}.downsample.0.weight", *(f"{prefix}.downsample.1.{n}" for n in norm)}
    return names


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameters_and_names_are_torchvisions(name):
    model = resnet(name)
    parameters, entries = TORCHVISION[name]
    assert sum(p.numel() for p in model.parameters()) == parameters
    shape = RESNETS[name]
    assert set(model.state_dict()) == names_of(shape.blocks, 3 if shape.bottleneck else 2)
    assert len(model.state_dict()) == entries
    assert model.conv1.weight.shape == (64, 3, 7, 7)


def reference(w, x, blocks, bottleneck, stem_stride=2, max_pool=True):
    """The network in evaluation mode written out from its weights alone."""

    def bn(x, name):
        scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
        shift = w[f"{name}.bias"] - w[f"{name}.running_mean"] * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def conv(x, name, stride=1):
        kernel = w[f"{name}.weight"]
        return functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)

    x = bn(conv(x, "conv1", stem_stride), "bn1").clamp(min=0)
    x = functional.max_pool2d(x, 3, 2, 1) if max_pool else x
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            p, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = x
            for k in range(1, 4 if bottleneck else 3):
                strided = k == (2 if bottleneck else 1)
                y = bn(conv(y, f"{p}.conv{k}", stride if strided else 1), f"{p}.bn{k}")
                y = y if k == (3 if bottleneck else 2) else y.clamp(min=0)
            if f"{p}.downsample.0.weight" in w:
                x = bn(conv(x, f"{p}.downsample.0", stride), f"{p}.downsample.1")
            x = (x + y).clamp(min=0)
    return x.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


@pytest.mark.parametrize(
    "shape",
    [
        ResNetShape(widths=(4, 6, 8, 10)),
        ResNetShape(widths=(4, 6, 8, 10), blocks=(1, 2, 1, 2), bottleneck=True),
        RESNETS["resnet-mini"],
    ],
)
def test_forward_against_the_definition(shape):
    torch.manual_seed(0)
    model = ResNet(shape, 2, 5).double()
    x = torch.randn(3, 2, 40, 56, generator=generator(1), dtype=torch.float64)
    model(x)  # running statistics that are not 0 and 1
    model.train(False)
    wanted = reference(model.state_dict(), x, shape.blocks, shape.bottleneck, shape.stem_stride, shape.max_pool)
    assert torch.allclose(model(x), wanted, rtol=1e-10, atol=1e-12)


def test_mini():
    model = resnet("resnet-mini", 1, 1)
    assert sum(p.numel() for p in model.parameters()) == 19_513
    changed = resnet("resnet-mini", 1, 1, widths=(4, 8), blocks=(2, 1), stem_kernel=5, stem_stride=1, max_pool=True)
    assert changed.conv1.weight.shape == (4, 1, 5, 5)
    assert [len(changed.get_submodule(name)) for name in changed.stages] == [2, 1]


@pytest.mark.parametrize("name", ["resnet18", "resnet-mini"])
def test_receptive_field_is_what_a_unit_sees(name):
    """Pixels that change the unit at the centre of the last map, in a network of positive weights."""
    shape = RESNETS[name]
    side = 2 * shape.receptive_field + 65
    model = resnet(name, 1, 1).train(False)
    with torch.no_grad():
        for p in model.parameters():
            p.abs_().add_(0.01)
    maps = []
    model.get_submodule(model.stages[-1]).register_forward_hook(lambda module, inputs, output: maps.append(output))
    x = torch.rand(1, 1, side, side, generator=generator(0), requires_grad=True)
    model(x)
    middle = maps[0].shape[-1] // 2
    maps[0][0, :, middle, middle].sum().backward()
    seen = x.grad[0, 0].abs().sum(0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == pytest.approx(shape.receptive_field, abs=1)


def test_dropout_follows_three_stages():
    model = resnet("resnet18", 1, 1, dropout=0.5)
    calls = []
    model.dropout.register_forward_hook(lambda module, inputs, output: calls.append(output.shape[1]))
    model(torch.randn(2, 1, 64, 64))
    assert calls == [64, 128, 256]


def test_refusals():
    with pytest.raises(ConfigError, match="unknown network"):
        resnet("resnet19")
    with pytest.raises(ConfigError, match="one width and one number of blocks a stage"):
        resnet("resnet-mini", widths=(4, 8))
    assert set(NETWORKS) == set(RESNETS)
