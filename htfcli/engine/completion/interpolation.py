"""What a model leaves, interpolated along ordered modes: simple kriging from the nearest observed entries.

The residual is taken for a Gaussian process with covariance variance * (rho(distance) * c[i, j] + nugget * [same
entry]): rho a Matern kernel of smoothness 1/2 or 3/2 of the distance along one or two ordered modes, each in units of
a length; i, j the indices of a cross mode (the colours of a photo, the variables of a table), c their correlation;
entries that differ in any other mode are uncorrelated. The `K` nearest observed entries of each query decide it.
(Cressie, Statistics for Spatial Data, 1993, chapter 3.)

Axes: `q` queries, `K` neighbours, `N` modes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from htfcli.engine.samples import row_keys

_BLOCK = 2**21  # numbers of a temporary
_WHOLE = 128  # observations of a page up to which all of them decide: one factorization, not one for each query


@dataclass(frozen=True)
class Kernel:
    """How residuals are alike.

    Args:
        modes: one or two ordered modes. lengths: of each, in its positions' units. nugget: over the variance.
        smooth: whether the kernel is Matern 3/2, else exponential. cross: a mode whose indices are correlated, or None.
        correlation: (d, d) of the cross mode.
    """

    modes: tuple[int, ...]
    lengths: tuple[float, ...]
    nugget: float
    smooth: bool = False
    cross: int | None = None
    correlation: Tensor | None = None

    def rho(self, distance: Tensor) -> Tensor:
        if not self.smooth:
            return torch.exp(-distance)
        scaled = math.sqrt(3.0) * distance
        value: Tensor = (1 + scaled) * torch.exp(-scaled)
        return value


def step_of(position: Tensor | None) -> float:
    """The usual distance of neighbouring indices at positions (d,); one where they have none."""
    return 1.0 if position is None or len(position) < 2 else float((position[1:] - position[:-1]).median())


class Neighbours:
    """Where the nearest observed entries of an entry are.

    Args:
        index: (n, N) observed. dims: of the tensor, few enough cells for a table of them all.
        positions: per mode (d,) where its indices lie, used for ordered ones.
    """

    def __init__(self, index: Tensor, dims: Sequence[int], positions: Sequence[Tensor | None]) -> None:
        self.index, self.dims, self.positions = index, tuple(dims), positions
        self._pages: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self._place = torch.full((math.prod(dims),), -1, dtype=torch.int32)
        self._place[row_keys(index, dims)] = torch.arange(len(index), dtype=torch.int32)

    def nearest(self, query: Tensor, kernel: Kernel, count: int) -> Tensor:
        """Rows of the nearest observed entries, (q, count) int64, -1 where there are no more.

        Args:
            query: (q, N). kernel: says which modes and what is near. count: K.
        """
        offsets = self._offsets(kernel)
        found = torch.full((len(query), count), -1, dtype=torch.int64)
        filled = torch.zeros(len(query), dtype=torch.int64)
        strides = [math.prod(self.dims[m + 1 :]) for m in range(len(self.dims))]
        base = query.long() @ torch.tensor(strides)
        active = torch.arange(len(query))
        step = max(8, min(64, _BLOCK // max(len(query), 1)))
        modes = [*kernel.modes, *([] if kernel.cross is None else [kernel.cross])]
        limits = torch.tensor([self.dims[m] for m in modes])
        jumps = torch.tensor([strides[m] for m in modes])
        for part in torch.split(offsets, step):
            if len(active) == 0:
                break
            at = query[active][:, modes].long().unsqueeze(1) + part.unsqueeze(0)  # (active, step, modes)
            inside = ((at >= 0) & (at < limits)).all(2)
            cell = base[active].unsqueeze(1) + (part @ jumps).unsqueeze(0)
            row = torch.where(inside, self._place[torch.where(inside, cell, 0)].long(), -1)
            there = row >= 0
            slot = filled[active].unsqueeze(1) + there.long().cumsum(1) - 1
            use = there & (slot < count)
            which = active.unsqueeze(1).expand_as(row)[use]
            found[which, slot[use]] = row[use]
            filled[active] += there.long().sum(1)
            active = active[filled[active] < count]
        return found

    def pages(self, kernel: Kernel, query: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows by page, where each begins and how many it has, and the page of every query (q, N), -1 for none."""
        fixed = [m for m in range(len(self.dims)) if m not in kernel.modes and m != kernel.cross]
        if tuple(fixed) not in self._pages:
            key = self._key(self.index, fixed)
            order = torch.argsort(key, stable=True)
            names, sizes = torch.unique_consecutive(key[order], return_counts=True)
            self._pages[tuple(fixed)] = names, order, sizes.cumsum(0) - sizes, sizes
        names, order, first, sizes = self._pages[tuple(fixed)]
        key = self._key(query, fixed)
        at = torch.searchsorted(names, key).clamp_(max=len(names) - 1)
        return order, first, sizes, torch.where(names[at] == key, at, -1)

    def _key(self, index: Tensor, fixed: list[int]) -> Tensor:
        if not fixed:
            return torch.zeros(len(index), dtype=torch.int64)
        return row_keys(index[:, fixed].long(), [self.dims[m] for m in fixed])

    def alike(self, a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
        """Correlation (p, A, B) of the process at entries a (p, A, N) and b (p, B, N) of one page."""
        square = torch.zeros(len(a), a.shape[1], b.shape[1], dtype=torch.float64)
        for mode, length in zip(kernel.modes, kernel.lengths, strict=True):
            position = self.positions[mode]
            x, y = a[:, :, mode].long(), b[:, :, mode].long()
            if position is not None:
                x, y = position[x], position[y]
            square += ((x.unsqueeze(2) - y.unsqueeze(1)).double() / length).square_()
        found = kernel.rho(square.sqrt_())
        if kernel.cross is not None and kernel.correlation is not None:
            x, y = a[:, :, kernel.cross].long(), b[:, :, kernel.cross].long()
            found *= kernel.correlation[x.unsqueeze(2), y.unsqueeze(1)]
        return found

    def _offsets(self, kernel: Kernel) -> Tensor:
        """Steps along the modes, near ones first, (m, modes)."""
        spans, scales = [], []
        budget = 3000 if len(kernel.modes) == 1 else 60
        for mode, length in zip(kernel.modes, kernel.lengths, strict=True):
            reach = min(self.dims[mode] - 1, budget if len(kernel.modes) == 1 else budget // 2)
            spans.append(torch.arange(-reach, reach + 1))
            scales.append(step_of(self.positions[mode]) / length)
        if kernel.cross is not None:
            reach = self.dims[kernel.cross] - 1
            spans.append(torch.arange(-reach, reach + 1))
        grid = torch.cartesian_prod(*spans).view(-1, len(spans))
        distance = torch.zeros(len(grid))
        for place, scale in enumerate(scales):
            distance += (grid[:, place].float() * scale).square()
        distance = distance.sqrt()
        if kernel.cross is not None:
            distance += 0.5 * min(scales) * (grid[:, -1] != 0)
        return grid[torch.argsort(distance, stable=True)[:6000]]


def krige(neighbours: Neighbours, query: Tensor, kernel: Kernel, residual: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The residual expected at queries, and its variance over that of the process.

    A page, the entries that agree in all modes but the kernel's, that has few observations is solved as a whole, once
    for all its queries; in a larger one, the nearest observations of each query decide.

    Args:
        neighbours: of the observed entries. query: (q, N). kernel: of the residuals. residual: (n,) of the observed
            entries. count: nearest observations of a query.
    Returns: (q,) and (q,) in 0..1.
    """
    mean, variance = torch.zeros(len(query), dtype=torch.float64), torch.ones(len(query), dtype=torch.float64)
    order, first, sizes, page = neighbours.pages(kernel, query)
    size = torch.where(page >= 0, sizes[page], 0)
    far = torch.nonzero(size > _WHOLE).flatten()
    if len(far):
        rows = neighbours.nearest(query[far], kernel, count)
        for part in torch.split(torch.arange(len(far)), max(1, _BLOCK // (count * count))):
            found = _solved(neighbours, rows[part], query[far[part]].unsqueeze(1), kernel, residual)
            mean[far[part]], variance[far[part]] = found[0][:, 0], found[1][:, 0]
    few = torch.nonzero((size > 0) & (size <= _WHOLE)).flatten()
    few = few[torch.argsort(page[few], stable=True)]
    names, asked = torch.unique_consecutive(page[few], return_counts=True)
    start = asked.cumsum(0) - asked
    by_size, at = torch.argsort(sizes[names], descending=True, stable=True), 0
    while at < len(by_size):  # pages of about the same size at a time, padded
        long, wide = int(sizes[names[by_size[at]]]), int(asked.max())
        chosen = by_size[at : at + max(1, _BLOCK // (long * (long + wide)))]
        wide = int(asked[chosen].max())
        slots, places = torch.arange(long), torch.arange(wide)
        inside = slots < sizes[names[chosen]].unsqueeze(1)
        rows = torch.where(inside, order[(first[names[chosen]].unsqueeze(1) + slots).clamp_(max=len(order) - 1)], -1)
        wanted = places < asked[chosen].unsqueeze(1)
        queries = few[(start[chosen].unsqueeze(1) + places).clamp_(max=len(few) - 1)]
        found = _solved(neighbours, rows, query[queries], kernel, residual)
        mean[queries[wanted]], variance[queries[wanted]] = found[0][wanted], found[1][wanted]
        at += len(chosen)
    return mean, variance


def _solved(
    neighbours: Neighbours, near: Tensor, query: Tensor, kernel: Kernel, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """Kriging of queries (b, Q, N) from rows near (b, L), -1 for none: mean and variance, (b, Q)."""
    there = near >= 0
    near = near.clamp(min=0)
    known = neighbours.index[near]
    among = neighbours.alike(known, known, kernel)
    to = neighbours.alike(known, query, kernel)
    among.masked_fill_(~(there.unsqueeze(2) & there.unsqueeze(1)), 0.0)
    to.masked_fill_(~there.unsqueeze(2), 0.0)
    among.diagonal(dim1=1, dim2=2).add_(torch.where(there, kernel.nugget + 1e-6, 1.0))
    factor = torch.linalg.cholesky_ex(among).L
    both = torch.cat([to, torch.where(there, residual[near], 0.0).unsqueeze(2)], 2)
    half = torch.linalg.solve_triangular(factor, both, upper=False)
    mean = (half[:, :, :-1] * half[:, :, -1:]).sum(1)
    return mean, (1 - half[:, :, :-1].square().sum(1)).clamp(0.0, 1.0)


def likeness(index: Tensor, residual: Tensor, dims: Sequence[int], mode: int) -> float:
    """Mean squared difference of residuals (n,) one step apart along a mode, over that of all pairs in one fibre: well
    under one where the order of the indices means something; 1 where there are too few pairs to say.
    """
    others = [m for m in range(len(dims)) if m != mode]
    key = row_keys(index[:, others], [dims[m] for m in others])
    order = torch.argsort(
        row_keys(
            torch.stack([torch.unique(key, return_inverse=True)[1], index[:, mode].long()], 1), [len(key), dims[mode]]
        )
    )
    key, at, value = key[order], index[order, mode], residual[order]
    beside = (key[1:] == key[:-1]) & (at[1:] - at[:-1] == 1)
    if int(beside.sum()) < 50:
        return 1.0
    near = float((value[1:] - value[:-1])[beside].square().mean())
    names, of = torch.unique(key, return_inverse=True)
    count = torch.bincount(of).double()
    mean = torch.zeros(len(names), dtype=torch.float64).index_add_(0, of, value) / count
    deviation = (value - mean[of]).square()
    variance = torch.zeros(len(names), dtype=torch.float64).index_add_(0, of, deviation)
    many = count > 1
    # 2 * variance of a fibre is the mean squared difference of its pairs; fibres count by their neighbouring pairs
    pairs = torch.zeros(len(names), dtype=torch.float64).index_add_(0, of[1:], beside.double())
    far = float((pairs[many] * 2 * variance[many] / (count[many] - 1)).sum() / pairs[many].sum().clamp_min(1))
    return near / far if far > 0 else 1.0


def cross_correlation(index: Tensor, residual: Tensor, dims: Sequence[int], mode: int) -> Tensor:
    """Correlation of the residuals of two indices of a mode at the same place, (d, d), shrunk by 10 pairs of none."""
    d = dims[mode]
    others = [m for m in range(len(dims)) if m != mode]
    key = row_keys(index[:, others], [dims[m] for m in others])
    names, of = torch.unique(key, return_inverse=True)
    table = torch.zeros(len(names), d, dtype=torch.float64)
    there = torch.zeros(len(names), d, dtype=torch.float64)
    table[of, index[:, mode].long()] = residual
    there[of, index[:, mode].long()] = 1.0
    product = table.t() @ table
    size = table.square().t() @ there
    pairs = there.t() @ there
    correlation = product / (size * size.t()).sqrt().clamp_min(1e-300) * (pairs / (pairs + 10))
    correlation.fill_diagonal_(1.0)
    values, vectors = torch.linalg.eigh(correlation)
    repaired = (vectors * values.clamp_min(1e-3)) @ vectors.t()
    scale = repaired.diagonal().rsqrt()
    found: Tensor = repaired * scale.unsqueeze(1) * scale
    return found


def choose_kernel(
    neighbours: Neighbours,
    residual: Tensor,
    query: Tensor,
    wanted: Tensor,
    kinds: Tensor,
    start: Kernel,
    count: int,
) -> tuple[Kernel, float]:
    """The kernel that predicts held-out residuals best, by a walk over lengths, nuggets and smoothness.

    Args:
        residual: (n,) of the observed entries. query: (q, N) held out. wanted: (q,) their residuals. kinds: (q,) of
            holes; every kind counts alike. start: where to begin. count: K.
    Returns: the kernel, and its error over that without interpolation (geometric mean over the kinds).
    """
    base = _errors(wanted, kinds)

    def score(kernel: Kernel) -> float:
        mean, _ = krige(neighbours, query, kernel, residual, count)
        return float((_errors(wanted - mean, kinds) / base).log().mean().exp())

    best, lowest = start, score(start)
    moves: list[Callable[[Kernel], Kernel]] = [
        lambda k: replace(k, lengths=tuple(3.0 * v for v in k.lengths)),
        lambda k: replace(k, lengths=tuple(v / 3.0 for v in k.lengths)),
        lambda k: replace(k, nugget=k.nugget * 4),
        lambda k: replace(k, nugget=k.nugget / 4),
        lambda k: replace(k, smooth=not k.smooth),
    ]
    if len(start.modes) == 2:
        moves += [
            lambda k: replace(k, lengths=(k.lengths[0] * 2, k.lengths[1])),
            lambda k: replace(k, lengths=(k.lengths[0], k.lengths[1] * 2)),
        ]
    if start.cross is not None:
        moves.append(lambda k: replace(k, cross=start.cross if k.cross is None else None))
    for _ in range(4):
        improved = False
        for move in moves:
            for _ in range(3):
                trial = move(best)
                if not 1e-4 < trial.nugget < 100:
                    break
                error = score(trial)
                if error > 0.998 * lowest:
                    break
                best, lowest, improved = trial, error, True
        if not improved:
            break
    return best, lowest


def _errors(residual: Tensor, kinds: Tensor) -> Tensor:
    """Root mean square of every kind that is there."""
    present = torch.unique(kinds)
    return torch.stack([residual[kinds == k].square().mean().sqrt().clamp_min(1e-300) for k in present])
