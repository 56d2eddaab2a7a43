"""Distance between two factorizations, without building their tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from htfcli.engine.factorizations.dense_cores import HierarchicalTuckerFactorization
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra


@torch.no_grad()
def log_distance(factorization: Factorization, other: Factorization) -> float | None:
    """Log of the Frobenius norm of the difference of two tensors, without building them.

    The difference of two factorizations on one tree is a factorization on the same tree, with block matrices. Its norm
    is computed from orthogonalized factors, accurate to machine precision relative to the larger of the two norms.
    Single-child nodes are multiplied out first.

    Returns: the log, -inf if the tensors are equal; None if the mode trees differ otherwise.
    """
    a, b = collapsed(factorization), collapsed(other.to(device=factorization.parameters.device))
    if a.tree != b.tree or a.dims != b.dims:
        return None
    if a.dense_cores or b.dense_cores:
        return FactoredSpectra(_core_difference(with_dense_cores(a), with_dense_cores(b))).log_norm
    tree = a.tree
    widths = {tree.labels[v]: a.widths[v] + b.widths[v] for v in tree.interior}
    difference = HierarchicalTensorFactorization(a.dims, widths, tree, device=a.parameters.device)
    for node, block in enumerate(difference.node_weights):
        assert block is not None
        ours, theirs = a.node_weights[node], b.node_weights[node]
        root = node == tree.root
        rows = 0 if node < tree.order else a.widths[node]  # only leaves share their rows
        columns = 0 if root else a.widths[tree.parent[node]]  # the root has one column for both
        block[: rows or None, : columns or None] = 1.0 if ours is None else ours
        block[rows:, columns:] = (1.0 if theirs is None else theirs) * (-1.0 if root else 1.0)
    return FactoredSpectra(difference).log_norm


def _core_difference(a: Factorization, b: Factorization) -> Factorization:
    """The difference of two factorizations with dense cores on one tree, as another one: block matrices and cores."""
    tree, device = a.tree, a.parameters.device
    widths = {tree.labels[v]: a.widths[v] + b.widths[v] for v in range(tree.root)}
    difference = HierarchicalTuckerFactorization(a.dims, widths, tree, device=device)
    for node in range(len(tree.children)):
        root = node == tree.root
        if node < tree.order:
            view, ours, theirs = difference.node_weights[node], a.node_weights[node], b.node_weights[node]
            assert view is not None and ours is not None and theirs is not None
            view.copy_(torch.cat([ours.double(), theirs.double()], 1))
            continue
        core, ours, theirs = difference.core(node), a.core(node), b.core(node)
        core[tuple(slice(size) for size in ours.shape)] = ours.double()
        behind = [slice(-size, None) for size in theirs.shape[:-1]]  # the root has one column for both
        core[(*behind, slice(-theirs.shape[-1], None))] = -theirs.double() if root else theirs.double()
    return difference


@torch.no_grad()
def with_dense_cores(factorization: Factorization) -> Factorization:
    """The same tensor with dense cores: those of other kinds vanish except on their diagonals, where all indices agree.

    A factorization with dense cores is returned as it is.
    """
    if factorization.dense_cores:
        return factorization
    tree = factorization.tree
    widths = {tree.labels[v]: factorization.widths[tree.parent[v]] for v in range(tree.root)}
    result = HierarchicalTuckerFactorization(
        factorization.dims, widths, tree, dtype=factorization.parameters.dtype, device=factorization.parameters.device
    )
    for node, (view, weight) in enumerate(zip(result.node_weights, factorization.node_weights, strict=True)):
        assert view is not None
        if node < tree.order:
            assert weight is not None
            view.copy_(weight)
            continue
        at = torch.arange(factorization.widths[node], device=view.device)
        result.core(node)[(at,) * len(tree.children[node])] = 1.0 if weight is None else weight
    return result


@torch.no_grad()
def collapsed(factorization: Factorization) -> Factorization:
    """The same tensor without single-child nodes: each is multiplied into its child, E_v = E_c @ W^(v).

    A factorization without such nodes is returned as it is.
    """
    tree = factorization.tree
    if all(len(children) != 1 for children in tree.children):
        return factorization
    nested: list[Any] = []
    weights: list[Tensor | None] = []
    for node, children in enumerate(tree.children):
        own = factorization.node_weights[node]
        if len(children) == 1:
            below = weights[children[0]]
            assert below is not None
            nested.append(nested[children[0]])
            weights.append(below.sum(1, keepdim=True) if own is None else below @ own)
        else:
            nested.append([nested[c] for c in children] if children else node)
            weights.append(own)
    short = ModeTree.from_nested(nested[-1])
    top = {modes: node for node, modes in enumerate(tree.modes)}  # the highest of the nodes with the same modes
    dtype, device = factorization.parameters.dtype, factorization.parameters.device
    result: Factorization
    if factorization.dense_cores:
        widths = {short.labels[v]: factorization.widths[top[short.modes[v]]] for v in range(short.root)}
        result = HierarchicalTuckerFactorization(factorization.dims, widths, short, dtype=dtype, device=device)
    else:
        widths = {short.labels[v]: factorization.widths[_lowest(tree, top[short.modes[v]])] for v in short.interior}
        result = HierarchicalTensorFactorization(factorization.dims, widths, short, dtype=dtype, device=device)
    for node, view in enumerate(result.node_weights):
        weight = weights[top[short.modes[node]]]
        assert view is not None
        view.copy_(torch.ones_like(view) if weight is None else weight)
    return result


def _lowest(tree: ModeTree, node: int) -> int:
    """The lowest node with the same modes: the end of a chain of single children."""
    while len(tree.children[node]) == 1:
        node = tree.children[node][0]
    return node
