"""Observations of a tensor: some of its entries, or linear measurements of it.

Axes: `n` observations, `N` modes, `d_k` dimension of mode k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from htfcli.engine.samples import Entries, Sample, first_out_of_range, out_of_range, row_keys, unravel
from htfcli.errors import ConfigError, DataError

if TYPE_CHECKING:
    from htfcli.engine.factorizations.factorization import Factorization

_LARGEST_DIMENSION = 2**62  # indices are int64, and arithmetic on them must not overflow
MAX_OBSERVATIONS = 10**9  # more would not fit in memory (40 GB in order 4)
_SORTED = 2**22  # rows that are sorted at a time to find a repeat, to bound memory


@dataclass(frozen=True)
class Observations:
    """A learning problem: a train sample, a test sample of the same kind, and the true tensor if it is known.

    Args:
        dims: mode dimensions (d_0, ..., d_{N-1}).
        train, test: the samples to fit and to hold out; `test` may be None.
        target: the factorization that generated the data, or None.
        whole: numbers of train and test observations over all processes, if these are the shard of one process.
    """

    dims: tuple[int, ...]
    train: Sample
    test: Sample | None = None
    target: Factorization | None = None
    whole: tuple[int, int] | None = None

    @property
    def order(self) -> int:
        """Number of modes N."""
        return len(self.dims)

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of train and test observations, over all processes."""
        return self.whole or (len(self.train), 0 if self.test is None else len(self.test))

    def checked(self) -> Observations:
        """Itself, if all entries are in range and have finite values, and none occurs twice (in train and test).

        Raises:
            DataError: for the first observation that violates this.
        """
        parts = [s for s in (self.train, self.test) if s is not None]
        entries = [s for s in parts if isinstance(s, Entries)]
        if entries:
            index = torch.cat([s.index for s in entries])
            checked_entries(index, torch.cat([s.value for s in entries]), self.dims, "observation")
        return self

    def to_dense(self) -> Tensor:
        """The tensor itself, (d_0, ..., d_{N-1}), if all entries are observed.

        Raises:
            DataError: if entries are missing, or the observations are measurements.
        """
        parts = [s for s in (self.train, self.test) if s is not None]
        entries = [s for s in parts if isinstance(s, Entries)]
        total = math.prod(self.dims)
        observed = sum(len(s) for s in entries)
        if len(entries) != len(parts) or observed != total:
            raise DataError(
                "the observations do not cover the tensor",
                got=f"{observed} of {total} entries",
                next_step="Fit a factorization to them first: htf fit.",
            )
        dense = torch.full(self.dims, torch.nan, dtype=torch.float64)
        for sample in entries:
            dense[sample.index.unbind(1)] = sample.value
        return dense


def checked_entries(
    index: Tensor, value: Tensor, dims: Sequence[int], name: str, place: Callable[[int], str] = str, first: int = 0
) -> Entries:
    """Entries, after checking that indices are in range and distinct, and values finite.

    Args:
        index: (n, N) int64. value: (n,) float64. dims: the N dimensions.
        name: what messages call an observation. place: row number -> its place in the input, such as a line number.
        first: the number that messages show for the first index of a mode.
    Raises:
        DataError: for the first observation that is out of range, not finite or repeated.
    """
    if max(dims) > _LARGEST_DIMENSION:
        raise DataError(f"{name} has an index or a dimension that is too large", allowed=f"{_LARGEST_DIMENSION}")
    row = first_out_of_range(index, dims)
    if row is not None:
        raise out_of_range(f"{name} {place(row)}", index[row], dims, first)
    bad = torch.nonzero(~torch.isfinite(value)).flatten()
    if len(bad):
        row = int(bad[0])
        raise DataError(f"{name} {place(row)} has no finite value", got=float(value[row]))
    repeat = first_duplicate(index, dims)
    if repeat is not None:
        earlier, later = (place(row) for row in repeat)
        got = (index[repeat[1]].long() + first).tolist()
        raise DataError(f"{name} {later} repeats the index of {earlier}", got=got)
    return Entries(index, value)


def first_duplicate(index: Tensor, dims: Sequence[int]) -> tuple[int, int] | None:
    """Positions (earlier, later) of the first row of `index` (n, N) that repeats an earlier one; None if all differ.

    Many rows are divided by their indices in one mode, which bounds the number that is sorted at a time.
    """
    if len(index) > _SORTED:
        column, found = index[:, max(range(len(dims)), key=lambda m: dims[m])], []
        parts = -(-len(index) // _SORTED)
        for part in range(parts):
            rows = torch.nonzero(column % parts == part).flatten()
            if (repeat := _first_repeat(index[rows], dims)) is not None:
                found.append((int(rows[repeat[0]]), int(rows[repeat[1]])))
        return min(found, key=lambda pair: pair[1], default=None)
    return _first_repeat(index, dims)


def _first_repeat(index: Tensor, dims: Sequence[int]) -> tuple[int, int] | None:
    key, position = torch.sort(row_keys(index, dims), stable=True)
    repeats = torch.nonzero(key[1:] == key[:-1]).flatten()
    if len(repeats) == 0:
        return None
    later = position[repeats + 1]
    at = int(torch.argmin(later))
    return int(position[repeats[at]]), int(later[at])


def sample_entries(
    dims: Sequence[int], count: int, generator: torch.Generator, exclude: Tensor | None = None
) -> Tensor:
    """Draw `count` distinct entries uniformly, none of them among `exclude`.

    Entries of small tensors are permuted. Those of large ones are drawn one by one without repeats, so the tensor is
    never enumerated and may have 4^32 entries.

    Args:
        dims: the N dimensions. count: number of entries. generator: a CPU generator. exclude: (m, N) int64 entries not
        to draw.
    Returns: (count, N) int64.
    Raises:
        ConfigError: if the tensor has fewer entries than requested, or more than `MAX_OBSERVATIONS` are requested.
    """
    taken = 0 if exclude is None else len(exclude)
    total = math.prod(dims)
    if not 0 <= count <= total - taken:
        raise ConfigError("more entries requested than the tensor has", got=count, allowed=f"0 to {total - taken}")
    if count > MAX_OBSERVATIONS:
        got = f"{count:.3g}" if count < 10**300 else "far more"
        raise ConfigError(
            "too many entries requested",
            got=got,
            allowed=f"{MAX_OBSERVATIONS:,}",
            next_step="Give a count, e.g. 20000.",
        )
    if total <= max(4 * (count + taken), 2**16):
        order = torch.randperm(total, generator=generator)
        if exclude is not None:
            free = torch.ones(total, dtype=torch.bool)
            free[row_keys(exclude, dims)] = False
            order = order[free[order]]
        return unravel(order[:count], dims)
    drawn = torch.empty((0, len(dims)), dtype=torch.int64) if exclude is None else exclude
    while len(drawn) < taken + count:
        missing = taken + count - len(drawn)
        fresh = torch.stack([torch.randint(d, (missing + 16,), generator=generator) for d in dims], dim=1)
        drawn = _drop_repeats(torch.cat([drawn, fresh]), dims)
    return drawn[taken : taken + count]


def _drop_repeats(index: Tensor, dims: Sequence[int]) -> Tensor:
    """The distinct rows of `index`, in the order of their first occurrence."""
    key, position = torch.sort(row_keys(index, dims), stable=True)
    first = torch.ones(len(key), dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    return index[position[first].sort().values]


def split(sample: Sample, test_fraction: float, generator: torch.Generator) -> tuple[Sample, Sample]:
    """Hold out a random `test_fraction` of the sample, as (train, test); at least one observation on each side.

    Raises:
        DataError: if there are fewer than two observations.
    """
    total = len(sample)
    if total < 2:
        raise DataError("too few observations to hold some out", got=total, allowed="2 or more")
    held_out = min(max(1, round(test_fraction * total)), total - 1)
    order = torch.randperm(total, generator=generator)
    return sample.select(order[held_out:].sort().values), sample.select(order[:held_out].sort().values)


def rescale(observations: Observations, factor: float) -> Observations:
    """The same problem with all values multiplied by `factor`, without the target, whose scale would be wrong."""

    def scaled(sample: Sample) -> Sample:
        return replace(sample, value=sample.value * factor)

    test = None if observations.test is None else scaled(observations.test)
    return Observations(observations.dims, scaled(observations.train), test, whole=observations.whole)
