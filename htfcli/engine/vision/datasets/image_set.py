"""Labelled images to train on: stored as they are, or pairs placed on a canvas when a batch is asked for.

Axes: `n` images, `b` images of a batch, `c` channels, `h` rows, `w` columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """A box of positions of an input with any number of axes: start[k] .. start[k] + size[k] - 1 along axis k."""

    start: tuple[int, ...]
    size: tuple[int, ...]

    def of(self, inputs: Tensor) -> Tensor:
        """The box of (b, c, ...) inputs, (b, c, *size); a view."""
        for axis, (start, size) in enumerate(zip(self.start, self.size, strict=True), start=2):
            inputs = inputs.narrow(axis, start, size)
        return inputs


@dataclass(frozen=True)
class Patch:
    """A rectangle of an image: rows top .. top + height - 1, columns left .. left + width - 1 (pixels)."""

    top: int
    left: int
    height: int
    width: int

    @property
    def start(self) -> tuple[int, ...]:
        return self.top, self.left

    @property
    def size(self) -> tuple[int, ...]:
        return self.height, self.width

    def of(self, images: Tensor) -> Tensor:
        """The patch of (b, c, h, w) images, (b, c, height, width); a view."""
        return images[..., self.top : self.top + self.height, self.left : self.left + self.width]


Region = Block | Patch


class ImageSet(Protocol):
    """Images and their labels, on one device.

    Attributes:
        labels: (n,) int64, indices into `classes`. shape: (c, h, w) of every image.
        patches: the two regions whose dependence the task is about, where it has them (IsSameClass); None elsewhere.
    """

    @property
    def labels(self) -> Tensor: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def patches(self) -> tuple[Patch, Patch] | None: ...

    def __len__(self) -> int: ...

    def images(self, rows: Tensor) -> Tensor:
        """Normalised images (b, c, h, w), float32, of the given rows (b,) int64, on the same device as the set."""

    def to(self, device: torch.device) -> Self:
        """The same set with its pixels on another device."""


@dataclass(frozen=True)
class Normalization:
    """(pixel / 255 - mean) / std, channel by channel; mean and std (c,) float32."""

    mean: Tensor
    std: Tensor

    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, c, h, w) uint8 -> float32."""
        mean, std = (t.view(-1, 1, 1) for t in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)

    def to(self, device: torch.device) -> Normalization:
        """The same for pixels on another device."""
        return Normalization(self.mean.to(device), self.std.to(device))


@dataclass(frozen=True)
class StoredImages:
    """Images as they are.

    Args:
        pixels: (n, c, h, w) uint8. labels: (n,) int64. normalization: applied to every batch. masks: (n, h, w) uint8,
            the number of the object each pixel belongs to, 0 for none; None where there are none.
    """

    pixels: Tensor
    labels: Tensor
    normalization: Normalization
    patches: tuple[Patch, Patch] | None = None
    masks: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        _, c, h, w = self.pixels.shape
        return c, h, w

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: Tensor) -> Tensor:
        return self.normalization(self.pixels[rows])

    def to(self, device: torch.device) -> StoredImages:
        pixels, labels = self.pixels.to(device), self.labels.to(device)
        return replace(self, pixels=pixels, labels=labels, normalization=self.normalization.to(device))


@dataclass(frozen=True)
class ImageData:
    """A learning problem: images to train on, images to test on, and what their labels mean.

    Args:
        task: is-same-class, pathfinder or images. classes: name of each label.
        about: what the set was made with, as plain data.
    """

    task: str
    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    about: dict[str, object]

    @property
    def binary(self) -> bool:
        """Whether one logit says it all (is-same-class, pathfinder): positive means label 1."""
        return self.task in ("is-same-class", "pathfinder")
