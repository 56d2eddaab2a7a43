"""Units: a mode whose indices are variables on scales of their own is brought to one scale before anything is
fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.engine.completion.interpolation import smooth
from htfcli.engine.samples import Entries

# entries of an index: the logarithm of their deviation has a variance of 1 / 20, a twentieth of what is asked for;
# twice as many in tensors and counts
_FEWEST = 10
_MOST = 200  # indices that may be variables


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
    """The mode, if there is one, whose indices are variables on scales of their own.

    A mode is one of variables if the logarithms of the deviations of its indices vary over the entries by a variance of
    one. In a tensor of more than two modes, and among whole numbers, they must vary more than those of |value - mean|
    within an index, which is by pi^2 / 8 for normal values and more for products, as in a tensor of low rank, and
    deviations must differ by the factor `least`: the columns of a matrix of fractions usually are variables, a mode of
    a tensor or counts usually are not. Nor is a mode one of variables of which an index was never seen, if the means
    and deviations of the others are `smooth`: these are rows of an image, or bands of a spectrum. Then every index has
    its own mean and deviation; else all values share their root mean square.
    """
    largest = float(entries.value.abs().max()) or 1.0
    value = entries.value / largest
    rms = largest * float(value.square().mean().sqrt()) or 1.0
    alike = len(dims) > 2 or bool((entries.value == entries.value.round()).all())
    most, best = 1.0, Units(None, value.new_zeros(1), value.new_tensor([rms]))
    for mode, d in enumerate(dims):
        column = entries.index[:, mode].long()
        count = torch.bincount(column, minlength=d)
        seen = torch.nonzero(count).flatten()
        if d > _MOST or len(value) < (2 if alike else 1) * _FEWEST * d or int(count[seen].min()) < 3:
            continue
        parts = torch.split(value[torch.argsort(column, stable=True)], count[seen].tolist())
        mean = torch.stack([part.mean() for part in parts])
        off = [part - middle for part, middle in zip(parts, mean, strict=True)]
        # beyond 15 times the middle of them, ten deviations of normal values, a value counts as that: China among
        # populations
        limit = [15 * (float(part.abs().median()) or math.inf) for part in off]
        deviation = torch.stack([part.clamp(-w, w).square().mean().sqrt() for part, w in zip(off, limit, strict=True)])
        # a few far larger entries change deviations from the mean, and where most entries of an index are equal there
        # is nothing around its median: both must differ (il2: by 17 and 115)
        around = torch.stack([(part - part.median()).abs().median() for part in parts])
        between = min(_variance(deviation, count[seen]), _variance(around, count[seen]))
        varies = deviation > 0
        sizes = [part.abs() / size for part, size in zip(off, deviation, strict=True) if size > 0]
        within = max(float(torch.cat(sizes).clamp_min(1e-3).log().var()), math.pi**2 / 8) if sizes else 0.0
        if between <= most or (alike and (between < within or min(_ratio(deviation), _ratio(around)) < least)):
            continue
        if len(seen) < d and smooth(mean) and smooth(deviation[varies].log()):
            continue
        shift = mean.mean().repeat(d + 1).index_copy(0, seen, mean)
        scale = deviation[varies].median().repeat(d + 1)
        scale[seen[varies]] = deviation[varies]
        most, best = between, Units(mode, shift * largest, scale * largest)
    return best


def _variance(sizes: Tensor, count: Tensor) -> float:
    """Of the logarithms of the sizes (d,) that are not zero, each counted so often (d,)."""
    varies = sizes > 0
    return float(torch.cov(sizes[varies].log(), correction=0, fweights=count[varies])) if int(varies.sum()) > 1 else 0.0


def _ratio(sizes: Tensor) -> float:
    """The largest over the smallest of the sizes (d,) that are not zero."""
    sizes = sizes[sizes > 0]
    return float(sizes.max() / sizes.min()) if len(sizes) else 1.0
