"""Balanced initialization: random weights of unbalancedness zero."""

from __future__ import annotations

import torch
from torch import Tensor

from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.ranks.local_components import LocalComponents, layers_of, product_of


@torch.no_grad()
def init_balanced(factorization: Factorization, std: float, generator: torch.Generator) -> None:
    """Random weights of unbalancedness zero: all weight vectors of a component equally long.

    Starts from the Gaussian initialization. Every matrix but the leaves' has prescribed row norms (its own
    components) and column norms (its parent's), so their squares must have one total, the same over the whole tree:
    it is chosen to keep the product of Frobenius norms. A component's norm is the geometric mean of those of its
    Gaussian vectors, up to that total, and rows and columns are scaled in turn until they have it (Sinkhorn's
    iteration on the squared entries). A matrix factorization takes equal roots of its product's singular values: (U
    S^(1/L)) (S^(1/L)) ... (S^(1/L) V^T).

    Args:
        factorization: changed in place. std: of the Gaussian start. generator: a CPU generator.
    """
    factorization.init_gaussian(std, generator)
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
    u, s, vh = torch.linalg.svd(product_of(layers), full_matrices=False)
    rank = min(min(layer.shape) for layer in layers)
    root = s[:rank].pow(1 / len(layers))
    for layer in layers:
        layer.zero_()
    layers[0][:, :rank] = u[:, :rank] * root
    for layer in layers[1:-1]:
        layer[:rank, :rank] = torch.diag(root)
    layers[-1][:rank, :] = root.unsqueeze(1) * vh[:rank]
