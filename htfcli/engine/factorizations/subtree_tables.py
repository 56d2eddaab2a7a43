"""Subtree tables and the steps between them: each step computes one table from others, forwards and backwards.

A step reads its inputs' values and writes its output's; backwards it reads the output's gradient and writes the
inputs'. Every table is used by exactly one step, so gradients are written, never added up. Buffers are allocated once.

Axes: `n` observations, `rows` of a table, `R` width of a node, `d` mode dimension. Several factorizations of one shape
are evaluated as one batch by a leading axis of runs (observations (runs, n), tables (runs, rows, R)); grids only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

# A grid computes rows that are not needed, but without gather and scatter: measured on CPU, a row of a grid costs about
# half as much as one that is gathered.
_GRID_EXCESS = 2
_CHUNK = 2**20  # pairs gathered at a time on CUDA, so that their rows stay small


@dataclass
class Table:
    """Rows of a node (or of a partial product) and the gradient with respect to them.

    Args:
        value: (rows, R). grad: the same shape; empty if no gradient is needed.
        row: (n,) row that each observation uses; None in a dense evaluation, which needs all combinations.
        modes: modes whose row-major grid the rows enumerate; None if rows are occurring pairs, or observations.
        is_observations: whether the rows are the observations themselves, in order.
    """

    value: Tensor
    grad: Tensor
    row: Tensor | None
    modes: tuple[int, ...] | None
    is_observations: bool = False

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.value.shape[-2]

    @property
    def runs(self) -> torch.Size:
        """(runs,) for a batch, else ()."""
        return self.value.shape[:-2]

    @property
    def product(self) -> Callable[..., Tensor]:
        """The matrix product: of a batch, or of single matrices."""
        return torch.bmm if self.runs else torch.mm

    def buffer(self, *shape: int) -> tuple[Tensor, Tensor]:
        """Buffers for a result computed from this table, and for its gradient if this table has one."""
        value = self.value.new_empty(*self.runs, *shape)
        return value, torch.empty_like(value) if self.grad.numel() else value.new_empty(0)


def grid_of(a: Table, b: Table) -> tuple[Tensor | None, tuple[int, ...] | None]:
    """Row of each observation, and modes, of the grid of all pairs of rows."""
    row = None if a.row is None or b.row is None else a.row * b.rows + b.row
    modes = None if a.modes is None or b.modes is None else a.modes + b.modes
    return row, modes


class Step(Protocol):
    """Reads the values of its inputs and writes those of its output; backwards, the same with gradients."""

    def forward(self) -> None: ...

    def backward(self) -> None: ...


class Observe(Protocol):
    """The last step: from the root to the values at the sample (n,), and back from their gradient."""

    def forward(self) -> Tensor: ...

    def backward(self, upstream: Tensor) -> None: ...


class Mix:
    """E = P @ W, with W and its gradient `grad` (R, R_parent); `grad` is None if no gradient is needed."""

    def __init__(self, product: Table, weight: Tensor, grad: Tensor | None) -> None:
        self.product, self.weight, self.grad = product, weight, grad
        self._mm = product.product
        value = product.value.new_empty(*product.runs, product.rows, weight.shape[-1])
        out_grad = value.new_empty(0) if grad is None else torch.empty_like(value)
        self.out = Table(value, out_grad, product.row, product.modes, product.is_observations)

    def forward(self) -> None:
        self._mm(self.product.value, self.weight, out=self.out.value)

    def backward(self) -> None:
        self._mm(self.product.value.mT, self.out.grad, out=self.grad)
        if self.product.grad.numel():
            self._mm(self.out.grad, self.weight.mT, out=self.product.grad)


class Spread:
    """Columns repeated for all combinations with other components: E[:, c] -> (rows, outer, R, inner), flattened."""

    def __init__(self, table: Table, outer: int, inner: int) -> None:
        self.table = table
        rows, width = table.value.shape[-2:]
        value, grad = table.buffer(rows, outer, width, inner)
        self._value, self._grad = value, grad
        flat_grad = grad.flatten(-3) if grad.numel() else grad
        self.out = Table(value.flatten(-3), flat_grad, table.row, table.modes, table.is_observations)

    def forward(self) -> None:
        self._value.copy_(self.table.value.unsqueeze(-2).unsqueeze(-1))

    def backward(self) -> None:
        torch.sum(self._grad, (-3, -1), out=self.table.grad)


class Aligned:
    """P = E_a * E_b, where row i of both belongs to observation i."""

    def __init__(self, a: Table, b: Table) -> None:
        self.a, self.b = a, b
        self.out = Table(*a.buffer(*a.value.shape[-2:]), a.row, None, True)

    def forward(self) -> None:
        torch.mul(self.a.value, self.b.value, out=self.out.value)

    def backward(self) -> None:
        torch.mul(self.out.grad, self.b.value, out=self.a.grad)
        torch.mul(self.out.grad, self.a.value, out=self.b.grad)


class Grid:
    """P[(i, j), :] = E_a[i, :] * E_b[j, :] for every i and j."""

    def __init__(self, a: Table, b: Table) -> None:
        self.a, self.b = a, b
        value, grad = a.buffer(a.rows, b.rows, a.value.shape[-1])
        self._shape = value.shape
        self.out = Table(value.flatten(-3, -2), grad.flatten(-3, -2) if grad.numel() else grad, *grid_of(a, b))
        self._scratch = torch.empty_like(grad)

    def forward(self) -> None:
        torch.mul(self.a.value.unsqueeze(-2), self.b.value.unsqueeze(-3), out=self.out.value.view(self._shape))

    def backward(self) -> None:
        upstream = self.out.grad.view(self._shape)  # (rows_a, rows_b, R)
        torch.mul(upstream, self.b.value.unsqueeze(-3), out=self._scratch)
        torch.sum(self._scratch, -2, out=self.a.grad)
        torch.mul(upstream, self.a.value.unsqueeze(-2), out=self._scratch)
        torch.sum(self._scratch, -3, out=self.b.grad)


class _Side:
    """The rows of one table that the pairs of a merge use.

    Args:
        table: the table.
        row: (pairs,) row that each pair uses; None if pair p uses row p.
    """

    def __init__(self, table: Table, row: Tensor | None) -> None:
        self.table, self.row = table, row
        if row is not None:
            self.pairs = torch.argsort(row, stable=True)  # (pairs,) grouped by row
            counts = torch.bincount(row, minlength=table.rows)
            self.offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])  # (rows + 1,) where each group begins

    def gather(self) -> Tensor:
        """The row of each pair, (pairs, R)."""
        return self.table.value if self.row is None else self.table.value.index_select(0, self.row)

    def scatter(self, pair_grad: Tensor) -> None:
        """Sum the pairs' gradients (pairs, R) into the rows', in a fixed order (no atomics)."""
        summed = pair_grad if self.row is None else _bag_sum(pair_grad, self.pairs, self.offsets)
        self.table.grad.copy_(summed)


def _bag_sum(source: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """out[k, :] = sum of weights[p] source[rows[p], :] for p from offsets[k] to offsets[k + 1] - 1, in one pass."""
    return embedding_bag(rows, source, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


class Pairs:
    """P[p, :] = E_a[i_p, :] * E_b[j_p, :] for the pairs (i, j) that occur among the observations."""

    def __init__(self, a: Table, b: Table, row: Tensor, first: Tensor, is_observations: bool) -> None:
        """`first`: (pairs,) an observation of each pair; `row`: (n,) the pair of each observation."""
        assert a.row is not None and b.row is not None
        self.a = _Side(a, None if a.is_observations and is_observations else a.row[first])
        self.b = _Side(b, None if b.is_observations and is_observations else b.row[first])
        self.out = Table(*a.buffer(len(first), a.value.shape[1]), row, None, is_observations)

    def forward(self) -> None:
        torch.mul(self.a.gather(), self.b.gather(), out=self.out.value)

    def backward(self) -> None:
        self.a.scatter(self.out.grad * self.b.gather())
        self.b.scatter(self.out.grad * self.a.gather())


def merge(a: Table, b: Table) -> Aligned | Grid | Pairs:
    """The cheapest way to multiply two tables."""
    if a.is_observations and b.is_observations:
        return Aligned(a, b)
    if a.row is None or b.row is None or a.runs:  # a dense evaluation, or a batch
        return Grid(a, b)
    n, cells = len(a.row), a.rows * b.rows
    cell = a.row * b.rows + b.row
    if cells <= _GRID_EXCESS * n:
        occurs = torch.zeros(cells, dtype=torch.bool, device=cell.device)
        occurs[cell] = True
        if cells <= _GRID_EXCESS * int(occurs.sum()):
            return Grid(a, b)
    keys, row = torch.unique(cell, return_inverse=True)
    if 2 * len(keys) > n:  # few observations share a pair: continue with one row per observation
        each = torch.arange(n, device=row.device)
        return Pairs(a, b, each, each, is_observations=True)
    first = torch.empty_like(keys).scatter_reduce_(
        0, row, torch.arange(n, device=row.device), "amin", include_self=False
    )
    return Pairs(a, b, row, first, is_observations=False)


class RootRows:
    """value[i] = P[i, :] @ w, with w (R, 1), ones where there is no weight."""

    def __init__(self, product: Table, weight: Tensor | None, grad: Tensor | None) -> None:
        self.product, self.grad = product, grad
        self.weight = product.value.new_ones(*product.runs, product.value.shape[-1], 1) if weight is None else weight
        self.value, self.value_grad = product.buffer(product.rows, 1)
        self._mm = product.product

    def forward(self) -> None:
        self._mm(self.product.value, self.weight, out=self.value)

    def backward(self) -> None:
        if self.grad is not None:
            self._mm(self.product.value.mT, self.value_grad, out=self.grad)
        self._mm(self.value_grad, self.weight.mT, out=self.product.grad)


class _Weighted:
    """E_a * w: the columns of the left table scaled by the root's weights w; no work if these are ones."""

    def __init__(self, a: Table, weight: Tensor | None, grad: Tensor | None) -> None:
        self.a, self.weight, self.grad = a, weight, grad
        self.value, self.value_grad = (a.value, a.grad) if weight is None else a.buffer(*a.value.shape[-2:])

    def forward(self) -> None:
        if self.weight is not None:
            torch.mul(self.a.value, self.weight.mT, out=self.value)

    def backward(self) -> None:
        if self.weight is None or self.grad is None:
            return
        torch.mul(self.value_grad, self.a.value, out=self.a.grad)  # used as scratch before its own value
        torch.sum(self.a.grad, -2, out=self.grad.squeeze(-1))
        torch.mul(self.value_grad, self.weight.mT, out=self.a.grad)


class RootGrid:
    """value[i, j] = sum over r of w[r] E_a[i, r] E_b[j, r], w (R, 1): one matrix product for every pair of rows."""

    def __init__(self, a: Table, b: Table, weight: Tensor | None, grad: Tensor | None) -> None:
        self.a, self.b = _Weighted(a, weight, grad), b
        self.value, self.value_grad = a.buffer(a.rows, b.rows)
        self._mm = a.product

    def forward(self) -> None:
        self.a.forward()
        self._mm(self.a.value, self.b.value.mT, out=self.value)

    def backward(self) -> None:
        self._mm(self.value_grad, self.b.value, out=self.a.value_grad)
        self._mm(self.value_grad.mT, self.a.value, out=self.b.grad)
        self.a.backward()


class RootPairs:
    """value[p] = <w * E_a[i_p, :], E_b[j_p, :]> for the observed pairs only, with w (R, 1).

    Pairs are sorted by i, so that memory is read in order; `order` is the position of each in the sample.
    """

    def __init__(self, a: Table, b: Table, weight: Tensor | None, grad: Tensor | None) -> None:
        assert a.row is not None and b.row is not None
        self.order = torch.argsort(a.row * b.rows + b.row)
        i, j = a.row[self.order], b.row[self.order]
        self.a, self.b = _Weighted(a, weight, grad), b
        self.left, self.right = _Side(a, i), _Side(b, j)
        self.i, self.j, self._i_by_j = i, j, i[self.right.pairs]
        self.value = a.value.new_empty(len(i))
        self._on_cpu = a.value.device.type == "cpu"
        if self._on_cpu:
            with warnings.catch_warnings():  # torch warns that its CSR layout is in beta, once per process
                warnings.simplefilter("ignore")
                self._pattern = torch.sparse_csr_tensor(
                    self.left.offsets.int(), j.int(), a.value.new_zeros(len(i)), size=(a.rows, b.rows)
                )

    def forward(self) -> Tensor:
        self.a.forward()
        if self._on_cpu:  # four times faster than gathering, without (n, R) temporaries
            inner: Tensor = torch.sparse.sampled_addmm(self._pattern, self.a.value, self.b.value.t(), beta=0.0)
            return inner.values()
        for i, j, out in zip(*(torch.split(t, _CHUNK) for t in (self.i, self.j, self.value)), strict=True):
            rows = self.a.value.index_select(0, i).mul_(self.b.value.index_select(0, j))
            torch.sum(rows, 1, out=out)
        return self.value

    def backward(self, upstream: Tensor) -> None:
        """d E_a[i] = sum of upstream[p] E_b[j_p] over the pairs p of row i, and the same with the sides swapped."""
        self.a.value_grad.copy_(_bag_sum(self.b.value, self.j, self.left.offsets, upstream))
        upstream_by_j = upstream.index_select(0, self.right.pairs)
        self.b.grad.copy_(_bag_sum(self.a.value, self._i_by_j, self.right.offsets, upstream_by_j))
        self.a.backward()


class Gather:
    """Observed cells (n,) of the root's values; `backward` requires distinct entries."""

    def __init__(self, root: RootGrid | RootRows, cell: Tensor) -> None:
        if cell.dim() > 1:  # a batch: the cells of one run follow those of another
            cells = root.value[0].numel()
            cell = cell + torch.arange(0, root.value.numel(), cells, device=cell.device).unsqueeze(1)
        self.cell = cell.flatten()
        self.source, self.source_grad = root.value.view(-1), root.value_grad.view(-1).zero_()
        self.value = self.source.new_empty(cell.shape)

    def forward(self) -> Tensor:
        torch.index_select(self.source, 0, self.cell, out=self.value.view(-1))
        return self.value

    def backward(self, upstream: Tensor) -> None:
        self.source_grad.index_copy_(0, self.cell, upstream.view(-1))  # the other cells stay zero


class Whole:
    """All values, (d_0, ..., d_{N-1}), with axes in the order of the modes."""

    def __init__(self, root: RootGrid | RootRows, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
        self.root, self.shape, self.axes = root, shape, axes

    def forward(self) -> Tensor:
        return self.root.value.view(self.shape).permute(self.axes)

    def backward(self, upstream: Tensor) -> None:
        self.root.value_grad.view(self.shape).permute(self.axes).copy_(upstream)


class Measure:
    """Inner products of the whole matrix with given matrices (n, d_0, d_1), axes in the order of the root's grid."""

    def __init__(self, root: RootGrid | RootRows, matrices: Tensor) -> None:
        self.root = root
        self.matrices = matrices.reshape(len(matrices), -1).to(root.value)
        self.value = root.value.new_empty(len(matrices))

    def forward(self) -> Tensor:
        return torch.mv(self.matrices, self.root.value.view(-1), out=self.value)

    def backward(self, upstream: Tensor) -> None:
        torch.mv(self.matrices.t(), upstream, out=self.root.value_grad.view(-1))
