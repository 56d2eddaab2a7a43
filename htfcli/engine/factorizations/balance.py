"""Balancing: make the weight vectors of every local component equally long without changing the tensor."""

from __future__ import annotations

import torch

from htfcli.engine.factorizations.factorization import Factorization


def balance(model: Factorization, sweeps: int = 1, *, keep_root: bool = False) -> None:
    """Make the weight vectors of every local component equally long, in place; the tensor stays the same.

    Every vector of a component is scaled to the geometric mean of their lengths. A component with a zero vector is left
    as it is. A matrix holds vectors of its own node's components (rows) and of its parent's (columns), so one pass
    balances the root exactly and the other nodes approximately; passes converge.

    Args:
        model: changed in place; may be a batch, with parameters (runs, p). sweeps: passes over the tree.
            keep_root: leave the output weights as they are.
    """
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
