"""Entries grouped by their index in a mode, in pieces of one length: sums over a group become batched matrix products.

Adding an outer product of every entry to its place costs several times what computing it does; a piece of 64 entries is
one small matrix product, and only its result has to find its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SHORTEST, _LONGEST = 4, 64


@dataclass(frozen=True)
class Groups:
    """Entries by an index.

    Args:
        entry: (m, L) int32, numbers of entries that share an index; -1 where a piece has no more.
        row: (m,) int64, the index of each piece, rising.
    """

    entry: Tensor
    row: Tensor


def grouped(column: Tensor, size: int) -> Groups:
    """Group entries; every group is cut into pieces of about the mean size of a group.

    Args:
        column: (n,) the index of each entry, 0 .. size - 1.
    """
    counts = torch.bincount(column, minlength=size)
    mean = len(column) / max(int((counts > 0).sum()), 1)
    length = _SHORTEST
    while 2 * length <= min(mean, _LONGEST):
        length *= 2
    pieces = (counts + length - 1) // length
    order = torch.argsort(column, stable=True)
    row = column[order].long()
    # A group begins at a piece of its own: its entries are shifted by what the pieces before it leave empty
    shift = length * (pieces.cumsum(0) - pieces) - (counts.cumsum(0) - counts)
    slot = shift[row].add_(torch.arange(len(column), device=column.device))
    entry = torch.full((int(pieces.sum()) * length,), -1, dtype=torch.int32, device=column.device)
    entry[slot] = order.to(torch.int32)
    return Groups(entry.view(-1, length), torch.repeat_interleave(pieces))
