"""Entries grouped by their index in a mode, in pieces of equal length: sums over groups as batched matrix products.

Adding the outer product of every entry to its place takes several times as long as computing it. Here a piece of up to
64 entries is one small matrix product, and only its result is added.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SHORTEST, _LONGEST = 4, 64  # entries per piece: short pieces waste little on small groups, long ones save additions


@dataclass(frozen=True)
class Groups:
    """Entries grouped by index.

    Args:
        entry: (m, L) int32, positions of entries that share an index; -1 fills up the last piece of a group.
        row: (m,) int64, the index of each piece, ascending.
    """

    entry: Tensor
    row: Tensor


def grouped(column: Tensor, size: int) -> Groups:
    """Group entries by index; groups are cut into pieces of about the mean size of a group.

    Args:
        column: (n,) the index of each entry, from 0 to size - 1. size: the mode dimension.
    """
    counts = torch.bincount(column, minlength=size)
    mean = len(column) / max(int((counts > 0).sum()), 1)
    length = _SHORTEST
    while 2 * length <= min(mean, _LONGEST):
        length *= 2
    pieces = (counts + length - 1) // length
    order = torch.argsort(column, stable=True)
    row = column[order]
    # A group starts a new piece, so its entries move by the number of empty places in the pieces before it
    shift = (length * (pieces.cumsum(0) - pieces) - (counts.cumsum(0) - counts)).int()
    slot = shift[row].add_(torch.arange(len(column), dtype=torch.int32, device=column.device))
    entry = torch.full((int(pieces.sum()) * length,), -1, dtype=torch.int32, device=column.device)
    entry[slot] = order.to(torch.int32)
    return Groups(entry.view(-1, length), torch.repeat_interleave(pieces))
