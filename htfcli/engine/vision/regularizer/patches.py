"""Pairs of patches: the same two every time, or boxes drawn at random; and how far apart two patches are.

Inputs have one axis of positions (signals), two (images) or three (volumes), of `sizes` positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from htfcli.engine.vision.datasets.image_set import Block, Patch, Region
from htfcli.errors import ConfigError

PatchPair = tuple[Region, Region]
PatchSampler = Callable[..., PatchPair]  # (*sizes, generator) -> (I, J); of images, (height, width, generator)


def gap(first: Region, second: Region) -> int:
    """Positions between two patches along the axis on which they are farthest apart; negative if they overlap."""
    return max(
        max(b - a - n, a - b - m) for a, n, b, m in zip(first.start, first.size, second.start, second.size, strict=True)
    )


def check_kinds(pair: Any) -> None:
    """Raise ConfigError unless these are two patches."""
    if not (isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(patch, Region) for patch in pair)):
        raise ConfigError("the regularizer needs two patches", got=pair, allowed="a Patch or a Block each")


def check_inside(patch: Region, sizes: Sequence[int]) -> None:
    """Raise ConfigError unless a patch has as many axes as the input, is not empty and lies inside."""
    allowed = f"inside {' x '.join(map(str, sizes))}"
    if len(patch.start) != len(sizes):
        axes = f"{len(sizes)} axes of positions"
        raise ConfigError("a patch has another number of axes than the input", got=patch, allowed=axes)
    if not all(0 <= a <= n - k and k >= 1 for a, k, n in zip(patch.start, patch.size, sizes, strict=True)):
        raise ConfigError("a patch does not fit the image", got=patch, allowed=allowed)


def check_pair(pair: PatchPair, sizes: Sequence[int]) -> None:
    """Raise ConfigError unless these are two patches that lie inside the input and do not overlap."""
    check_kinds(pair)
    for patch in pair:
        check_inside(patch, sizes)
    if gap(*pair) < 0:
        raise ConfigError("the two patches overlap", got=f"{pair[0]} and {pair[1]}")


@dataclass(frozen=True)
class FixedPatches:
    """Always these two patches; which of them is I is drawn by a fair coin.

    Raises:
        ConfigError: when called, if a patch leaves the input; when made, if the two overlap.
    """

    first: Region
    second: Region

    def __post_init__(self) -> None:
        if len(self.first.start) != len(self.second.start):
            raise ConfigError("the two patches differ in their axes", got=f"{self.first} and {self.second}")
        if gap(self.first, self.second) < 0:
            raise ConfigError("the two patches overlap", got=f"{self.first} and {self.second}")

    def __call__(self, *sizes_and_generator: Any) -> PatchPair:
        *sizes, generator = sizes_and_generator
        check_inside(self.first, sizes)
        check_inside(self.second, sizes)
        heads = torch.rand((), generator=generator) < 0.5
        return (self.first, self.second) if heads else (self.second, self.first)


def sampler_of(patches: PatchPair | PatchSampler) -> PatchSampler:
    """A sampler of two given patches, or the sampler itself.

    Raises:
        ConfigError: if it is neither, or the two patches overlap.
    """
    if callable(patches):
        return patches
    check_kinds(patches)
    return FixedPatches(*patches)


class RandomPatches:
    """Two boxes (squares of images) that do not overlap, uniform over all such pairs.

    Args:
        size: side of the boxes in positions. distance: the `gap` between them; any if None.
    Raises:
        ConfigError: if the size is not a positive number, or the distance is negative.
    """

    def __init__(self, size: int, distance: int | None = None) -> None:
        if not (isinstance(size, int) and size >= 1 and (distance is None or distance >= 0)):
            got = f"size {size}, distance {distance}"
            raise ConfigError("no patches of this kind", got=got, allowed="size 1 or more, distance 0 or more")
        self.size, self.distance = size, distance

    def __call__(self, *sizes_and_generator: Any) -> PatchPair:
        """Draw a pair for inputs of these sizes.

        The pairs whose offsets are m or less along every axis are a product over axes, so the largest offset m is
        drawn by its number of pairs, then the first axis that has it, then the other offsets, then the places.

        Raises:
            ConfigError: if no such pair fits the input.
        """
        *sizes, generator = sizes_and_generator
        places = [self._places(n) for n in sizes]
        within = [p.cumsum(0) for p in places]  # pairs of starts along an axis, by largest offset
        shape = max(map(len, within), default=0)
        within = [torch.cat([w, w[-1:].expand(shape - len(w))]) if len(w) else torch.zeros(shape) for w in within]
        total = torch.stack(within).prod(0) if shape else torch.zeros(0, dtype=torch.float64)
        exactly = total.diff(prepend=torch.zeros(1, dtype=torch.float64))
        if self.distance is None:
            exactly[: self.size] = 0
        else:
            wanted = torch.zeros_like(exactly)
            wanted[self.size + self.distance :][:1] = exactly[self.size + self.distance :][:1]
            exactly = wanted
        if not exactly.any():
            raise self._no_room(sizes)
        most = _draw(exactly, generator)
        offsets = self._offsets(places, within, most, generator)
        starts = [self._start(n, offset, generator) for n, offset in zip(sizes, offsets, strict=True)]
        return self._patch(starts), self._patch([a + o for a, o in zip(starts, offsets, strict=True)])

    def _places(self, length: int) -> Tensor:
        """Pairs of starts along an axis by the absolute offset between them, both signs counted, (n,)."""
        places = torch.arange(max(0, length - self.size + 1), 0, -1, dtype=torch.float64)
        places[1:] *= 2
        return places

    @staticmethod
    def _offsets(places: list[Tensor], within: list[Tensor], most: int, generator: torch.Generator) -> list[int]:
        """Offsets of which the largest is `most`: by the first axis that has it, then axis by axis; signs by a coin."""
        below = [float(w[most - 1]) if most else 0.0 for w in within]
        upto = [float(w[most]) for w in within]
        weights = [1.0] * len(places)
        for axis in range(len(places)):
            for other in range(len(places)):
                weights[axis] *= below[other] if other < axis else upto[other]
            weights[axis] *= (upto[axis] - below[axis]) / upto[axis] if upto[axis] else 0
        first = _draw(torch.tensor(weights, dtype=torch.float64), generator)
        found = []
        for axis, counts in enumerate(places):
            size = most if axis == first else _draw(counts[: most + (axis > first)], generator)
            found.append(-size if size and torch.rand((), generator=generator) < 0.5 else size)
        return found

    def _start(self, length: int, offset: int, generator: torch.Generator) -> int:
        """Where the first box starts along an axis such that the second one, `offset` farther, is inside too."""
        room = length - self.size + 1 - abs(offset)
        return max(0, -offset) + int(torch.randint(room, (), generator=generator))

    def _patch(self, start: list[int]) -> Region:
        if len(start) == 2:
            return Patch(start[0], start[1], self.size, self.size)
        return Block(tuple(start), (self.size,) * len(start))

    def _no_room(self, sizes: Sequence[int]) -> ConfigError:
        apart = "" if self.distance is None else f", {self.distance} pixels apart"
        return ConfigError(
            f"two patches of {' x '.join([str(self.size)] * len(sizes))}{apart} do not fit the images",
            got=f"images of {' x '.join(map(str, sizes))}",
            next_step="Lower --patch-size or --patch-distance.",
        )


class DifferentPatches(RandomPatches):
    """Of several pairs drawn at random, the one whose J differs between image and partner in the most samples.

    Where the background is the same in most places, as in Pathfinder, most pairs have the same J, and R says nothing of
    them. A different method from the published one: places where images differ are preferred.

    Args:
        size, distance: see `RandomPatches`. draws: pairs to choose from.
    Raises:
        ConfigError: if there is nothing to choose from.
    """

    def __init__(self, size: int, distance: int | None = None, draws: int = 16) -> None:
        super().__init__(size, distance)
        if draws < 1:
            raise ConfigError("there is no pair of patches to choose", got=f"{draws} draws", allowed="1 or more")
        self.draws = draws

    def choose(self, x: Tensor, partners: Tensor, generator: torch.Generator) -> PatchPair:
        """The pair for a batch x and its partners, both (b, c, ...)."""
        pairs = [self(*x.shape[2:], generator) for _ in range(self.draws)]
        counts = torch.stack([(j.of(x) != j.of(partners)).flatten(1).any(1).sum() for _, j in pairs]).tolist()
        return pairs[counts.index(max(counts))]


def _draw(weights: Tensor, generator: torch.Generator) -> int:
    """An index by its weight."""
    return int(torch.multinomial(weights, 1, generator=generator)) if len(weights) > 1 else 0
