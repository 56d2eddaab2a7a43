"""Balancing: share the scale of a factorization evenly among its weights without changing the tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization


def balance(model: Factorization, sweeps: int = 1, *, keep_root: bool = False) -> None:
    """Make the weight vectors of every local component equally long, in place; the tensor stays the same.

    Every vector of a component is scaled to the geometric mean of their lengths. A component with a zero vector is left
    as it is. A matrix holds vectors of its own node's components (rows) and of its parent's (columns), so one pass
    balances the root exactly and the other nodes approximately; passes converge. With dense cores, the columns of a
    node and the slices of its parent's core get equal Gram matrices, see `_balance_cores`.

    Args:
        model: changed in place; may be a batch, with parameters (runs, p). sweeps: passes over the tree.
            keep_root: leave the output weights as they are.
    """
    if model.dense_cores:
        _balance_cores(model, sweeps, keep_root)
        return
    tree, weights = model.tree, model.node_weights
    for _ in range(sweeps):
        for node in tree.interior:
            own = None if keep_root and node == tree.root else weights[node]
            vectors = [weights[c] for c in tree.children[node]]
            norms = [torch.linalg.vector_norm(w, dim=-2) for w in vectors if w is not None]
            if own is not None:
                norms.append(torch.linalg.vector_norm(own, dim=-1))
            logs = torch.stack(norms).log()
            factors = torch.where(logs.isfinite().all(0), (logs.mean(0) - logs).exp(), 1.0)
            for vector, factor in zip(vectors, factors, strict=False):
                if vector is not None:
                    vector.mul_(factor.unsqueeze(-2))
            if own is not None:
                own.mul_(factors[-1].unsqueeze(-1))


def _balance_cores(model: Factorization, sweeps: int, keep_root: bool) -> None:
    """For every node c with matrix W and slices G (one row per column of W) of its parent's core: W^T W = G G^T.

    The tensor holds W only in the product W G, so W A and A^-1 G with an invertible A give the same one. From
    W G = U S V^T, the two become U S^(1/2) Q and Q^T S^(1/2) V^T, with Q orthogonal such that W changes least. This
    minimizes the sum of squared weights over A; passes over the tree converge to its minimum over all nodes.
    """
    tree = model.tree
    for _ in range(sweeps):
        for node in range(tree.root):
            if keep_root and tree.parent[node] == tree.root:
                continue
            weight, core = model.node_weights[node], slices(model, node)
            assert weight is not None
            flat = core.flatten(1).double()
            (left, small), (right, other) = torch.linalg.qr(weight.double()), torch.linalg.qr(flat.t())
            u, s, vh = torch.linalg.svd(small @ other.t(), full_matrices=False)
            columns, rows = left @ u * s.sqrt(), (right @ vh.t() * s.sqrt()).t()
            x, _, yh = torch.linalg.svd(columns.t() @ weight.double(), full_matrices=False)
            rotation = x @ yh
            weight.copy_(columns @ rotation)
            core.copy_((rotation.t() @ rows).view(core.shape))


def slices(model: Factorization, node: int) -> Tensor:
    """The core of a node's parent as one slice per column of the node, (R_node, ...): a view."""
    parent = model.tree.parent[node]
    return model.core(parent).movedim(model.tree.children[parent].index(node), 0)
