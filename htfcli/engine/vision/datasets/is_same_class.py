"""IsSameClass: two images side by side on an empty canvas; the label says whether they are of the same class.

Source: Razin, Maman and Cohen, arXiv 2201.11729, section on non-local tasks. Half of the pairs are positive, by coin
flip. A class is drawn uniformly (a negative pair draws two that differ), then an image of it, with replacement: a
positive pair may be an image and itself.

Axes: `n` pairs, `m` source images, `b` pairs of a batch, `c` channels, `h` rows, `w` columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htfcli.config.images import IsSameClassConfig
from htfcli.engine.vision.datasets.image_set import ImageData, Normalization, Patch
from htfcli.engine.vision.datasets.labelled import Labelled
from htfcli.engine.vision.datasets.sources import TEST_PAIRS, TRAIN_PAIRS, load_source, stream
from htfcli.errors import ConfigError

CLASSES = ("different", "same")
_CANVAS = 7  # a canvas is as many times the images' size unless it is given: 224 for 32, as published


def placement(image: Sequence[int], canvas: Sequence[int], distance: int) -> tuple[Patch, Patch]:
    """Where the two images go: centred up and down, `distance` columns apart, the left one at W//2 - w - distance//2.

    Args:
        image: height and width of both. canvas: its height and width.
    Raises:
        ConfigError: if they do not fit.
    """
    (image_height, image_width), (canvas_height, canvas_width) = image, canvas
    top = (canvas_height - image_height) // 2
    left = canvas_width // 2 - image_width - distance // 2
    right = left + image_width + distance
    if top < 0:
        raise ConfigError("the images are higher than the canvas", got=image_height, allowed=f"height {canvas_height}")
    if left < 0 or right + image_width > canvas_width:
        most = canvas_width - 2 * image_width
        if most < 0:
            what = "two images are wider than the canvas"
            raise ConfigError(what, got=2 * image_width, allowed=f"width {canvas_width}")
        what = f"the distance does not fit two images {image_width} wide on a canvas {canvas_width} wide"
        raise ConfigError(what, got=distance, allowed=f"0 to {most}")
    return Patch(top, left, image_height, image_width), Patch(top, right, image_height, image_width)


@dataclass(frozen=True)
class PairCanvases:
    """Pairs of images, put on their canvases when a batch is asked for.

    Args:
        pixels: (m, c, h, w) uint8, the source images. pairs: (n, 2) int64, indices of left and right image.
        labels: (n,) int64. canvas: its height and width. distance: zero columns between the images.
        normalization: of the images; the canvas around them is zero.
    """

    pixels: Tensor
    pairs: Tensor
    labels: Tensor
    canvas: tuple[int, int]
    distance: int
    normalization: Normalization

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.pixels.shape[1], *self.canvas

    @property
    def patches(self) -> tuple[Patch, Patch]:
        return placement(self.pixels.shape[2:], self.canvas, self.distance)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: Tensor) -> Tensor:
        device = self.pixels.device
        canvases = torch.zeros(len(rows), *self.shape, device=device)
        pairs = self.pairs[rows]
        for side, patch in enumerate(self.patches):
            patch.of(canvases).copy_(self.normalization(self.pixels[pairs[:, side]]))
        return canvases

    def to(self, device: torch.device) -> PairCanvases:
        pixels, pairs, labels = (t.to(device) for t in (self.pixels, self.pairs, self.labels))
        return replace(self, pixels=pixels, pairs=pairs, labels=labels, normalization=self.normalization.to(device))


def draw_pairs(
    labels: NDArray[np.int64], count: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw pairs of images.

    Args:
        labels: (m,) classes of the images, of which there are two or more, numbered from 0.
    Returns: (count, 2) indices of the images, and (count,) whether their classes are the same, 0 or 1.
    """
    sizes = np.bincount(labels)
    same = generator.integers(2, size=count)
    first = generator.integers(len(sizes), size=count)
    other = (first + generator.integers(1, len(sizes), size=count)) % len(sizes)
    classes = np.stack([first, np.where(same == 1, first, other)], axis=1)
    by_class, starts = np.argsort(labels, kind="stable"), np.cumsum(sizes) - sizes
    return by_class[starts[classes] + generator.integers(sizes[classes])], same


def make_is_same_class(config: IsSameClassConfig) -> ImageData:
    """Draw train and test pairs, of images that the two do not share.

    Raises:
        ConfigError: if the images do not fit the canvas. DataError: if the source cannot be read.
    """
    source = load_source(config)
    height, width = source.train.pixels.shape[2:]
    canvas = (config.height or _CANVAS * height, config.width or _CANVAS * width)
    placement((height, width), canvas, config.distance)

    def canvases(images: Labelled, count: int, purpose: int) -> PairCanvases:
        pairs, labels = draw_pairs(images.labels.numpy(), count, stream(config.seed, purpose))
        used, index = np.unique(pairs, return_inverse=True)  # only those are kept
        return PairCanvases(
            images.pixels[torch.from_numpy(used)],
            torch.from_numpy(index.reshape(pairs.shape)),
            torch.from_numpy(labels),
            canvas,
            config.distance,
            source.normalization,
        )

    return ImageData(
        task="is-same-class",
        classes=CLASSES,
        train=canvases(source.train, config.train, TRAIN_PAIRS),
        test=canvases(source.test, config.test, TEST_PAIRS),
        about=config.model_dump(mode="json"),
    )
