"""Balanced initialization: random weights with unbalancedness zero."""

from __future__ import annotations

import torch
from torch import Tensor

from htfcli.engine.factorizations.balance import balance
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.ranks.local_components import CoreComponents, LocalComponents, layers_of, product_of

_MAX_PASSES = 1000  # over the cores; tens suffice unless widths are larger than any rank
_BALANCED = 3e-16  # unbalancedness over the sum of squared weights


@torch.no_grad()
def init_balanced(factorization: Factorization, std: float, generator: torch.Generator) -> None:
    """Random weights with unbalancedness zero: all weight vectors of a component have the same length.

    Starts from a Gaussian initialization. The rows of an interior matrix belong to the node's own components and its
    columns to the parent's, so the squared norms of both must have the same total, over the whole tree. That total is
    chosen to keep the product of Frobenius norms. Up to it, the vectors of a component get the geometric mean of the
    norms of its Gaussian vectors; rows and columns are scaled in turn until they have these norms (Sinkhorn's iteration
    on the squared entries). A matrix factorization with product U S V^T becomes (U S^(1/L)) S^(1/L) ... (S^(1/L) V^T).
    With dense cores, the Gaussian tensor is kept, and the columns of every node and the slices of its parent's core get
    equal Gram matrices.

    Args:
        factorization: changed in place. std: standard deviation of the Gaussian start. generator: a CPU generator.
    """
    factorization.init_gaussian(std, generator)
    if factorization.dense_cores:
        _balance_cores(factorization)
        return
    if isinstance(factorization, MatrixFactorization):
        _split_evenly(layers_of(factorization))
        return
    tree = factorization.tree
    weights = [None if w is None else w.double() for w in factorization.node_weights]
    total = torch.stack([w.square().sum().log() for w in weights if w is not None]).mean().exp()
    targets: dict[int, Tensor] = {}  # squared norm of every component's vectors, (R_v,)
    for node, squares in LocalComponents(factorization)._squares.items():
        mean = torch.stack(squares).double().log().mean(0).exp()
        targets[node] = mean * (total / mean.sum())
    for node, weight in enumerate(weights):
        if weight is None:
            continue
        parent = tree.parent[node]
        column_targets = targets[parent] if parent >= 0 else total.view(1)
        _scale_to_norms(weight, targets.get(node), column_targets)
    for view, weight in zip(factorization.node_weights, weights, strict=True):
        if view is not None and weight is not None:
            view.copy_(weight)


def _balance_cores(factorization: Factorization) -> None:
    """Balance in float64 until the unbalancedness is at the level of rounding."""
    exact = factorization.to(torch.float64)
    for _ in range(_MAX_PASSES):
        balance(exact)
        if CoreComponents(exact).unbalancedness <= _BALANCED * float(exact.parameters.square().sum()):
            break
    factorization.parameters.copy_(exact.parameters)


def _scale_to_norms(weight: Tensor, rows: Tensor | None, columns: Tensor, max_sweeps: int = 10_000) -> None:
    """Scale rows and columns of `weight` in place until their squared norms are `rows` (if given) and `columns`."""
    for _ in range(max_sweeps):
        if rows is not None:
            weight.mul_((rows / weight.square().sum(1)).sqrt().unsqueeze(1))
        factor = (columns / weight.square().sum(0)).sqrt()
        weight.mul_(factor)
        if rows is None or float((factor - 1).abs().max()) < 1e-15:
            return


def _split_evenly(layers: list[Tensor]) -> None:
    """Give every layer the same share of the singular values of the product, which stays the same."""
    u, s, vh = torch.linalg.svd(product_of(layers), full_matrices=False)
    rank = min(min(layer.shape) for layer in layers)
    root = s[:rank].pow(1 / len(layers))
    for layer in layers:
        layer.zero_()
    layers[0][:, :rank] = u[:, :rank] * root
    for layer in layers[1:-1]:
        layer[:rank, :rank] = torch.diag(root)
    layers[-1][:rank, :] = root.unsqueeze(1) * vh[:rank]
