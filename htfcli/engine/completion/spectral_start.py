"""A start from the spectra of a sparse tensor: leaf subspaces, the small core in them, and a model fitted to that.

Two observed entries that differ in mode k alone multiply to an unbiased sample of an entry of the Gram matrix of the
mode-k matricization. All such pairs, its diagonal left out, where noise does not average out, have top eigenvectors
close to the span of mode k's vectors as soon as there are some more pairs than the mode has indices: with d^(N/2)
entries of a tensor of order N, far fewer than it takes a random start to be drawn to a solution (Montanari & Sun 2018;
Cai, Li, Poor & Chen 2019). The core of the tensor in these subspaces is a small least-squares problem, and a model of
any mode tree fitted to the core is, its leaves multiplied by the subspaces, a model of the tensor.

Axes: `n` entries, `d` mode dimension, `K` dimension of a subspace, `P` numbers of the core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares.conjugate_gradients import conjugate_gradients
from htfcli.engine.least_squares.levenberg_marquardt import LevenbergMarquardt
from htfcli.engine.runtime.device import one_thread
from htfcli.engine.samples import Entries, row_keys, unravel

_MOST_PAIRED = 4_000_000  # entries that are paired; pairs grow as the square
_MOST_SHIFTS = 32  # pairs of an entry, so that data that are nearly dense cost no more than sparse ones
_DENSE_GRAM = 3000  # indices up to which a Gram matrix is written out
_ALL_VALUES = 300  # up to which all its eigenvalues are found, which takes a sixth of a second there and 2 s at 2000
_POWER_STEPS = 30
_CLIP = 4.0  # times the median size, to which values are cut off before they are paired
_ABOVE_NOISE = 1.15  # times the most negative eigenvalue, above which one is taken for signal
_MOST_CORE = 2048  # numbers of a core
_LEAST_CORE = 8  # of each mode where nothing stands out: the first directions of the noise have some signal in them
_PER_NUMBER = 100  # entries for each number of the core, and at least:
_LEAST_FOR_CORE = 100_000
_CORE_BLOCK = 2**22  # numbers of a temporary
_SOLVES = 30  # of conjugate gradients for the core
_CORE_GOAL = 1e-10  # of the squared residual
_CORE_RIDGE = 1e-3  # over the mean diagonal of its normal equations
_STARTS = 2  # of the small fit, the best of which counts
_STEPS = 30
_SMALL_RIDGE = 1e-6  # of the small fit, over the sum of squares of the core


@dataclass(frozen=True)
class Subspace:
    """The leading eigenvectors of a mode's Gram matrix as sampled.

    Args:
        basis: (d, K) orthonormal. eigenvalues: (K,) of the sampled matrix, falling. noise: the size that eigenvalues
            reach without any signal. pairs: number of pairs of entries it was sampled by.
    """

    basis: Tensor
    eigenvalues: Tensor
    noise: float
    pairs: int

    @property
    def rank(self) -> int:
        """How many eigenvalues stand out of the noise."""
        return int((self.eigenvalues > _ABOVE_NOISE * self.noise).sum())


def sampled_gram(entries: Entries, dims: Sequence[int], mode: int) -> tuple[Tensor, Tensor]:
    """Pairs of entries that differ in one mode alone, as a sparse symmetric matrix without diagonal.

    Args:
        entries: n of them. dims: of the tensor. mode: k.
    Returns: sum over pairs (i ..., j ...) of value_i value_j at [i, j] and at [j, i], a coalesced sparse (d, d); and
        the number of pairs that each index is part of, (d,). An entry is paired with the next `_MOST_SHIFTS` at most.
    """
    d = dims[mode]
    others = [m for m in range(len(dims)) if m != mode]
    key, order = torch.sort(row_keys(entries.index[:, others], [dims[m] for m in others]))
    row, value = entries.index[:, mode].long()[order], entries.value[order]
    cells, products = [], []
    for shift in range(1, _MOST_SHIFTS + 1):
        same = torch.nonzero(key[shift:] == key[:-shift]).flatten()
        if len(same) == 0:
            break
        a, b = row[same], row[same + shift]
        cells.append(torch.cat([a * d + b, b * d + a]))
        products.append((value[same] * value[same + shift]).repeat(2))
    cell = torch.cat(cells) if cells else row.new_empty(0)
    product = torch.cat(products) if products else value.new_empty(0)
    place = torch.stack([cell // d, cell % d])
    counts = torch.bincount(place[0], minlength=d).to(value.dtype)
    return torch.sparse_coo_tensor(place, product, (d, d), check_invariants=False).coalesce(), counts


def leaf_subspace(entries: Entries, dims: Sequence[int], mode: int, most: int, generator: torch.Generator) -> Subspace:
    """The span of a mode's vectors, as far as pairs of entries show it.

    Products of pairs are the square of heavy tails, and a few of them would be the leading eigenvectors; so values are
    cut off first, which turns the subspaces little. Indices are weighted by one over the root of their number of pairs,
    so that those observed often do not drown the others; for the basis the weights are taken back.

    Args:
        entries, dims, mode: see `sampled_gram`. most: K. generator: for the power iteration of large modes.
    """
    gram, counts = sampled_gram(Entries(entries.index, _cut_off(entries.value)), dims, mode)
    d = dims[mode]
    most = min(most, d)
    weight = torch.where(counts > 0, counts.clamp_min(1).rsqrt(), 0.0)
    rows, columns = gram.indices()
    gram = torch.sparse_coo_tensor(
        gram.indices(), gram.values() * weight[rows] * weight[columns], (d, d), check_invariants=False
    )
    if d <= _ALL_VALUES:
        values, vectors = torch.linalg.eigh(gram.to_dense().double())  # nearly empty ones fail in float32
        noise = max(-float(values[0]), 0.0)
        values, vectors = values.flip(0)[:most], vectors.flip(1)[:, :most]
    else:
        matrix = gram.to_dense() if d <= _DENSE_GRAM else gram.coalesce().to_sparse_csr()
        values, vectors, noise = _extreme(matrix.double(), most, generator)
    typical = counts.sum() / max(d, 1)
    basis = vectors * (counts + 0.1 * typical + 1e-30).rsqrt().unsqueeze(1)
    return Subspace(torch.linalg.qr(basis).Q, values.contiguous(), noise, int(counts.sum()) // 2)


def _cut_off(value: Tensor) -> Tensor:
    size = value.abs()
    limit = _CLIP * (float(size.median()) or float(value.square().mean().sqrt()))
    return value.clamp(-limit, limit)


def _extreme(matrix: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Largest eigenvalues, their vectors, and minus the smallest one of a symmetric matrix (d, d), dense or sparse.

    Powers of the matrix applied to a random block (its spectrum is nearly symmetric, so the block must hold twice as
    many vectors as are wanted).
    """
    block = torch.randn(matrix.shape[0], 2 * most + 8, generator=generator, dtype=torch.float64)
    vectors = torch.linalg.qr(block.to(matrix.dtype)).Q
    for _ in range(_POWER_STEPS):
        vectors = torch.linalg.qr(matrix @ vectors).Q
    values, rotation = torch.linalg.eigh(vectors.t() @ (matrix @ vectors))
    chosen = values.argsort(descending=True)[:most]
    return values[chosen], vectors @ rotation[:, chosen], max(-float(values[0]), 0.0)


Widths = int | Sequence[int] | Mapping[str, int]


class SpectralStart:
    """Models to begin a fit with, of any mode tree and width.

    Args:
        entries: observed, values of root mean square about one. dims: of the tensor.
        generator: for samples and the starts of small fits. most: dimension of a subspace at most.

    Attributes:
        subspaces: one per mode. core: (K_0, ..., K_{N-1}) of the tensor in them; all zeros where nothing stood out.
    """

    def __init__(self, entries: Entries, dims: Sequence[int], generator: torch.Generator, most: int = 16) -> None:
        self.dims, self._generator = tuple(dims), generator
        part = some(entries, _MOST_PAIRED, generator)
        self.subspaces = [leaf_subspace(part, dims, mode, most, generator) for mode in range(len(dims))]
        least = 1 if self.found else _LEAST_CORE
        sizes = core_sizes([max(s.rank + 2, least) for s in self.subspaces], [s.basis.shape[1] for s in self.subspaces])
        self.bases = [s.basis[:, :size].contiguous() for s, size in zip(self.subspaces, sizes, strict=True)]
        enough = max(_LEAST_FOR_CORE, _PER_NUMBER * math.prod(sizes))
        self.core = core_of(some(entries, enough, generator), self.bases)

    @property
    def found(self) -> bool:
        """Whether every mode shows something that stands out of the noise."""
        return min(s.rank for s in self.subspaces) > 0

    @one_thread()
    def fit_core(self, tree: ModeTree, widths: Widths) -> tuple[Factorization, float]:
        """The core as a factorization of this tree and these widths, and its relative error; the best of a few starts.

        On the CPU, in float64.
        """
        core = self.core.double().cpu()
        index = unravel(torch.arange(core.numel()), core.shape)
        size = float(core.square().mean().sqrt()) or 1.0
        whole = Entries(index, core.flatten() / size)
        best, lowest = None, math.inf
        for _ in range(_STARTS):
            model = HierarchicalTensorFactorization(core.shape, widths, tree)
            model.init_gaussian(model.gaussian_std(1.0), self._generator)
            solver = LevenbergMarquardt(model, whole, _SMALL_RIDGE * len(whole))
            solver.run(_STEPS, slow=1e-2, patience=3)
            if best is None or solver.loss < lowest:
                best, lowest = model, solver.loss
        assert best is not None
        return best.scale(size), math.sqrt(lowest / len(whole))

    def lifted(self, small: Factorization) -> Factorization:
        """The tensor whose core in the subspaces is `small`, in the dtype and on the device of the observed entries."""
        like, tree = self.bases[0], small.tree
        model = type(small).blank(self.dims, tree, small.widths).to(like.dtype, like.device)
        for node, (large, little) in enumerate(zip(model.node_weights, small.node_weights, strict=True)):
            assert large is not None and little is not None
            weight = little.to(like)
            large.copy_(self.bases[node] @ weight if node < tree.order else weight)
        return model


def core_sizes(wanted: Sequence[int], available: Sequence[int], most: int = _MOST_CORE) -> list[int]:
    """Dimensions of a core: those that are wanted and there, less of the largest while they are too many."""
    sizes = [min(size, k) for size, k in zip(wanted, available, strict=True)]
    while math.prod(sizes) > most:
        sizes[sizes.index(max(sizes))] -= 1
    return sizes


def core_of(entries: Entries, bases: Sequence[Tensor]) -> Tensor:
    """The core C that minimizes the sum over entries of (value - <C, u_0[i_0] (x) u_1[i_1] (x) ...>)^2 + ridge |C|^2.

    Args:
        entries: n of them. bases: per mode u_k (d_k, K_k).
    Returns: (K_0, ..., K_{N-1}); by conjugate gradients, whose matrix is near a multiple of the identity where the
        subspaces are spread over the indices.
    """
    sizes = [basis.shape[1] for basis in bases]
    count = math.prod(sizes)
    block = max(64, _CORE_BLOCK // count)

    parts = [slice(start, min(start + block, len(entries))) for start in range(0, len(entries), block)]

    def rows(part: slice) -> Tensor:
        """(b, P): products of the entries' basis vectors."""
        found = bases[0][entries.index[part, 0].long()]
        for mode in range(1, len(bases)):
            other = bases[mode][entries.index[part, mode].long()]
            found = (found.unsqueeze(2) * other.unsqueeze(1)).flatten(1)
        return found

    target, diagonal = bases[0].new_zeros(count), bases[0].new_zeros(count)
    for part in parts:
        jacobian = rows(part)
        target.addmv_(jacobian.t(), entries.value[part])
        diagonal.add_(jacobian.square().sum(0))
    shift = _CORE_RIDGE * float(diagonal.mean())
    inverse = (diagonal + shift + 1e-30).reciprocal()

    def product(direction: Tensor) -> Tensor:
        image = direction * shift
        for part in parts:
            jacobian = rows(part)
            image.addmv_(jacobian.t(), jacobian @ direction)
        return image

    solution = conjugate_gradients(
        product, target, lambda residual: inverse * residual, iterations=_SOLVES, goal=_CORE_GOAL
    )
    return solution.view(sizes)


def some(entries: Entries, most: int, generator: torch.Generator) -> Entries:
    """About so many of the entries at most, drawn at random."""
    if len(entries) <= most:
        return entries
    rows = torch.unique(torch.randint(len(entries), (most,), generator=generator))
    return entries.select(rows.to(entries.value.device))
