"""Derivatives of a factorization at observed entries: residuals, Jacobian products, normal equations.

The value at an entry is linear in every weight matrix by itself. With P_v the elementwise product of the children's
vectors and S_v the derivative of the value with respect to E_v, one sweep up the mode tree gives E and P, one down S:

    S_root = 1,   S_c = (S_v W^(v)T) * (product of the other children's E)   for every child c of v

and the Jacobian with respect to W^(v) has rows P_v[i, :] (x) S_v[i, :] (at a leaf, P is a one-hot index). With dense
cores, the children's vectors are spread over all combinations of their components before they are multiplied, and S_c
is summed over those of the other children. Everything is computed in blocks of entries, so memory is bounded whatever
their number. Where several processes share the work, each has a part of the entries, and sums run over all parts.

Axes: `n` entries, `b` entries of a block, `p` parameters, `R` width, `d` mode dimension, `q` parameters above leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.least_squares.combinations import Combinations
from htfcli.engine.least_squares.entry_groups import Groups, grouped
from htfcli.engine.least_squares.leaf_normal_equations import LeafSums
from htfcli.engine.least_squares.tree_sweeps import Weights, downward, jacobian_above, upward, written_out
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.samples import Entries

_BLOCK = 2**20  # numbers in the largest temporary of a block: small enough to stay in the cache and be reused
_AHEAD = 0.1  # fraction of a step over which its second derivative is taken
_LARGEST_CORE = 5000  # numbers; the square of that many takes 200 MB
# Rough costs on one core, from which the cheaper of two ways is chosen
_SWEEP = 20.0  # nanoseconds per entry and component of a product with J^T J
_ROW = 20.0  # nanoseconds to look up the place of a row
_FUSED = 50  # multiplications in a matrix product that take as long as one indexed addition, about a nanosecond


@dataclass
class Normal:
    """Normal equations of a least-squares problem at given weights.

    Args:
        hessian: (p, p) J^T J. gradient: (p,) J^T r. loss: r^T r.
    """

    hessian: Tensor
    gradient: Tensor
    loss: float


class Sweeps:
    """Sums over entries of products of first derivatives.

    Args:
        model: gives the shape; weights are passed to every method instead.
        entries: index (n, N) and value (n,), on the device and in the dtype to compute in; all of them in every
            process.
        weight: (n,) weights of the squared residuals; None for ones.
        workers: the processes that share the entries; all take part in all calls. The model's weights are set to those
            of the first process.

    Attributes:
        p: number of parameters. spans: (first parameter, rows, columns) of every node.
        work: estimated cost of `normal` and of solving its equations, in nanoseconds of one core.
        sweep_work: the same for one product with J^T J.
    """

    def __init__(
        self,
        model: Factorization,
        entries: Entries,
        weight: Tensor | None = None,
        workers: Workers | None = None,
    ) -> None:
        self._model, self._tree, self._workers = model, model.tree, workers or Workers()
        self._workers.agreed(model.parameters)
        index = self._workers.shard(entries.index)
        self._columns = [index[:, mode].to(torch.int32).contiguous() for mode in range(model.order)]
        self.value = self._workers.shard(entries.value)
        self.weight = None if weight is None else self._workers.shard(weight)
        shapes = [(0, 0) if w is None else (w.shape[0], w.shape[1]) for w in model.node_weights]
        self.spans, start = [], 0
        for rows, columns in shapes:
            self.spans.append((start, rows, columns))
            start += rows * columns
        self.p = start
        self.leaf_p = sum(rows * columns for rows, columns in shapes[: model.order])
        self.q = self.p - self.leaf_p
        self._groups: dict[int, Groups] = {}
        self._widths = [columns for _, columns in shapes]
        self._combinations = Combinations(self._tree, self._widths, model.dense_cores)
        self._numbers = sum(self._widths) + self._combinations.count
        leaf_width = sum(self._widths[: model.order])
        written_out = 2 * self.p**2 / _FUSED + self.p
        calls = model.order * (model.order + 3) / 2
        summed = leaf_width * (leaf_width / 2 + self.q) + _ROW * calls + 2 * self.q**2 / _FUSED
        self._dense = written_out < summed
        self.sweep_work = _SWEEP * self._numbers * len(self.value)
        self.work = min(written_out, summed) * len(self.value) + self.p**3 / _FUSED + self.sweep_work

    def set_weight(self, weight: Tensor) -> None:
        """Set the weights (n,) of the squared residuals of all entries."""
        self.weight = self._workers.shard(weight)

    # --- sweeps -------------------------------------------------------------------------------------------------------

    def blocks(self, per_entry: int) -> Iterator[slice]:
        """Blocks of entries, for temporaries of `per_entry` numbers per entry."""
        size = max(64, _BLOCK // max(per_entry, 1))
        for start in range(0, len(self.value), size):
            yield slice(start, min(start + size, len(self.value)))

    def up(self, weights: Weights, block: slice | Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """E (b, R_parent) of every node, and P (b, R) of every interior node."""
        leaves = []
        for weight, column in zip(weights, self._columns, strict=False):
            assert weight is not None
            leaves.append(weight.index_select(0, _part(column, block)))
        return upward(self._tree, weights, leaves, self._combinations)

    def down(self, weights: Weights, vectors: list[Tensor], seed: Tensor) -> list[Tensor]:
        """S (b, R_parent) of every node, times the seed (b, 1) at the root."""
        return downward(self._tree, weights, vectors, seed, self._combinations)

    @property
    def _per_entry(self) -> int:
        return 3 * self._numbers + 1

    def residuals(self, parameters: Tensor) -> Tensor:
        """r = value of the model - observed value, (n,)."""
        return self._workers.gathered(self._residuals(parameters))

    def _residuals(self, parameters: Tensor) -> Tensor:
        """Residuals of this process's entries."""
        weights = self._model.views(parameters)
        parts = [self.up(weights, block)[0][-1][:, 0] for block in self.blocks(self._per_entry)]
        return torch.cat([parameters.new_empty(0), *parts]).sub_(self.value)

    def loss(self, parameters: Tensor) -> float:
        """Sum of (weighted) squared residuals."""
        residual = self._residuals(parameters)
        return float(self._workers.sum(residual.square().mul_(1.0 if self.weight is None else self.weight).sum()))

    def _summed(self, vector: Tensor, number: float) -> tuple[Tensor, float]:
        """A vector and a number, both summed over processes."""
        if self._workers.count == 1:
            return vector, number
        total = self._workers.sum(torch.cat([vector, vector.new_tensor([number])]))
        return total[:-1], float(total[-1])

    # --- normal equations ---------------------------------------------------------------------------------------------

    def normal(self, parameters: Tensor) -> Normal:
        """J^T J, J^T r and r^T r, by the cheaper of two ways.

        Rows of J are mostly zeros, since an entry touches one row of each leaf matrix. With small leaves, J is written
        out and multiplied (one fast matrix product); with large ones, the products of its non-zero parts are added
        where they belong.
        """
        hessian = parameters.new_zeros(self.p, self.p)
        gradient = parameters.new_zeros(self.p)
        sums = LeafSums(self.spans[: self._model.order], self.q, parameters)
        widest = max(self._widths[: self._model.order])
        loss = 0.0
        for block in self.blocks(self.p if self._dense else (widest + 1) * self.q + widest**2):
            leaves, above, residual = self._jacobian(parameters, block)
            loss += float(residual @ residual)
            if self._dense:
                jacobian = self._written_out(leaves, above, block)
                hessian.addmm_(jacobian.t(), jacobian)
                gradient.addmv_(jacobian.t(), residual)
                continue
            columns = [column[block] for column in self._columns]
            sums.add(leaves, above, residual, columns, gradient)
            hessian[self.leaf_p :, self.leaf_p :].addmm_(above.t(), above)
            gradient[self.leaf_p :].addmv_(above.t(), residual)
        if not self._dense:
            sums.write(hessian)
        return Normal(self._workers.sum(hessian), *self._summed(gradient, loss))

    def _jacobian(self, parameters: Tensor, block: slice) -> tuple[list[Tensor], Tensor, Tensor]:
        """Weighted: per leaf the non-zero part of its rows of J (b, R), the rest of J (b, q), and the residual (b,)."""
        weights = self._model.views(parameters)
        vectors, products = self.up(weights, block)
        root = torch.ones_like(vectors[-1])
        if self.weight is not None:
            root = self.weight[block].sqrt().unsqueeze(1)
        residual = (vectors[-1][:, 0] - self.value[block]).mul_(root[:, 0])
        slopes = self.down(weights, vectors, root)
        return slopes[: self._model.order], jacobian_above(weights, products, slopes), residual

    def _written_out(self, leaves: list[Tensor], above: Tensor, block: slice) -> Tensor:
        """J at a block, (b, p)."""
        columns = [column[block].long() for column in self._columns]
        return written_out(leaves, above, columns, self.spans[: self._model.order])

    def jacobian(self, parameters: Tensor) -> Tensor:
        """J at all entries of this process, (n, p)."""
        everything = slice(0, len(self.value))
        leaves, above, _ = self._jacobian(parameters, everything)
        return self._written_out(leaves, above, everything)

    # --- without the matrix -------------------------------------------------------------------------------------------

    def gradient(self, parameters: Tensor) -> tuple[Tensor, float]:
        """J^T r, (p,), and r^T r."""
        weights, total, loss = self._model.views(parameters), torch.zeros_like(parameters), 0.0
        for block in self.blocks(self._per_entry):
            vectors, products = self.up(weights, block)
            residual = vectors[-1] - self.value[block].unsqueeze(1)
            weighted = residual if self.weight is None else residual * self.weight[block].unsqueeze(1)
            loss += float((residual * weighted).sum())
            self._add_transposed(total, weights, vectors, products, weighted, block)
        return self._summed(total, loss)

    def product(self, parameters: Tensor, direction: Tensor) -> Tensor:
        """J^T J times a direction (p,)."""
        weights, moved = self._model.views(parameters), self._model.views(direction)
        total = torch.zeros_like(parameters)
        for block in self.blocks(2 * self._per_entry):
            vectors, products = self.up(weights, block)
            tangent = self._tangent(weights, moved, vectors, products, block)
            if self.weight is not None:
                tangent = tangent * self.weight[block].unsqueeze(1)
            self._add_transposed(total, weights, vectors, products, tangent, block)
        return self._workers.sum(total)

    def curvature(self, parameters: Tensor, direction: Tensor) -> Tensor:
        """J^T r'', with r'' the second derivative of the residuals along a direction (p,), by a finite difference.

        With f the residuals along the direction and h = `_AHEAD`,

            2/h ((f(h) - f(0)) / h - f'(0)) = f''(0) + h/3 f^(3)(0) + ...

        A large h loses few digits, and the error, which comes from the higher derivatives, is harmless in a correction.
        """
        weights, moved = self._model.views(parameters), self._model.views(direction)
        ahead = self._model.views(parameters.add(direction, alpha=_AHEAD))
        total = torch.zeros_like(parameters)
        for block in self.blocks(2 * self._per_entry):
            vectors, products = self.up(weights, block)
            slope = self._tangent(weights, moved, vectors, products, block)
            change = self.up(ahead, block)[0][-1] - vectors[-1]
            second = (change / _AHEAD - slope).mul_(2 / _AHEAD)
            if self.weight is not None:
                second.mul_(self.weight[block].unsqueeze(1))
            self._add_transposed(total, weights, vectors, products, second, block)
        return self._workers.sum(total)

    def _tangent(
        self, weights: Weights, moved: Weights, vectors: list[Tensor], products: list[Tensor | None], block: slice
    ) -> Tensor:
        """J times a direction at a block, (b, 1)."""
        tangents: list[Tensor] = []
        for node, children in enumerate(self._tree.children):
            weight, move, product = weights[node], moved[node], products[node]
            if product is None:
                assert move is not None
                tangents.append(move.index_select(0, self._columns[node][block]))
                continue
            parts = []
            for child in children:
                others = [self._combinations.spread(c, vectors[c]) for c in children if c != child]
                parts.append(reduce(torch.mul, others, self._combinations.spread(child, tangents[child])))
            change = sum(parts[1:], parts[0])
            if weight is None or move is None:
                tangents.append(change.sum(1, keepdim=True))
            else:
                tangents.append(change @ weight + product @ move)
        return tangents[-1]

    def _add_transposed(
        self,
        total: Tensor,
        weights: Weights,
        vectors: list[Tensor],
        products: list[Tensor | None],
        seed: Tensor,
        block: slice,
    ) -> None:
        """Add J^T seed, seed (b, 1), into `total` (p,)."""
        slopes = self.down(weights, vectors, seed)
        for node, view in enumerate(self._model.views(total)):
            product = products[node]
            if view is None:
                continue
            if product is None:
                view.index_add_(0, self._columns[node][block], slopes[node])
            else:
                view.addmm_(product.t(), slopes[node])

    def diagonal_blocks(self, parameters: Tensor) -> list[Tensor]:
        """Diagonal blocks of J^T J per node: a leaf's (d, R, R), one per row; an interior node's (1, s, s).

        Of a dense core with more than `_LARGEST_CORE` numbers s, only the diagonal, (s, 1, 1).
        """
        found = [parameters.new_zeros(1, 0, 0) for _ in self.spans]
        for node, (_, rows, columns) in enumerate(self.spans):
            large = self._model.dense_cores and node >= self._model.order and rows * columns > _LARGEST_CORE
            if large:
                found[node] = self._diagonal(parameters, node)
            elif rows:
                found[node] = self.node_normal(parameters, node)[0]
        return found

    def _diagonal(self, parameters: Tensor, node: int) -> Tensor:
        """The diagonal of J^T J at an interior node, (s, 1, 1)."""
        weights, (_, rows, columns) = self._model.views(parameters), self.spans[node]
        total = parameters.new_zeros(rows, columns)
        for block in self.blocks(self._per_entry):
            slope, _, product = self._slopes(weights, block, node)
            assert product is not None
            total.addmm_(product.square().t(), slope.square())
        return self._workers.sum(total).view(-1, 1, 1)

    def node_normal(self, parameters: Tensor, node: int) -> tuple[Tensor, Tensor]:
        """The node's diagonal blocks of J^T J and its part of J^T r.

        Returns: a leaf's (d, R, R) and (d, R), one system per row; an interior node's (1, s, s) and (1, s), with s its
            number of weights.
        """
        if node < self._model.order:
            return self._leaf_normal(parameters, node)
        weights, (_, rows, columns) = self._model.views(parameters), self.spans[node]
        size = rows * columns
        square, gradient = parameters.new_zeros(size, size), parameters.new_zeros(1, size)
        for block in self.blocks(size**2 + self._per_entry):
            slope, residual, product = self._slopes(weights, block, node)
            assert product is not None
            jacobian = (product.unsqueeze(2) * slope.unsqueeze(1)).flatten(1)
            square.addmm_(jacobian.t(), jacobian)
            gradient.addmm_(residual.t(), jacobian)
        return self._workers.sum(square).unsqueeze(0), self._workers.sum(gradient)

    def _leaf_normal(self, parameters: Tensor, node: int) -> tuple[Tensor, Tensor]:
        """Sums over the entries at each index, (d, R, R) and (d, R)."""
        weights, (_, d, width) = self._model.views(parameters), self.spans[node]
        if node not in self._groups:
            self._groups[node] = grouped(self._columns[node], d)
        groups, total = self._groups[node], parameters.new_zeros(d, width * (width + 1))
        length = groups.entry.shape[1]
        step = max(1, _BLOCK // (length * self._per_entry))
        for entry, row in zip(torch.split(groups.entry, step), torch.split(groups.row, step), strict=True):
            block = entry.flatten()
            slope, residual, _ = self._slopes(weights, block.clamp(min=0), node)
            both = torch.cat([slope, residual], 1).masked_fill_(block.lt(0).unsqueeze(1), 0.0)
            both = both.view(len(entry), length, width + 1)
            total.index_add_(0, row, (both[:, :, :-1].transpose(1, 2) @ both).flatten(1))
        total = self._workers.sum(total).view(d, width, width + 1)
        return total[:, :, :-1].contiguous(), total[:, :, -1].contiguous()

    def _slopes(self, weights: Weights, block: slice | Tensor, node: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Weighted S (b, R_parent) of a node and residual (b, 1); and the node's P (b, R), None at a leaf."""
        vectors, products = self.up(weights, block)
        residual = vectors[-1] - _part(self.value, block).unsqueeze(1)
        root = torch.ones_like(residual)
        if self.weight is not None:
            root = _part(self.weight, block).sqrt().unsqueeze(1)
            residual.mul_(root)
        return self.down(weights, vectors, root)[node], residual, products[node]


def _part(vector: Tensor, block: slice | Tensor) -> Tensor:
    """The part of a vector (n,) that belongs to a block of entries: a range, or positions."""
    return vector[block] if isinstance(block, slice) else vector.index_select(0, block)
