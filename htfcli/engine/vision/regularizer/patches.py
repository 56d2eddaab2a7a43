"""Pairs of image patches: the same two every time, or squares drawn at random; and how far apart two patches are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.engine.vision.datasets.image_set import Patch
from htfcli.errors import ConfigError

PatchPair = tuple[Patch, Patch]
PatchSampler = Callable[[int, int, torch.Generator], PatchPair]  # (height, width, generator) of the images -> (I, J)


def gap(first: Patch, second: Patch) -> int:
    """Pixels between two patches along the axis on which they are farther apart; negative if they overlap."""
    rows = max(second.top - first.top - first.height, first.top - second.top - second.height)
    columns = max(second.left - first.left - first.width, first.left - second.left - second.width)
    return max(rows, columns)


@dataclass(frozen=True)
class FixedPatches:
    """Always these two patches; which of them is I is drawn by a fair coin.

    Raises:
        ConfigError: when called, if a patch leaves the image; when made, if the two overlap.
    """

    first: Patch
    second: Patch

    def __post_init__(self) -> None:
        if gap(self.first, self.second) < 0:
            raise ConfigError("the two patches overlap", got=f"{self.first} and {self.second}")

    def __call__(self, height: int, width: int, generator: torch.Generator) -> PatchPair:
        for patch in (self.first, self.second):
            inside = 0 <= patch.top <= height - patch.height and 0 <= patch.left <= width - patch.width
            if not inside or patch.height < 1 or patch.width < 1:
                raise ConfigError("a patch does not fit the image", got=patch, allowed=f"inside {height} x {width}")
        heads = torch.rand((), generator=generator) < 0.5
        return (self.first, self.second) if heads else (self.second, self.first)


class RandomPatches:
    """Two squares that do not overlap, uniform over all such pairs.

    Args:
        size: side of the squares in pixels. distance: the `gap` between them; any if None.
    """

    def __init__(self, size: int, distance: int | None = None) -> None:
        self.size, self.distance = size, distance
        self._pairs: dict[tuple[int, int], Tensor] = {}

    def __call__(self, height: int, width: int, generator: torch.Generator) -> PatchPair:
        """Draw a pair for images of this size.

        Raises:
            ConfigError: if no such pair fits the image.
        """
        cumulative = self._cumulative(height, width)
        drawn = torch.rand((), generator=generator, dtype=torch.float64) * cumulative[-1]
        row, column = divmod(int(torch.searchsorted(cumulative, drawn, right=True)), 2 * width - 1)
        down, right = row - (height - 1), column - (width - 1)
        top, left = self._start(height, down, generator), self._start(width, right, generator)
        return Patch(top, left, self.size, self.size), Patch(top + down, left + right, self.size, self.size)

    def _start(self, length: int, offset: int, generator: torch.Generator) -> int:
        """Where the first square starts along an axis such that the second one, `offset` farther, is inside too."""
        room = length - self.size + 1 - abs(offset)
        return max(0, -offset) + int(torch.randint(room, (), generator=generator))

    def _cumulative(self, height: int, width: int) -> Tensor:
        """Running number of pairs over all offsets (rows, columns) from one square to the other, flattened."""
        if (height, width) not in self._pairs:
            rows = torch.arange(1 - height, height, dtype=torch.float64)[:, None]
            columns = torch.arange(1 - width, width, dtype=torch.float64)
            places = (height - self.size + 1 - rows.abs()).clamp(min=0) * (width - self.size + 1 - columns.abs()).clamp(
                min=0
            )
            gaps = torch.maximum(rows.abs().expand_as(places), columns.abs().expand_as(places)) - self.size
            wanted = gaps >= 0 if self.distance is None else gaps == self.distance
            cumulative = (places * wanted).flatten().cumsum(0)
            if cumulative[-1] == 0:
                apart = "" if self.distance is None else f", {self.distance} pixels apart"
                raise ConfigError(
                    f"two patches of {self.size} x {self.size}{apart} do not fit the images",
                    got=f"images of {height} x {width}",
                    next_step="Lower --patch-size or --patch-distance.",
                )
            self._pairs[height, width] = cumulative
        return self._pairs[height, width]
