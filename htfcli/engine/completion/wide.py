"""Wide factorizations, shrunk: alternating ridge least squares on any mode tree.

With all other matrices held fixed the values are linear in one: a leaf's rows have one small ridge system each, an
interior matrix has one of its own. Components are balanced after every sweep, so that the ridge is a penalty on whole
components, small ones first: a width far above the rank costs nothing, what the data do not ask for goes to zero.

The normal matrix of an interior node is a sum over entries of (p p^T) (x) (s s^T), p the product of its children's
vectors and s the derivative with respect to its own. One of the two depends on few indices only; entries that share
them are summed first, and the sum over n entries becomes one matrix product over the D groups.

Axes: `n` entries, `R` width, `d` mode dimension, `D` groups, `L` length of a piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from htfcli.engine.completion.settings import BLOCK
from htfcli.engine.completion.smoothing import solve_smooth
from htfcli.engine.factorizations.balance import balance
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares.entry_groups import Groups, grouped
from htfcli.engine.samples import row_keys

_CACHED = 8  # blocks up to which the vectors of all nodes are kept during a sweep: memory (10^6 would take .6 GB)


def node_vectors(tree: ModeTree, weights: Sequence[Tensor], columns: Sequence[Tensor]) -> list[Tensor]:
    """The vector of every node at some entries: (b, R) of its parent, (b, 1) of the root, whose column is the values.

    Args:
        weights: of every node. columns: per mode (b,) rows of the leaf's matrix.
    """
    vectors: list[Tensor] = []
    for node, children in enumerate(tree.children):
        if children:
            vectors.append(reduce(torch.mul, (vectors[c] for c in children)) @ weights[node])
        else:
            vectors.append(weights[node].index_select(0, columns[node]))
    return vectors


class _Shared(NamedTuple):
    """Entries of an interior node grouped by what its derivative, or the product of its children, has in common.

    Args:
        groups: of entries. outer: whether they share the derivative. first: (D,) one entry of each group.
    """

    groups: Groups
    outer: bool
    first: Tensor


class WideFit:
    """Alternating ridge least squares on the weights of `model`, in place; its root's weights stay ones.

    Args:
        model: with output weights. index: (n, N). target: (n,) in the dtype of the model. weight: (n,) of the squared
        residuals, None for ones.

    Attributes:
        loss: weighted sum of squared residuals after the last sweep.
    """

    def __init__(self, model: Factorization, index: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        self.model, self.tree = model, model.tree
        self._index, self._target = index, target
        self._columns = [index[:, m].int() for m in range(model.order)]  # half the memory
        self._weights: list[Tensor] = [w for w in model.node_weights if w is not None]
        self._root_weight = None if weight is None else weight.sqrt()
        self._leaf_groups: dict[int, Groups] = {}
        self._shared: dict[int, _Shared] = {}
        widest = max(w.shape[1] for w in self._weights[: model.order])
        self._block = max(2**12, BLOCK // ((len(self.tree.children) + 2) * widest))
        self._cached = len(target) <= _CACHED * self._block
        self._weights[-1].fill_(1.0)
        balance(self.model, keep_root=True)
        self.refresh()

    def set_weight(self, weight: Tensor | None, target: Tensor | None = None) -> None:
        """Other weights of the squared residuals, and other values to fit."""
        self._root_weight = None if weight is None else weight.sqrt()
        self._target = self._target if target is None else target

    # --- values -------------------------------------------------------------------------------------------------------

    def _up(self, rows: Tensor | None) -> list[Tensor]:
        """E (b, R_parent) of every node at some entries, all where `rows` is None."""
        columns = self._columns if rows is None else [column[rows] for column in self._columns]
        return node_vectors(self.tree, self._weights, columns)

    def _slopes(self, node: int, vectors: Sequence[Tensor]) -> Tensor:
        """S (b, R_parent) of a node: the derivative of the value with respect to its vector."""
        parent = self.tree.parent[node]
        others = [vectors[c] for c in self.tree.children[parent] if c != node]
        if parent != self.tree.root:
            others.append(self._slopes(parent, vectors) @ self._weights[parent].t())
        if not others:
            return torch.ones_like(vectors[node])
        return reduce(torch.mul, others)

    def refresh(self) -> None:
        """Values and loss at the weights of now."""
        if self._cached:
            self._vectors = self._up(None)
            values = self._vectors[-1][:, 0]
        else:
            parts = torch.split(torch.arange(len(self._target), device=self._target.device), self._block)
            values = torch.cat([self._up(part)[-1][:, 0] for part in parts])
        self.values = values
        residual = values - self._target
        if self._root_weight is not None:
            residual = residual * self._root_weight
        self.loss = float(residual.square().sum())

    # --- sweeps -------------------------------------------------------------------------------------------------------

    def sweep(self, ridge: float, smooth: Mapping[int, Tensor] | None = None) -> None:
        """One solve of every matrix.

        Args:
            ridge: penalty on the squared weights. smooth: per ordered mode (d - 1,) weights of the penalty on the
                squared differences of neighbouring rows, over the ridge; their rows have a tenth of the ridge besides.
        """
        if self._cached:
            self._descend(self.tree.root, None, ridge, smooth or {})
        else:
            for node in range(self.tree.root):
                self._solve(node, ridge, smooth or {}, None, None)
        balance(self.model, keep_root=True)
        self.refresh()

    def run(self, sweeps: int, ridge: float, smooth: Mapping[int, Tensor] | None = None, slow: float = 1e-3) -> None:
        """So many sweeps at most; fewer where one gains less than the share `slow` of the objective.

        Between sweeps the weights go on in the direction they moved, as far as that lowers the objective: out of the
        long valleys where sweeps by themselves take hundreds. (Without the smoothing penalty, which it follows
        closely.)
        """
        before, length = math.inf, 1.0
        parameters = self.model.parameters
        for _ in range(sweeps):
            start = parameters.clone()
            self.sweep(ridge, smooth)
            objective = self._objective(ridge)
            if before - objective < slow * objective:
                return
            moved = parameters.clone()
            parameters.add_(moved - start, alpha=length)
            self.refresh()
            further = self._objective(ridge)
            if further < objective:
                objective, length = further, 1.5 * length
            else:
                parameters.copy_(moved)
                self.refresh()
                length = max(0.5 * length, 0.5)
            before = objective

    def _objective(self, ridge: float) -> float:
        return self.loss + ridge * float(self.model.parameters.square().sum())

    def _descend(self, node: int, slope: Tensor | None, ridge: float, smooth: Mapping[int, Tensor]) -> None:
        """Solve all matrices below a node, then its own; `slope` is S of the node."""
        children, vectors = self.tree.children[node], self._vectors
        outer = None if slope is None else slope @ self._weights[node].t()
        after: list[Tensor | None] = [None]  # products of the vectors of the children to the right
        for child in reversed(children[1:]):
            last = after[-1]
            after.append(vectors[child] if last is None else last * vectors[child])
        before = outer
        for child, right in zip(children, reversed(after), strict=True):
            if before is None or right is None:
                below = right if before is None else before
                below = torch.ones_like(vectors[child]) if below is None else below
            else:
                below = before * right
            if self.tree.children[child]:
                self._descend(child, below, ridge, smooth)
            else:
                self._solve(child, ridge, smooth, below, None)
                vectors[child] = self._weights[child].index_select(0, self._columns[child])
            before = vectors[child] if before is None else before * vectors[child]
        product = reduce(torch.mul, (vectors[c] for c in children))
        if slope is not None:
            self._solve(node, ridge, smooth, slope, product)
            vectors[node] = product @ self._weights[node]

    def _solve(
        self, node: int, ridge: float, smooth: Mapping[int, Tensor], slope: Tensor | None, product: Tensor | None
    ) -> None:
        if node < self.tree.order:
            self._solve_leaf(node, ridge, smooth.get(node), slope)
        else:
            self._solve_interior(node, ridge, slope, product)

    def _features(
        self, rows: Tensor, node: int, slope: Tensor | None, product: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """S and P of a node at some entries, from what is cached or anew."""
        if slope is not None:
            return slope.index_select(0, rows), None if product is None else product.index_select(0, rows)
        vectors = self._up(rows)
        children = self.tree.children[node]
        return self._slopes(node, vectors), reduce(torch.mul, (vectors[c] for c in children)) if children else None

    def _solve_leaf(self, node: int, ridge: float, between: Tensor | None, slope: Tensor | None) -> None:
        weight = self._weights[node]
        d, width = weight.shape
        if node not in self._leaf_groups:
            self._leaf_groups[node] = grouped(self._columns[node], d)
        total = torch.zeros(d, width * (width + 1), dtype=torch.float64, device=weight.device)
        for row, both in self._pieces(self._leaf_groups[node], node, slope):
            total.index_add_(0, row, (both[:, :, :width].mT @ both).flatten(1).double())
        total = total.view(d, width, width + 1)
        square, aim = total[:, :, :width].contiguous(), total[:, :, width].contiguous()
        shift = ridge if between is None else 0.1 * ridge
        square.diagonal(dim1=1, dim2=2).add_(shift + 1e-12 * square.diagonal(dim1=1, dim2=2).mean() + 1e-300)
        if between is not None:
            weight.copy_(solve_smooth(square, aim, ridge * between))
        else:
            factor, info = torch.linalg.cholesky_ex(square)
            found = torch.cholesky_solve(aim.unsqueeze(2), factor).squeeze(2)
            good = info == 0
            weight[good] = found[good].to(weight.dtype)

    def _pieces(self, groups: Groups, node: int, features: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Per block of pieces: their group, and (m, L, R + 1) weighted features, S for None, and target."""
        length = groups.entry.shape[1]
        step = max(1, self._block // length)
        for entry, row in zip(torch.split(groups.entry, step), torch.split(groups.row, step), strict=True):
            rows = entry.flatten().long()
            empty = rows < 0
            rows = rows.clamp_(min=0)
            found, _ = self._features(rows, node, features, None)
            both = torch.cat([found, self._target[rows].unsqueeze(1)], 1)
            if self._root_weight is not None:
                both.mul_(self._root_weight[rows].unsqueeze(1))
            both[empty] = 0.0
            yield row, both.view(len(entry), length, -1)

    def _solve_interior(self, node: int, ridge: float, slope: Tensor | None, product: Tensor | None) -> None:
        weight = self._weights[node]
        size, width = weight.shape
        if slope is None or product is None:
            square, aim = self._by_entries(node, slope, product)
        else:
            square, aim = self._by_groups(node, weight, slope, product)
        square.diagonal().add_(ridge + 1e-12 * float(square.diagonal().mean()))
        factor, info = torch.linalg.cholesky_ex(square)
        if int(info) == 0:
            weight.copy_(torch.cholesky_solve(aim.unsqueeze(1), factor).view(size, width))

    def _by_entries(self, node: int, slope: Tensor | None, product: Tensor | None) -> tuple[Tensor, Tensor]:
        weight = self._weights[node]
        count = weight.numel()
        square = torch.zeros(count, count, dtype=torch.float64, device=weight.device)
        aim = torch.zeros(count, dtype=torch.float64, device=weight.device)
        for rows in torch.split(torch.arange(len(self._target), device=weight.device), max(64, BLOCK // count)):
            s, p = self._features(rows, node, slope, product)
            assert p is not None
            jacobian = (p.unsqueeze(2) * s.unsqueeze(1)).flatten(1)
            target = self._target[rows]
            if self._root_weight is not None:
                jacobian.mul_(self._root_weight[rows].unsqueeze(1))
                target = target * self._root_weight[rows]
            square += jacobian.t() @ jacobian
            aim += jacobian.t() @ target
        return square, aim

    def _by_groups(self, node: int, weight: Tensor, slope: Tensor, product: Tensor) -> tuple[Tensor, Tensor]:
        size, width = weight.shape
        if node not in self._shared:
            self._shared[node] = self._share(node)
        groups, outer, first = self._shared[node]
        if 2 * len(first) > len(self._target):
            return self._by_entries(node, slope, product)
        summed, shared = (product, slope) if outer else (slope, product)
        inner = summed.shape[1]
        total = torch.zeros(len(first), inner * (inner + 1), dtype=weight.dtype, device=weight.device)
        for row, both in self._pieces(groups, node, summed):
            total.index_add_(0, row, (both[:, :, :inner].mT @ both).flatten(1))
        total = total.view(len(first), inner, inner + 1)
        own = shared[first]
        across = own.shape[1]
        pairs = (own.unsqueeze(2) * own.unsqueeze(1)).flatten(1)
        square = (total[:, :, :inner].flatten(1).t() @ pairs).view(inner, inner, across, across)
        aim = total[:, :, inner].t() @ own
        if outer:
            return square.permute(0, 2, 1, 3).reshape(size * width, -1), aim.flatten()
        return square.permute(2, 0, 3, 1).reshape(size * width, -1), aim.t().flatten()

    def _share(self, node: int) -> _Shared:
        inside = list(self.tree.modes[node])
        outside = [m for m in range(self.tree.order) if m not in inside]
        keys = [
            torch.unique(row_keys(self._index[:, ms], [self.model.dims[m] for m in ms]), return_inverse=True)
            for ms in (inside, outside)
        ]
        outer = len(keys[1][0]) <= len(keys[0][0])
        key, of = keys[1] if outer else keys[0]
        first = torch.empty_like(key).scatter_(0, of, torch.arange(len(of), device=of.device))
        return _Shared(grouped(of, len(key)), outer, first)
