"""Units: a mode whose indices are variables on scales of their own is brought to one scale before anything is
fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.engine.samples import Entries

_FEWEST, _MOST = 20, 200  # entries of an index that say what its scale is; indices that may be variables


@dataclass(frozen=True)
class Units:
    """value = shift + scale * (what is fitted).

    Args:
        mode: the mode of variables, or None. shift, scale: (d + 1,) by its index, the last for one never seen; (1,)
            where there is none.
    """

    mode: int | None
    shift: Tensor
    scale: Tensor

    def of(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale of entries (n, N)."""
        if self.mode is None:
            return self.shift.expand(len(index)), self.scale.expand(len(index))
        at = index[:, self.mode].long()
        return self.shift[at], self.scale[at]


def find_units(entries: Entries, dims: Sequence[int], least: float) -> Units:
    """The mode, if there is one, whose indices differ in scale more than within themselves.

    The size of an index is the middle |value - mean of the index|. A mode is one of variables if sizes differ by the
    factor `least`, and their logarithms, over all entries, by a variance of more than pi^2 / 8, that of the logarithm
    of |x| for x normal. Then every index has its own mean and deviation; else all values share their root mean square.
    """
    largest = float(entries.value.abs().max()) or 1.0
    value = entries.value / largest
    rms = largest * float(value.square().mean().sqrt()) or 1.0
    most, best = math.pi**2 / 8, Units(None, value.new_zeros(1), value.new_tensor([rms]))
    for mode, d in enumerate(dims):
        column = entries.index[:, mode].long()
        count = torch.bincount(column, minlength=d)
        seen = torch.nonzero(count).flatten()
        if d > _MOST or len(value) < _FEWEST * d or int(count[seen].min()) < 3:
            continue
        parts = torch.split(value[torch.argsort(column, stable=True)], count[seen].tolist())
        mean = torch.stack([part.mean() for part in parts])
        off = [part - middle for part, middle in zip(parts, mean, strict=True)]
        sizes = torch.stack([part.abs().median() for part in off])
        # both must differ: deviations from the mean follow a few far larger entries, and those from the median are
        # nothing where most entries of an index are equal (il2: 17 and 115)
        around = torch.stack([(part - part.median()).abs().median() for part in parts])
        varies = sizes > 0
        variance = float(torch.cov(sizes[varies].log(), correction=0, fweights=count[seen][varies]))
        if variance <= most or min(_ratio(sizes), _ratio(around)) < least:
            continue
        # beyond 15 sizes, ten deviations of normal values, a value counts as that: China among populations
        limit = 15 * torch.where(varies, sizes, torch.inf)
        deviation = torch.stack([part.clamp(-w, w).square().mean().sqrt() for part, w in zip(off, limit, strict=True)])
        shift = mean.mean().repeat(d + 1).index_copy(0, seen, mean)
        scale = deviation[deviation > 0].median().repeat(d + 1)
        scale[seen[deviation > 0]] = deviation[deviation > 0]
        most, best = variance, Units(mode, shift * largest, scale * largest)
    return best


def _ratio(sizes: Tensor) -> float:
    """The largest over the smallest of the sizes (d,) that are not zero."""
    sizes = sizes[sizes > 0]
    return float(sizes.max() / sizes.min()) if len(sizes) else 1.0
