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
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from htfcli.engine.completion.settings import BLOCK
from htfcli.engine.samples import row_keys

if TYPE_CHECKING:
    from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Kernel:
    """How residuals are alike.

    Args:
        modes: one or two ordered modes. lengths: of each, in its positions' units. nugget: over the variance.
        count: K. smooth: whether the kernel is Matern 3/2, else exponential. cross: a mode whose indices are
        correlated, or None. correlation: (d, d) of the cross mode.
    """

    modes: tuple[int, ...]
    lengths: tuple[float, ...]
    nugget: float
    count: int
    smooth: bool = False
    cross: int | None = None
    correlation: Tensor | None = None

    def rho(self, distance: Tensor) -> Tensor:
        if not self.smooth:
            return torch.exp(-distance)
        scaled = math.sqrt(3.0) * distance
        value: Tensor = (1 + scaled) * torch.exp(-scaled)
        return value


@dataclass(frozen=True)
class Interpolation:
    """What something leaves at the observed entries, and how it is interpolated.

    Args:
        kernel: of the residuals. residual: (n,). variance: of the residual.
    """

    kernel: Kernel
    residual: Tensor
    variance: float


class Neighbours:
    """Where the nearest observed entries of an entry are.

    Args:
        index: (n, N) observed. dims: of the tensor. positions: per mode (d,) where its indices lie, None for 0, 1, ...
    """

    def __init__(self, index: Tensor, dims: Sequence[int], positions: Sequence[Tensor | None]) -> None:
        self.index, self._dims = index, tuple(dims)
        self.positions = [
            torch.arange(d, dtype=torch.float64) if p is None else p.double()
            for d, p in zip(dims, positions, strict=True)
        ]
        self._trees: dict[tuple[tuple[int, ...], tuple[float, ...], int | None], cKDTree] = {}

    def step(self, mode: int) -> float:
        """The usual distance of neighbouring indices of a mode."""
        return float(self.positions[mode].diff().median())

    def nearest(self, query: Tensor, kernel: Kernel) -> Tensor:
        """Rows of the nearest observed entries that differ in no mode but the kernel's, (q, K) int64, -1 where
        there are no more. Another index of the cross mode is as far away as half a step at most.
        """
        from scipy.spatial import cKDTree  # takes a fifth of a second, and many data have no ordered mode

        steps = [self.step(m) for m in kernel.modes]
        unit = min(step / length for step, length in zip(steps, kernel.lengths, strict=True))
        units = tuple(round(unit * length, 9) for length in kernel.lengths)  # what is nearest depends on ratios alone
        spans = [
            float(self.positions[m][-1] - self.positions[m][0]) / u for m, u in zip(kernel.modes, units, strict=True)
        ]
        apart = 2 * sum(spans) + 4  # pages, entries that differ in other modes, are too far away to be found
        fixed = [m for m in range(len(self._dims)) if m not in kernel.modes and m != kernel.cross]

        def points(index: Tensor) -> Tensor:
            columns = [self.positions[m][index[:, m].long()] / u for m, u in zip(kernel.modes, units, strict=True)]
            if kernel.cross is not None:
                columns.append(0.5 * index[:, kernel.cross] / max(self._dims[kernel.cross] - 1, 1))
            if fixed:
                columns.append(apart * row_keys(index[:, fixed].long(), [self._dims[m] for m in fixed]))
            return torch.stack(columns, 1)

        key = kernel.modes, units, kernel.cross
        if key not in self._trees:
            self._trees[key] = cKDTree(points(self.index).numpy())
        _, found = self._trees[key].query(points(query).numpy(), kernel.count, distance_upper_bound=apart / 2)
        rows = torch.from_numpy(found).view(len(query), kernel.count)
        return torch.where(rows < len(self.index), rows, -1)

    def alike(self, a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
        """Correlation (q, A, B) of the process at entries a (q, A, N) and b (q, B, N) of one page."""
        square = torch.zeros(len(a), a.shape[1], b.shape[1], dtype=torch.float64)
        for mode, length in zip(kernel.modes, kernel.lengths, strict=True):
            x, y = (self.positions[mode][e[:, :, mode].long()] / length for e in (a, b))
            square += (x.unsqueeze(2) - y.unsqueeze(1)).square_()
        found = kernel.rho(square.sqrt_())
        if kernel.cross is not None and kernel.correlation is not None:
            x, y = (e[:, :, kernel.cross].long() for e in (a, b))
            found *= kernel.correlation[x.unsqueeze(2), y.unsqueeze(1)]
        return found


def krige(neighbours: Neighbours, query: Tensor, kernel: Kernel, residual: Tensor) -> tuple[Tensor, Tensor]:
    """The residual expected at queries, and its variance over that of the process.

    Args:
        neighbours: of the observed entries. query: (q, N). kernel: of the residuals. residual: (n,) of the observed
            entries.
    Returns: (q,) and (q,) in 0..1.
    """
    means, variances = [query.new_empty(0, dtype=torch.float64)], [query.new_empty(0, dtype=torch.float64)]
    for part in torch.split(query, max(1, BLOCK // kernel.count**2)):
        near = neighbours.nearest(part, kernel)
        there, near = near >= 0, near.clamp(min=0)
        known = neighbours.index[near]
        among = neighbours.alike(known, known, kernel)
        to = neighbours.alike(known, part.unsqueeze(1), kernel)[:, :, 0]
        among.masked_fill_(~(there.unsqueeze(2) & there.unsqueeze(1)), 0.0)
        among.diagonal(dim1=1, dim2=2).add_(torch.where(there, kernel.nugget + 1e-6, 1.0))
        both = torch.where(there.unsqueeze(2), torch.stack([to, residual[near]], 2), 0.0)
        half = torch.linalg.solve_triangular(torch.linalg.cholesky_ex(among).L, both, upper=False)
        means.append((half[:, :, 0] * half[:, :, 1]).sum(1))
        variances.append((1 - half[:, :, 0].square().sum(1)).clamp(0.0, 1.0))
    return torch.cat(means), torch.cat(variances)


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


def smooth(values: Tensor) -> bool:
    """Whether numbers (n,) differ less from one to the next than they would in another order.

    Von Neumann's ratio, the mean squared difference of neighbours over twice the variance, is one in a random order,
    with a deviation of sqrt((n - 2) / (n^2 - 1)); one order in 160 lies 2.5 of them below. (Annals of Mathematical
    Statistics 12, 367, 1941.)
    """
    n = len(values)
    if n < 3:
        return False
    near, all_pairs = float(values.diff().square().mean()), 2 * float(values.var())
    return near < (1 - 2.5 * math.sqrt((n - 2) / (n * n - 1))) * all_pairs


def cross_mode(
    index: Tensor, residual: Tensor, dims: Sequence[int], modes: Sequence[int]
) -> tuple[int | None, Tensor | None]:
    """The one of some modes whose indices leave the most alike (n,) at the same place, and their correlation (d, d),
    shrunk by ten pairs of none; None where they leave next to nothing alike.
    """
    found: tuple[int | None, Tensor | None] = (None, None)
    best = 0.05  # mean squared correlation: kriging with less gains less than a hundredth
    for mode in (m for m in modes if 1 < dims[m] <= 50):  # of more, each pair has few places in common
        d, others = dims[mode], [m for m in range(len(dims)) if m != mode]
        of = torch.unique(row_keys(index[:, others], [dims[m] for m in others]), return_inverse=True)[1]
        table, there = torch.zeros(2, int(of.max()) + 1, d, dtype=torch.float64)
        table[of, index[:, mode].long()], there[of, index[:, mode].long()] = residual, 1.0
        size, pairs = table.square().t() @ there, there.t() @ there
        correlation = table.t() @ table / (size * size.t()).sqrt().clamp_min(1e-300) * (pairs / (pairs + 10))
        alike = float((correlation.fill_diagonal_(0.0)).square().sum() / (d * (d - 1)))
        if alike > best:
            values, vectors = torch.linalg.eigh(correlation.fill_diagonal_(1.0))  # of pairs, so it may be indefinite
            repaired = (vectors * values.clamp_min(1e-3)) @ vectors.t()
            scale = repaired.diagonal().rsqrt()
            best, found = alike, (mode, repaired * scale.unsqueeze(1) * scale)
    return found


def choose_kernel(
    neighbours: Neighbours, residual: Tensor, query: Tensor, wanted: Tensor, kinds: Tensor, start: Kernel
) -> tuple[Kernel, float]:
    """The kernel that predicts held-out residuals best, by a walk over lengths, nuggets and smoothness.

    Args:
        residual: (n,) of the observed entries. query: (q, N) held out. wanted: (q,) their residuals. kinds: (q,) of
            holes; every kind counts alike. start: where to begin.
    Returns: the kernel, and its error over that without interpolation (geometric mean over the kinds).
    """

    def errors(left: Tensor) -> Tensor:
        square = torch.stack([left[kinds == k].square().mean() for k in torch.unique(kinds)])
        return square.clamp_min(1e-300).sqrt()

    without = errors(wanted)

    def score(kernel: Kernel) -> float:
        left = wanted - krige(neighbours, query, kernel, residual)[0]
        return float((errors(left) / without).log().mean().exp())

    def longer(kernel: Kernel, *factors: float) -> Kernel:
        return replace(kernel, lengths=tuple(v * f for v, f in zip(kernel.lengths, factors, strict=False)))

    moves: list[Callable[[Kernel], Kernel]] = [
        lambda k: longer(k, 3.0, 3.0),
        lambda k: longer(k, 1 / 3, 1 / 3),
        lambda k: replace(k, nugget=k.nugget * 4),
        lambda k: replace(k, nugget=k.nugget / 4),
        lambda k: replace(k, smooth=not k.smooth),
    ]
    if len(start.modes) == 2:
        moves += [lambda k: longer(k, 2.0, 1.0), lambda k: longer(k, 1.0, 2.0)]
    if start.cross is not None:
        moves.append(lambda k: replace(k, cross=start.cross if k.cross is None else None))
    best, lowest = start, score(start)
    for _ in range(4):
        before = lowest
        for move in moves:
            error = lowest
            while error <= lowest and 1e-4 < (trial := move(best)).nugget < 100:
                error = score(trial)
                if error < 0.998 * lowest:
                    best, lowest = trial, error
                else:
                    break
        if lowest == before:
            break
    return best, lowest
