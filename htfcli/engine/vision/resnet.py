"""Residual networks: the ImageNet ones under torchvision's parameter names, and small ones for CPUs.

Axes: `b` batch, `c` channels, `h` rows, `w` columns.

Source: He, Zhang, Ren, Sun, Deep residual learning for image recognition (CVPR 2016, arXiv 1512.03385), table 1; the
stride of a bottleneck is in its 3x3 convolution, as in torchvision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from htfcli.errors import ConfigError

_DROPOUTS = 3  # stages that dropout follows


@dataclass(frozen=True)
class ResNetShape:
    """What a residual network is made of.

    Args:
        widths: channels of each stage (a bottleneck puts out four times as many). blocks: blocks of each stage; every
            stage but the first halves the resolution. stem_kernel, stem_stride: the first convolution.
            max_pool: a 3x3 max-pool of stride 2 after it. bottleneck: 1x1, 3x3, 1x1 blocks instead of 3x3, 3x3.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    stem_kernel: int = 7
    stem_stride: int = 2
    max_pool: bool = True
    bottleneck: bool = False

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks):
            raise ConfigError(
                "a residual network needs one width and one number of blocks a stage",
                got=f"{len(self.widths)} widths, {len(self.blocks)} numbers of blocks",
            )
        if not self.widths or min(*self.widths, *self.blocks, self.stem_stride) < 1 or self.stem_kernel % 2 == 0:
            raise ConfigError("the sizes of a residual network must be positive, its stem kernel odd", got=self)

    @property
    def receptive_field(self) -> int:
        """Side of the square of input pixels that a unit before the last pooling can see: r <- r + (k - 1) s, s <- s t
        over the kernels k and strides t of the longest path."""
        path = [(self.stem_kernel, self.stem_stride), *([(3, 2)] if self.max_pool else [])]
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                path.append((3, 2 if stage > 0 and block == 0 else 1))
                path += [] if self.bottleneck else [(3, 1)]
        side, step = 1, 1
        for kernel, stride in path:
            side, step = side + (kernel - 1) * step, step * stride
        return side


RESNETS = {
    "resnet18": ResNetShape(),
    "resnet34": ResNetShape(blocks=(3, 4, 6, 3)),
    "resnet50": ResNetShape(blocks=(3, 4, 6, 3), bottleneck=True),
    "resnet-mini": ResNetShape(widths=(8, 16, 32), blocks=(1, 1, 1), stem_kernel=3, max_pool=False),
}


class ResNet(nn.Module):
    """(b, channels, h, w) -> (b, outputs) logits.

    Args:
        shape: what it is made of. channels: of the input. outputs: logits.
        dropout: probability, after each of the first three stages.
    """

    def __init__(self, shape: ResNetShape, channels: int = 3, outputs: int = 1000, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        width = shape.widths[0]
        kernel = shape.stem_kernel
        self.conv1 = nn.Conv2d(channels, width, kernel, shape.stem_stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1) if shape.max_pool else nn.Identity()
        block: type[BasicBlock | Bottleneck] = Bottleneck if shape.bottleneck else BasicBlock
        self.stages: list[str] = []
        for stage, (planes, count) in enumerate(zip(shape.widths, shape.blocks, strict=True)):
            blocks = []
            for number in range(count):
                blocks.append(block(width, planes, 2 if stage > 0 and number == 0 else 1))
                width = planes * block.expansion
            self.stages.append(f"layer{stage + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
        self.dropout = nn.Dropout(dropout)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage, name in enumerate(self.stages):
            x = self.get_submodule(name)(x)
            if stage < _DROPOUTS:
                x = self.dropout(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


class BasicBlock(nn.Module):
    """relu(x + bn(3x3(relu(bn(3x3(x)))))), x of shape (b, c, h, w)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu(inner + (x if self.downsample is None else self.downsample(x)))
        return out


class Bottleneck(nn.Module):
    """relu(x + bn(1x1(relu(bn(3x3(relu(bn(1x1(x))))))))), x of shape (b, c, h, w)."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        inner = self.bn3(self.conv3(inner))
        out: Tensor = self.relu(inner + (x if self.downsample is None else self.downsample(x)))
        return out


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """A 1x1 convolution where the block changes the shape, nothing elsewhere."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def resnet(name: str, channels: int = 3, outputs: int = 1000, dropout: float = 0.0, **changes: Any) -> ResNet:
    """A network of `RESNETS`, some fields of its `ResNetShape` changed; its weights come from torch's global generator.

    Raises:
        ConfigError: on an unknown name, or sizes that make no network.
    """
    if name not in RESNETS:
        raise ConfigError("unknown network", got=name, allowed=", ".join(RESNETS))
    return ResNet(replace(RESNETS[name], **changes), channels, outputs, dropout)
