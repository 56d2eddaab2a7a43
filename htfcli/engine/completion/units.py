"""Units: a mode whose indices are variables on scales of their own is brought to one scale before anything is
fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.engine.samples import Entries


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

    The logarithm of |value - mean of its index| is parted into what the index explains and the rest; a mode whose
    indices' deviations differ by more than the factor `least` and explain more than half of the variance is one of
    variables. Then every index has its own mean and deviation; else all values share their root mean square.
    """
    value = entries.value
    largest = float(value.abs().max()) or 1.0
    rms = largest * float((value / largest).square().mean().sqrt()) or 1.0
    best: tuple[float, Units] | None = None
    for mode, d in enumerate(dims):
        column = entries.index[:, mode].long()
        count = torch.bincount(column, minlength=d).double()
        if d < 2 or float(count[count > 0].min()) < 3 or d > 200 or float(count.mean()) < 20:
            continue
        scaled = value / largest
        mean = torch.zeros(d, dtype=torch.float64).index_add_(0, column, scaled) / count.clamp_min(1)
        # both must differ: deviations from the mean follow a few far larger entries, and those from the median are
        # nothing where most entries of an index are equal (il2: 17 and 115)
        off = scaled - mean[column]
        middles = _middles(off.abs(), column, d)
        around = _middles((scaled - _middles(scaled, column, d)[column]).abs(), column, d)
        limit = 15 * torch.where(middles > 0, middles, off.abs().max())[column]
        square = off.clamp(-limit, limit).square()
        deviation = (torch.zeros(d, dtype=torch.float64).index_add_(0, column, square) / count.clamp_min(1)).sqrt()
        present = deviation[deviation > 0]
        if len(present) < 2 or min(_ratio(middles), _ratio(around)) < least:
            continue
        size = torch.log(off.abs() + 1e-3 * deviation[column].clamp_min(1e-12))
        by_index = torch.zeros(d, dtype=torch.float64).index_add_(0, column, size) / count.clamp_min(1)
        explained = float((by_index[column] - size.mean()).square().mean() / size.var().clamp_min(1e-300))
        if explained > 0.5 and (best is None or explained > best[0]):
            known = count > 0
            scale = torch.where(deviation > 0, deviation, present.median())
            shift = torch.where(known, mean, mean[known].mean())
            shift = torch.cat([shift, shift[known].mean().view(1)]) * largest
            scale = torch.cat([scale, scale.median().view(1)]) * largest
            best = explained, Units(mode, shift, scale)
    if best is not None:
        return best[1]
    return Units(None, torch.zeros(1, dtype=torch.float64), torch.tensor([rms], dtype=torch.float64))


def _ratio(sizes: Tensor) -> float:
    """The largest over the smallest of the sizes (d,) that are not zero."""
    sizes = sizes[sizes > 0]
    return float(sizes.max() / sizes.min()) if len(sizes) else 1.0


def _middles(size: Tensor, column: Tensor, d: int) -> Tensor:
    """The median of the numbers (n,) of every index, (d,); 0 for one without observations."""
    order = torch.argsort(size, stable=True)
    order = order[torch.argsort(column[order], stable=True)]
    count = torch.bincount(column, minlength=d)
    middle = count.cumsum(0) - count + (count - 1).clamp_min(0) // 2
    return torch.where(count > 0, size[order][middle.clamp(max=len(size) - 1)], 0.0)
