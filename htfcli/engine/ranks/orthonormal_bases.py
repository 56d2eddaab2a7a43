"""Orthonormal bases of the nodes of a factorization, by one sweep of QR decompositions up its mode tree.

The columns T^(v, .) of every node are written in an orthonormal basis, from the QR decomposition of the leaf matrices
and then of the children's combined small factors times the node's matrix:

    matrix with columns T^(v, r) = (basis of v, orthonormal) @ S_v,     S_v (k_v, R_parent), k_v <= R_parent

A basis is given in terms of the bases of the node's parts, so nothing is as large as the tensor. Children are combined
two at a time, smallest first; where they share a dense core, all at once, by multiplying it with their small factors,
which makes nothing larger than the core. QR is backward stable (Gram matrices would lose half of the digits).

Axes: `k` dimension of a basis, `R` width, `d` mode dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization

_SAFE_ORDER = 8  # products of so few factors stay in the range of doubles; rescaling them would only take time


@dataclass
class Part:
    """A node, or a partial product of a node's children, in an orthonormal basis.

    Args:
        small: S (k, R), the columns in the basis.
        basis: (k for each part, k), in terms of the bases of the parts; of a leaf (d, k), if it is kept. None
            stands for the identity, the whole product of the parts' bases.
        parts: what it was made of. node: its number in the tree, None for a partial product.
    """

    small: Tensor
    basis: Tensor | None = None
    parts: tuple[Part, ...] = ()
    node: int | None = None


class OrthonormalBases:
    """The bases of all nodes of a factorization.

    Args:
        factorization: any kind, order and widths; computed in its dtype on its device.
        leaves: whether to keep the bases of the leaves, which spectra do not need.

    Attributes:
        root: its small factor (product of its parts' k, 1) is the tensor in its parts' bases, over e^`log_scale`.
        log_scale: log of what was divided out to keep numbers near one in high orders.
    """

    def __init__(self, factorization: Factorization, leaves: bool = False) -> None:
        self._factorization, self._leaves = factorization, leaves
        self.log_scale = 0.0
        self._nodes: dict[int, Part] = {}
        self.root = self._sweep_up()

    def dimension(self, node: int) -> int:
        """k of a node's basis."""
        return len(self._nodes[node].small)

    def over_children(self, node: int) -> Tensor:
        """A node's basis in terms of its children's: (k_c for each child c in the order of the tree, k).

        A leaf's is (d, k); the root's the tensor in the bases of its children, with a last axis of 1. The factor
        e^`log_scale` is included in the latter.
        """
        part, children = self._nodes[node], self._factorization.tree.children[node]
        if not children:
            return _basis(part)
        core, nodes = _expanded(part, self.root.small * math.exp(self.log_scale) if part is self.root else _basis(part))
        return core.permute(*(nodes.index(child) for child in children), -1)

    def _sweep_up(self) -> Part:
        tree, weights = self._factorization.tree, self._factorization.node_weights
        for node, children in enumerate(tree.children):
            weight = weights[node]
            if not children:
                assert weight is not None
                self._nodes[node] = self._orthonormal(weight, (), (), node)
                continue
            parts = [self._nodes[c] for c in children]
            if self._factorization.dense_cores:
                core = self._factorization.core(node)
                for part in parts:  # each takes the first axis of the core and puts its own behind the others
                    core = torch.tensordot(core, part.small, dims=([0], [1]))
                self._nodes[node] = self._above_core(core.movedim(0, -1), tuple(parts), node)
                continue
            while len(parts) > 2:
                parts.sort(key=lambda part: len(part.small))
                a, b, *rest = parts
                product = row_products(a.small, b.small)
                parts = [self._orthonormal(product, (a, b), (len(a.small), len(b.small)), None), *rest]
            ranks = tuple(len(part.small) for part in parts)
            if node == tree.root:
                left = parts[0].small if weight is None else parts[0].small * weight.t()
                core = left @ parts[1].small.t() if len(parts) == 2 else left.sum(1)
                self._nodes[node] = Part(self._rescaled(core.reshape(-1, 1)), None, tuple(parts), node)
                continue
            assert weight is not None
            product = parts[0].small if len(parts) == 1 else row_products(parts[0].small, parts[1].small)
            self._nodes[node] = self._orthonormal(product @ weight, tuple(parts), ranks, node)
        return self._nodes[tree.root]

    def _above_core(self, core: Tensor, parts: tuple[Part, ...], node: int) -> Part:
        """The part of a node from its core in the bases of its children, (k for each child, R_parent)."""
        columns = core.flatten(0, -2)
        if node == self._factorization.tree.root:
            return Part(self._rescaled(columns), None, parts, node)
        return self._orthonormal(columns, parts, core.shape[:-1], node)

    def _rescaled(self, small: Tensor) -> Tensor:
        """Keep numbers near one in high orders, where products leave the range of doubles; see `log_scale`."""
        if self._factorization.order <= _SAFE_ORDER:
            return small
        largest = float(small.abs().max()) if small.numel() else 0.0
        if largest == 0.0 or not math.isfinite(largest):
            return small
        self.log_scale += math.log(largest)
        return small / largest

    def _orthonormal(self, columns: Tensor, parts: tuple[Part, ...], ranks: tuple[int, ...], node: int | None) -> Part:
        """columns (parts' k, R) = basis @ small; the identity does as a basis of no more rows than columns."""
        if columns.shape[0] <= columns.shape[1]:
            return Part(self._rescaled(columns), None, parts, node)
        if not parts and not self._leaves:
            return Part(self._rescaled(torch.linalg.qr(columns, mode="r").R), None, parts, node)
        basis, small = torch.linalg.qr(columns)
        return Part(self._rescaled(small), basis.view(*ranks, -1) if parts else basis, parts, node)


def _expanded(part: Part, core: Tensor) -> tuple[Tensor, list[int]]:
    """Vectors in the bases of a part's parts, written in those of the nodes below instead.

    Args:
        core: (k_a, k_b, m) or (k_a * k_b, m).
    Returns: (k, k, ..., m), and the node that each axis but the last belongs to.
    """
    core = core.reshape(*(len(below.small) for below in part.parts), -1)
    nodes: list[int] = []
    for below in part.parts:  # the axes of `core` are those of `nodes`, then of the parts that are left
        if below.node is not None:
            nodes.append(below.node)
            continue
        inner, more = _expanded(below, _basis(below))
        core = torch.tensordot(core, inner, dims=([len(nodes)], [inner.dim() - 1]))
        core = core.movedim(tuple(range(-len(more), 0)), tuple(range(len(nodes), len(nodes) + len(more))))
        nodes += more
    return core, nodes


def _basis(part: Part) -> Tensor:
    if part.basis is not None:
        return part.basis
    return torch.eye(len(part.small), dtype=part.small.dtype, device=part.small.device)


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """Row (i, j) is a[i, :] * b[j, :]: (k_a, R), (k_b, R) -> (k_a * k_b, R)."""
    return (a.unsqueeze(1) * b.unsqueeze(0)).flatten(0, 1)
