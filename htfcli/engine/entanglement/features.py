"""Samples of features on a line or a grid, and the canonical partitions of these features.

Axes: `M` samples, `N` features, `C` channels of a feature (an image's colours).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from htfcli.errors import ConfigError, DataError


@dataclass(frozen=True)
class FeatureData:
    """Samples with labels.

    Args:
        name: for messages. values: (M, N, C) float64, without NaN. shape: (N,) of features on a line, (h, w) of those
            on a grid, row by row. labels: (M,) int64, indices into `classes`; None without labels.
        classes: names of the labels. names: of the features, if they have any. common_scale: whether all features have
            one unit, as pixels do.
    """

    name: str
    values: Tensor
    shape: tuple[int, ...]
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    common_scale: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def features(self) -> int:
        """N."""
        return self.values.shape[1]

    @property
    def constant(self) -> Tensor:
        """(N,) bool: features that are the same in all samples."""
        return (self.values == self.values[:1]).all(0).all(1)

    def scaled(self) -> Tensor:
        """(M, N, C) in [0, 1]: each feature by its own range, or all by one range on a common scale."""
        axes = (0, 1, 2) if self.common_scale else (0,)
        low, high = self.values.amin(axes, keepdim=True), self.values.amax(axes, keepdim=True)
        scaled: Tensor = (self.values - low) / torch.where(high > low, high - low, 1.0)
        return scaled

    def signs(self) -> Tensor:
        """(k, M) labels +-1: of two classes the second one is +1; of more, each against the rest; ones without labels.

        Raises:
            DataError: if all samples have one class.
        """
        if self.labels is None:
            return torch.ones(1, len(self), dtype=torch.float64)
        found = torch.unique(self.labels)
        if len(found) < 2:
            raise DataError(
                f"all samples of {self.name} have one label",
                got=self.classes[int(found[0])] if self.classes else int(found[0]),
                next_step="Leave --label out to measure the features alone.",
            )
        chosen = found[1:] if len(found) == 2 else found
        signs: Tensor = 2.0 * (self.labels == chosen[:, None]).double() - 1
        return signs

    def drawn(self, count: int | None, seed: int) -> FeatureData:
        """`count` of the samples, drawn at random without replacement; all of them if there are no more, or for None.

        Raises:
            ConfigError: if `count` is less than 2.
        """
        if count is None or count >= len(self):
            return self
        if count < 2:
            raise ConfigError("too few samples to measure", got=count, allowed="2 or more")
        rows = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count].sort().values
        return replace(self, values=self.values[rows], labels=None if self.labels is None else self.labels[rows])

    def rearranged(self, order: Tensor) -> FeatureData:
        """The same samples with feature `order[n]` (N,) in place n."""
        names = None if self.names is None else tuple(self.names[n] for n in order.tolist())
        return replace(self, values=self.values[:, order], names=names)


@dataclass(frozen=True)
class Partition:
    """A canonical partition: `features` (indices, increasing) against all others.

    Args:
        level: of the tree, 1 for halves. position: of the block at this level, along each axis.
    """

    level: int
    position: tuple[int, ...]
    features: tuple[int, ...]


def deepest(shape: Sequence[int]) -> int:
    """The last level whose blocks all have a feature: floor(log2 of the shortest axis longer than one)."""
    return int(math.log2(min((n for n in shape if n > 1), default=1)))


def canonical_partitions(shape: Sequence[int], levels: Sequence[int]) -> Iterator[Partition]:
    """The blocks of every level, each against the rest: 2^level contiguous ones of a line, 4^level squares of a grid.

    A block of n features is halved into floor(n / 2) and the others, so that blocks are nested and, for 2^L features,
    equal. Source: arXiv 2303.11249.

    Args:
        shape: (N,) or (h, w). levels: from 1 to `deepest(shape)`.
    Raises:
        ConfigError: if there is no such level.
    """
    last = deepest(shape)
    for level in levels:
        if not 1 <= level <= last:
            of = " x ".join(map(str, shape))
            raise ConfigError(f"no such level of {of} features", got=level, allowed=f"1 to {last}")
        cuts = [_cuts(n, level) for n in shape]
        index = torch.arange(math.prod(shape)).view(*shape)
        for number in range(math.prod(len(ends) - 1 for ends in cuts)):
            position: list[int] = []
            for ends in reversed(cuts):
                number, place = divmod(number, len(ends) - 1)
                position.insert(0, place)
            block = index[tuple(slice(e[p], e[p + 1]) for e, p in zip(cuts, position, strict=True))]
            yield Partition(level, tuple(position), tuple(block.flatten().tolist()))


def _cuts(n: int, level: int) -> list[int]:
    """Ends of the blocks of n features at a level, from 0 to n; an axis of one feature is never cut."""
    ends = [0, n]
    for _ in range(level if n > 1 else 0):
        ends = sorted({*ends, *((a + b) // 2 for a, b in pairwise(ends))})
    return ends
