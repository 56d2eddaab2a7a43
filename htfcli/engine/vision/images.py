"""Where the images of pairs come from: labelled images in two disjoint parts, one for train and one for test pairs.

Axes: `n` images, `c` channels, `h` rows, `w` columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htfcli.config.images import IsSameClassConfig
from htfcli.engine.vision.image_set import Normalization
from htfcli.engine.vision.shapes import SHAPES, draw_shapes
from htfcli.errors import ConfigError

# Randomness is drawn from a stream of its own for each purpose, so that e.g. more train pairs leave the rest as it was.
SPLIT, DRAWING, TRAIN_PAIRS, TEST_PAIRS = range(4)


def stream(seed: int, purpose: int) -> np.random.Generator:
    """The random generator of one purpose."""
    return np.random.default_rng((seed, purpose))


@dataclass(frozen=True)
class Labelled:
    """Images of one size: pixels (n, c, h, w) uint8, labels (n,) int64."""

    pixels: Tensor
    labels: Tensor

    def rows(self, rows: NDArray[np.int64]) -> Labelled:
        chosen = torch.from_numpy(rows)
        return Labelled(self.pixels[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Source:
    """Images to train on, others to test on, the names of their classes, and how pixels are normalised."""

    train: Labelled
    test: Labelled
    classes: tuple[str, ...]
    normalization: Normalization


def load_source(config: IsSameClassConfig) -> Source:
    """The images that `config.source` names."""
    return SOURCES[config.source](config)


def normalization_of(pixels: Tensor) -> Normalization:
    """By mean and standard deviation of each channel of (n, c, h, w) uint8; a constant one is only shifted."""
    mean, square = [], []
    for channel in pixels.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).double()
        values = torch.arange(256, dtype=torch.float64) / 255
        mean.append(float(counts @ values / counts.sum()))
        square.append(float(counts @ (values - mean[-1]).square() / counts.sum()))
    return Normalization(torch.tensor(mean), torch.tensor([v**0.5 or 1.0 for v in square]))


def stratified_split(labels: Tensor, test: int, generator: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
    """Rows to train on and rows to test on, each class in proportion (largest remainders) and on both sides.

    Args:
        labels: (n,) int64, every class at least twice. test: how many rows to test on.
    Raises:
        ConfigError: if a side would have none of some class.
    """
    counts = torch.bincount(labels).numpy()
    classes, total = len(counts), len(labels)
    if not classes <= test <= total - classes:
        allowed = f"{classes} to {total - classes} of {total}, so that both sides have all {classes} classes"
        raise ConfigError("that many images cannot be held out for testing", got=test, allowed=allowed)
    exact = counts * (test / total)
    share = np.clip(np.floor(exact).astype(int), 1, counts - 1)
    while (missing := test - share.sum()) != 0:  # one class at a time, the one furthest from its due
        step = 1 if missing > 0 else -1
        possible = (share + step >= 1) & (share + step <= counts - 1)
        share[np.where(possible, step * (exact - share), -np.inf).argmax()] += step
    sides: tuple[list[NDArray[np.int64]], ...] = ([], [])
    for label, held_out in enumerate(share):
        rows = generator.permutation(np.flatnonzero(labels.numpy() == label))
        sides[0].append(rows[held_out:])
        sides[1].append(rows[:held_out])
    return tuple(np.sort(np.concatenate(side)) for side in sides)


def _split(images: Labelled, config: IsSameClassConfig) -> tuple[Labelled, Labelled]:
    held_out = config.test_images or max(len(images.labels) // 4, int(images.labels.max()) + 1)
    train, test = stratified_split(images.labels, held_out, stream(config.seed, SPLIT))
    return images.rows(train), images.rows(test)


def _shapes(config: IsSameClassConfig) -> Source:
    labels = np.arange(config.images) % len(SHAPES)
    pixels = draw_shapes(labels, stream(config.seed, DRAWING))
    train, test = _split(Labelled(torch.from_numpy(pixels), torch.from_numpy(labels)), config)
    return Source(train, test, tuple(SHAPES), normalization_of(train.pixels))


def _digits(config: IsSameClassConfig) -> Source:
    """1,797 handwritten digits whose pixels are 0 to 16; normalised to pixel / 16, the background to 0."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigError("source digits needs scikit-learn", next_step="pip install 'htf[vision]'.") from None
    found = load_digits()
    pixels = torch.from_numpy(found.images.astype(np.uint8))[:, None]
    train, test = _split(Labelled(pixels, torch.from_numpy(found.target.astype(np.int64))), config)
    return Source(train, test, tuple("0123456789"), Normalization(torch.zeros(1), torch.tensor([16 / 255])))


SOURCES: dict[str, Callable[[IsSameClassConfig], Source]] = {
    "shapes": _shapes,
    "digits": _digits,
}
