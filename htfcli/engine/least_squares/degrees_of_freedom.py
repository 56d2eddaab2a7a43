"""Degrees of freedom of a factorization: the rank of the Jacobian of its entries with respect to its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.least_squares.jacobian import Sweeps
from htfcli.engine.samples import Entries


@torch.no_grad()
def jacobian_rank(model: Factorization, index: Tensor) -> int:
    """The rank of the Jacobian at some entries: how many numbers they determine, near these weights.

    At all entries, or enough random ones, of a factorization with random weights, it is the dimension of the set of
    tensors of that shape: the number of weights less that of directions in which the tensor stays the same.

    Args:
        model: float64. index: (n, N).
    """
    values = torch.zeros(len(index), dtype=torch.float64)
    jacobian = Sweeps(model, Entries(index, values)).jacobian(model.parameters)
    # Rows and columns differ in size by many powers of ten in deep trees, which the rank must not depend on
    for dim in (1, 0, 1):
        jacobian = jacobian / torch.linalg.vector_norm(jacobian, dim=dim, keepdim=True).clamp_min(1e-300)
    return int(torch.linalg.matrix_rank(jacobian))
