"""Cells of labelled data: several rows about one entry, known values, combinations without a row.

Axes: `n` rows, `N` modes. An index of -1 is a label that a mode does not have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from htfcli.engine.samples import Entries, row_keys, unravel
from htfcli.errors import ConfigError, DataError

Values = Callable[[Tensor], Tensor]  # (n, N) indices -> (n,) values
_PREDICTED = 2**18  # entries predicted at a time
BLOCK = 2**16  # combinations looked at at a time: a writer makes a few MiB of Python objects of them


def each_once(
    index: Tensor,
    value: Tensor,
    dims: Sequence[int],
    *,
    std: Tensor | None = None,
    average: bool = False,
    name: str,
    place: Callable[[int], str],
) -> tuple[Entries, Tensor | None]:
    """The entries that have a value, each once, and their standard deviations (m,), if known.

    Args:
        index: (n, N). value: (n,) float64, NaN in rows without one. dims: the N dimensions. std: (n,) or None.
        average: take the mean of rows that disagree about an entry; rows that agree always count once.
        name: of the data, place: of a row, for messages.
    Raises:
        DataError: for the first two rows that disagree, or if no row has a value, or one has no deviation.
    """
    row = torch.nonzero(~torch.isnan(value)).flatten()
    if len(row) == 0:
        raise DataError(f"{name} has no observed value", next_step="Is the value in another column? --value.")
    every = len(row) == len(value)  # tens of millions of rows are copied only if needed
    known = Entries(index, value) if every else Entries(index[row], value[row])
    std = None if std is None else std[row]
    if std is not None and not bool((std > 0).all()):
        at = int(torch.nonzero(~(std > 0))[0])
        what = f"{name} {place(int(row[at]))}: the standard deviation of a value must be above zero"
        raise DataError(what, got="nothing" if math.isnan(got := float(std[at])) else got)
    key, order = torch.sort(row_keys(known.index, dims), stable=True)
    fresh = torch.ones(len(key), dtype=torch.bool)
    fresh[1:] = key[1:] != key[:-1]
    if bool(fresh.all()):
        return known, std
    first_of = torch.nonzero(fresh).flatten()
    group = fresh.cumsum(0) - 1  # of rows in sorted order: which entry they are about
    found = known.value[order]
    mean = found[first_of].clone()
    deviation = None if std is None else std[order][first_of].clone()
    other = torch.nonzero(found != mean[group]).flatten()
    if len(other) and not average:
        at_other = other[torch.argmin(order[other])]
        earlier, later = (int(row[order[i]]) for i in (first_of[group[at_other]], at_other))
        raise DataError(
            f"{name} {place(later)} disagrees with {place(earlier)} about one entry",
            got=f"{float(value[later])!r} and {float(value[earlier])!r}",
            next_step="Correct one of them, or average them: --duplicates mean.",
        )
    if len(other):
        count = torch.bincount(group).to(torch.float64)
        mean.zero_().index_add_(0, group, found / count[group])  # of shares: a sum of 1e308s would be infinite
        if deviation is not None and std is not None:  # of the mean of independent values
            deviation.zero_().index_add_(0, group, (std[order] / count[group]).square()).sqrt_()
    kept = torch.sort(order[first_of])  # in the order of the rows
    entries = Entries(known.index[kept.values], mean[kept.indices])
    return entries, None if deviation is None else deviation[kept.indices]


def known_at(entries: Entries, index: Tensor, dims: Sequence[int]) -> Tensor:
    """Values (m,) of entries (m, N): the known ones, NaN for the others."""
    # keys of both together: in a large tensor a key is a rank among the given rows
    key = row_keys(torch.cat([entries.index, index]), dims)
    known, order = torch.sort(key[: len(entries)])
    wanted = key[len(entries) :]
    at = torch.searchsorted(known, wanted).clamp_(max=len(known) - 1)
    return torch.where(known[at] == wanted, entries.value[order[at]], math.nan)


def lacking(index: Tensor, dims: Sequence[int]) -> int:
    """Number of combinations without a row among (n, N)."""
    return math.prod(dims) - len(torch.unique(row_keys(index, dims)))


def lacking_blocks(index: Tensor, dims: Sequence[int]) -> Iterator[Tensor]:
    """Indices (m, N) of every combination without a row among (n, N), in row-major order, block by block."""
    taken = torch.unique(row_keys(index, dims))  # row-major positions, in order
    total = math.prod(dims)
    for start in range(0, total, BLOCK):
        stop = min(start + BLOCK, total)
        low, high = torch.searchsorted(taken, torch.tensor([start, stop])).tolist()
        free = torch.ones(stop - start, dtype=torch.bool)
        free[taken[low:high] - start] = False
        position = torch.nonzero(free).flatten() + start
        if len(position):
            yield unravel(position, dims)


def put(found: Tensor, cells: Tensor, index_at: Callable[[Tensor], Tensor], values: Values) -> None:
    """Write the values of entries into (n,) at positions `cells` (m,), block by block; `index_at`: their indices."""
    for part in torch.split(cells, _PREDICTED) if len(cells) else ():
        found[part] = values(index_at(part))


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """Values (d_0, ..., d_{N-1}), NaN where the mask is False; ConfigError if it has another shape."""
    if mask.shape != values.shape:
        got, allowed = tuple(mask.shape), tuple(values.shape)
        raise ConfigError("the mask does not have the tensor's shape", got=got, allowed=allowed)
    return torch.where(mask, values, math.nan)
