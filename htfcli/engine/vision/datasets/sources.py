"""Where the images of pairs come from: labelled images in two disjoint parts, one for train and one for test pairs.

Axes: `n` images, `c` channels, `h` rows, `w` columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from htfcli.config.images import IsSameClassConfig
from htfcli.engine.vision.datasets import cifar10
from htfcli.engine.vision.datasets.drawn_shapes import SHAPES, draw_shapes
from htfcli.engine.vision.datasets.image_folder import has_own_split, read_split_folder
from htfcli.engine.vision.datasets.image_set import Normalization
from htfcli.engine.vision.datasets.labelled import Labelled, normalization_of, stratified_split
from htfcli.errors import ConfigError

# Randomness is drawn from a stream of its own for each purpose, so that e.g. more train pairs leave the rest as it was.
SPLIT, DRAWING, TRAIN_PAIRS, TEST_PAIRS = range(4)


def stream(seed: int, purpose: int) -> np.random.Generator:
    """The random generator of one purpose."""
    return np.random.default_rng((seed, purpose))


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


def _split(config: IsSameClassConfig, images: Labelled) -> tuple[Labelled, Labelled]:
    held_out = config.test_images or max(len(images.labels) // 4, int(images.labels.max()) + 1)
    return stratified_split(images, held_out, stream(config.seed, SPLIT))


def _shapes(config: IsSameClassConfig) -> Source:
    labels = np.arange(config.images) % len(SHAPES)
    pixels = draw_shapes(labels, stream(config.seed, DRAWING))
    train, test = _split(config, Labelled(torch.from_numpy(pixels), torch.from_numpy(labels)))
    return Source(train, test, tuple(SHAPES), normalization_of(train.pixels))


def _digits(config: IsSameClassConfig) -> Source:
    """1,797 handwritten digits whose pixels are 0 to 16; normalised to pixel / 16, the background to 0."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigError("source digits needs scikit-learn", next_step="pip install 'htf[vision]'.") from None
    found = load_digits()
    pixels = torch.from_numpy(found.images.astype(np.uint8))[:, None]
    train, test = _split(config, Labelled(pixels, torch.from_numpy(found.target.astype(np.int64))))
    return Source(train, test, tuple("0123456789"), Normalization(torch.zeros(1), torch.tensor([16 / 255])))


def _cifar10(config: IsSameClassConfig) -> Source:
    if config.data_dir is None and not config.download:
        advice = f"Name {cifar10.ARCHIVE} or a folder of its files with --data-dir, or fetch it with --download."
        raise ConfigError("source cifar10 does not know where CIFAR-10 is", next_step=advice)
    path = cifar10.download() if config.data_dir is None else Path(config.data_dir)
    train, test = cifar10.read_cifar10(path)
    return Source(train, test, cifar10.CLASSES, Normalization(torch.tensor(cifar10.MEAN), torch.tensor(cifar10.STD)))


def _folder(config: IsSameClassConfig) -> Source:
    assert config.data_dir is not None
    folder = Path(config.data_dir)
    if config.test_images is not None and has_own_split(folder):
        raise ConfigError(f"{folder} has a split of its own, train and test", got=f"test-images {config.test_images}")
    train, test, classes = read_split_folder(folder, config.image_size, partial(_split, config))
    return Source(train, test, classes, normalization_of(train.pixels))


SOURCES: dict[str, Callable[[IsSameClassConfig], Source]] = {
    "shapes": _shapes,
    "digits": _digits,
    "cifar10": _cifar10,
    "folder": _folder,
}
