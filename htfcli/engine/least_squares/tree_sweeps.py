"""One sweep up the mode tree and one down, at entries: vectors of nodes, their derivatives, and rows of the Jacobian.

With P_v the elementwise product of the children's vectors and S_v the derivative of the value with respect to E_v,

    E_v = P_v @ W^(v),   S_root = 1,   S_c = (S_v W^(v)T) * (product of the other children's E)   for every child c of v

Axes: `...` none, or `runs` where several factorizations of one shape are evaluated as one batch; `n` entries, `p`
parameters, `R` width of a node, `d` mode dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares.combinations import Combinations

Weights = Sequence[Tensor | None]


def upward(
    tree: ModeTree, weights: Weights, leaves: Sequence[Tensor], combinations: Combinations
) -> tuple[list[Tensor], list[Tensor | None]]:
    """E (..., n, R_parent) of every node, and P (..., n, R) of every interior node.

    Args:
        tree: the mode tree. weights: per node its matrix. leaves: per mode the rows of its matrix at the entries,
            (..., n, R_parent).
        combinations: of components below dense cores.
    """
    vectors: list[Tensor] = []
    products: list[Tensor | None] = []
    for node, children in enumerate(tree.children):
        weight = weights[node]
        if not children:
            vectors.append(leaves[node])
            products.append(None)
            continue
        product = reduce(torch.mul, (combinations.spread(c, vectors[c]) for c in children))
        products.append(product)
        vectors.append(product.sum(-1, keepdim=True) if weight is None else product @ weight)
    return vectors, products


def downward(
    tree: ModeTree, weights: Weights, vectors: Sequence[Tensor], seed: Tensor, combinations: Combinations
) -> list[Tensor]:
    """S (..., n, R_parent) of every node, times the seed (..., n, 1) at the root."""
    found: dict[int, Tensor] = {tree.root: seed}
    for node in reversed(tree.interior):
        children, weight = tree.children[node], weights[node]
        width = vectors[children[0]].shape[-1]
        upstream = found[node].expand(*seed.shape[:-1], width) if weight is None else found[node] @ weight.mT
        before = upstream  # times the children to the left
        factors = [combinations.spread(child, vectors[child]) for child in children]
        for child, factor in zip(children, factors, strict=True):
            found[child] = before
            before = before * factor if child != children[-1] else before
        after: Tensor | None = None
        for child, factor in zip(reversed(children), reversed(factors), strict=True):
            if after is not None:
                found[child] = found[child] * after
            after = factor if after is None else after * factor
            found[child] = combinations.collected(child, found[child])
    return [found[node] for node in range(len(tree.children))]


def jacobian_above(weights: Weights, products: Sequence[Tensor | None], slopes: Sequence[Tensor]) -> Tensor:
    """The columns of J for the weights above leaves, (..., n, q): rows P_v (x) S_v of every interior node."""
    parts = [slopes[0].new_zeros(*slopes[0].shape[:-1], 0)]
    parts += [
        (p.unsqueeze(-1) * s.unsqueeze(-2)).flatten(-2)
        for p, s, w in zip(products, slopes, weights, strict=True)
        if p is not None and w is not None
    ]
    return torch.cat(parts, -1)


def written_out(
    slopes: Sequence[Tensor], above: Tensor, columns: Sequence[Tensor], spans: Sequence[tuple[int, int, int]]
) -> Tensor:
    """J (..., n, p).

    Args:
        slopes: per leaf the non-zero part of its rows (..., n, R). above: the rest of J (..., n, q). columns: per mode
            the indices of the entries (..., n) int64. spans: per leaf its first parameter, rows and columns.
    """
    leaf_p = sum(rows * width for _, rows, width in spans)
    jacobian = above.new_zeros(*above.shape[:-1], leaf_p + above.shape[-1])
    jacobian[..., leaf_p:] = above
    for (start, rows, width), column, slope in zip(spans, columns, slopes, strict=True):
        part = jacobian[..., start : start + rows * width]
        part = part.view(*part.shape[:-1], rows, width)
        place = column[..., None, None].expand(*column.shape, 1, width)
        part.scatter_(-2, place, slope.unsqueeze(-2))
    return jacobian
