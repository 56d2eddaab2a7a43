"""Values of a factorization and their gradient, by one sweep up the mode tree and one down, over subtree tables.

At node v, the value at an entry depends only on the indices of the modes under v. So every node is evaluated once per
*distinct* sub-index (a row of its table) instead of once per observation:

    leaf n:       E_n = W^(n)                                        (d_n, R_parent)
    interior v:   P_v[i, :] = product over children c of E_c[i_c, :]   (rows, R_v)
                  E_v = P_v @ W^(v)                                  (rows, R_parent)
    root:         value[i] = P_root[i, :] @ W^(root)

A product of several children is built by merging two tables at a time, smallest first. Merging gives either a *grid*
(all pairs of rows, by a broadcast) or the *pairs* that occur. At the root, the grid is one matrix product, and the
pairs are inner products of two rows each. The gradient runs the same steps backwards in closed form, as values are
multilinear in the weight matrices.

With dense cores, P_v[i, :] is the Kronecker product of the children's rows: each row is spread over the combinations of
components and then multiplied as above. Children stay in their order, in which W^(v) lists the combinations, so
only neighbours are merged. The root's core is multiplied into one of the last two tables.

All buffers are allocated once, so that an iteration is a fixed sequence of in-place
operations, which CUDA can capture as a graph.

Axes: `n` observations, `rows` of a table, `R` width of a node, `d` mode dimension; preceded by `runs` where weights
(runs, d or R, R_parent) and entries (runs, n) of several factorizations are evaluated as one batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.factorizations.subtree_tables import (
    Gather,
    Measure,
    Mix,
    Observe,
    RootGrid,
    RootPairs,
    RootRows,
    Spread,
    Step,
    Table,
    Whole,
    grid_of,
    merge,
)
from htfcli.engine.samples import Entries, RankOneMeasurements, Sample

# Measured on CPU: a cell of the root's grid, which is one matrix product, costs about an eighth of a pair.
_ROOT_GRID_EXCESS = 8


class Evaluation:
    """Evaluates a factorization at a fixed sample, repeatedly as its weights change in place.

    Args:
        tree: the mode tree.
        weights: per node its matrix: leaf (d, R_parent), interior (R, R_parent), root (R_root, 1) or None for ones.
        dims: the N mode dimensions.
        sample: what to evaluate; None for the whole tensor.
        gradients: per node where to write the gradient, shaped like `weights`; None if only values are needed.
        dense_cores: whether interior nodes multiply all combinations of their children's components; their matrices
            then have shape (product of the children's columns, R_parent), and the root has one.

    Attributes:
        order: (n,) position in the sample of each value that `forward` returns; None if it is the order of the sample.
    """

    def __init__(
        self,
        tree: ModeTree,
        weights: Sequence[Tensor | None],
        dims: Sequence[int],
        sample: Sample | None = None,
        gradients: Sequence[Tensor | None] | None = None,
        *,
        dense_cores: bool = False,
    ) -> None:
        self.order: Tensor | None = None
        self._dense_cores = dense_cores
        self._steps: list[Step] = []
        tables: dict[int, Table] = {}
        for node, children in enumerate(tree.children):
            weight, grad = weights[node], None if gradients is None else gradients[node]
            if not children:
                assert weight is not None
                tables[node] = self._leaf(node, weight, grad, sample)
                continue
            parts = [tables.pop(child) for child in children]
            if node != tree.root:
                assert weight is not None
                while len(parts) > 1:
                    parts = self._merge_next(parts)
                tables[node] = self._mix(parts[0], weight, grad)
                continue
            while len(parts) > 2:
                parts = self._merge_next(parts)
            if dense_cores and len(parts) == 2:
                assert weight is not None
                parts, weight, grad = self._with_core(parts[0], parts[1], weight, grad), None, None
            self._root(parts, weight, grad, sample, dims)

    def forward(self) -> Tensor:
        """Values at the sample, (n,), in the order `self.order`; the whole tensor (d_0, ..., d_{N-1}) without a sample.

        The result is a buffer that the next call overwrites.
        """
        for step in self._steps:
            step.forward()
        return self._observe.forward()

    def backward(self, upstream: Tensor) -> None:
        """Write the gradient of sum(upstream * values) into `gradients`.

        Args:
            upstream: (n,), in the order `self.order`. `forward` must have been called at the same weights.
        """
        self._observe.backward(upstream)
        for step in reversed(self._steps):
            step.backward()

    # --- building ---------------------------------------------------------------------------------------------------

    def _leaf(self, mode: int, weight: Tensor, grad: Tensor | None, sample: Sample | None) -> Table:
        if isinstance(sample, RankOneMeasurements):
            return self._mix(
                Table(sample.vectors[mode].to(weight), weight.new_empty(0), None, None, True), weight, grad
            )
        row = sample.index[..., mode].to(weight.device) if isinstance(sample, Entries) else None
        return Table(weight, weight.new_empty(0) if grad is None else grad, row, (mode,))

    def _mix(self, product: Table, weight: Tensor, grad: Tensor | None) -> Table:
        step = Mix(product, weight, grad)
        self._steps.append(step)
        return step.out

    def _merge_smallest(self, parts: list[Table]) -> list[Table]:
        parts = sorted(parts, key=lambda table: table.rows)
        product = merge(parts[0], parts[1])
        self._steps.append(product)
        return [product.out, *parts[2:]]

    def _merge_next(self, parts: list[Table]) -> list[Table]:
        return self._merge_neighbours(parts) if self._dense_cores else self._merge_smallest(parts)

    def _merge_neighbours(self, parts: list[Table]) -> list[Table]:
        """Replace the two neighbours with the smallest grid by all products of their columns."""
        at = min(range(len(parts) - 1), key=lambda k: parts[k].rows * parts[k + 1].rows)
        left, right = parts[at : at + 2]
        a, b = left.value.shape[-1], right.value.shape[-1]
        product = merge(self._spread(left, 1, b), self._spread(right, a, 1))
        self._steps.append(product)
        return [*parts[:at], product.out, *parts[at + 2 :]]

    def _spread(self, table: Table, outer: int, inner: int) -> Table:
        if outer * inner == 1:
            return table
        step = Spread(table, outer, inner)
        self._steps.append(step)
        return step.out

    def _with_core(self, left: Table, right: Table, weight: Tensor, grad: Tensor | None) -> list[Table]:
        """The root's core (R_left * R_right, 1) multiplied into the table with fewer rows."""
        sizes = left.value.shape[-1], right.value.shape[-1]
        core = weight.view(*weight.shape[:-2], *sizes)
        core_grad = None if grad is None else grad.view(core.shape)
        if left.rows <= right.rows:
            return [self._mix(left, core, core_grad), right]
        return [left, self._mix(right, core.mT, None if core_grad is None else core_grad.mT)]

    @staticmethod
    def _in_pairs(left: Table, right: Table, count: int) -> bool:
        """Whether the pairs that occur cost less than the root's grid; a batch always uses grids."""
        return not left.runs and left.rows * right.rows > _ROOT_GRID_EXCESS * count

    def _root(
        self,
        parts: list[Table],
        weight: Tensor | None,
        grad: Tensor | None,
        sample: Sample | None,
        dims: Sequence[int],
    ) -> None:
        self._observe: Observe
        if len(parts) == 2 and parts[0].is_observations and parts[1].is_observations:
            parts = self._merge_smallest(parts)
        left, right = parts if len(parts) == 2 else (parts[0], None)
        root: RootGrid | RootRows
        if right is None:
            root, row, modes = RootRows(left, weight, grad), left.row, left.modes
        elif isinstance(sample, Entries) and self._in_pairs(left, right, len(sample)):
            self._observe = pairs = RootPairs(left, right, weight, grad)
            self.order = pairs.order
            return
        else:
            root = RootGrid(left, right, weight, grad)
            row, modes = grid_of(left, right)
        self._steps.append(root)
        if isinstance(sample, Entries):
            assert row is not None
            self._observe = Gather(root, row)
        elif isinstance(sample, RankOneMeasurements):
            self._observe = Whole(root, (len(sample),), (0,))
        else:
            assert modes is not None
            if sample is None:
                self._observe = Whole(root, tuple(dims[m] for m in modes), tuple(map(modes.index, range(len(dims)))))
            else:
                self._observe = Measure(root, sample.matrices.permute(0, *(1 + m for m in modes)))
