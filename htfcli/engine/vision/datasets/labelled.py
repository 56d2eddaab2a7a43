"""Labelled images in memory: normalization by their own statistics, and splits that keep the classes in proportion.

Axes: `n` images, `c` channels, `h` rows, `w` columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htfcli.engine.vision.datasets.image_set import Normalization
from htfcli.errors import ConfigError


@dataclass(frozen=True)
class Labelled:
    """Images of one size: pixels (n, c, h, w) uint8, labels (n,) int64."""

    pixels: Tensor
    labels: Tensor

    def rows(self, rows: NDArray[np.int64]) -> Labelled:
        chosen = torch.from_numpy(rows)
        return Labelled(self.pixels[chosen], self.labels[chosen])


def normalization_of(pixels: Tensor) -> Normalization:
    """By mean and standard deviation of each channel of (n, c, h, w) uint8; a constant one is only shifted."""
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in pixels.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean.append(float(share @ values))
        std.append(float(share @ (values - mean[-1]).square()) ** 0.5 or 1.0)
    return Normalization(torch.tensor(mean), torch.tensor(std))


def stratified_split(images: Labelled, test: int, generator: np.random.Generator) -> tuple[Labelled, Labelled]:
    """Images to train on and `test` images to test on, each class in proportion (by largest remainders).

    Raises:
        ConfigError: if a side would have none of some class.
    """
    labels = images.labels.numpy()
    counts = np.bincount(labels)
    classes, total = len(counts), len(labels)
    if counts.min() < 2 or not classes <= test <= total - classes:
        allowed = f"{classes} to {total - classes} of {total}, so that both sides have all {classes} classes"
        if counts.min() < 2:
            allowed = "classes of two images or more"
        raise ConfigError("the images cannot be split", got=f"{test} to test on", allowed=allowed)
    due = counts * (test / total)
    share = np.clip(np.floor(due).astype(int), 1, counts - 1)
    while missing := test - share.sum():  # one class at a time, that which is furthest from its due
        step = 1 if missing > 0 else -1
        may = (share + step >= 1) & (share + step <= counts - 1)
        share[np.where(may, step * (due - share), -np.inf).argmax()] += step
    sides: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for label, held_out in enumerate(share):
        rows = generator.permutation(np.flatnonzero(labels == label))
        sides[0].append(rows[held_out:])
        sides[1].append(rows[:held_out])
    train, held = (images.rows(np.sort(np.concatenate(side))) for side in sides)
    return train, held
