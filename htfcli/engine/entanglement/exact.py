"""Entanglement from M x M Gram matrices, exact: singular values of a matricization that is never formed.

With A_K (2^|K|, M) the products of feature vectors over K as columns, the data tensor's matricization is
A_K diag(y) A_{K^c}^T, so that its squared singular values are the eigenvalues of F^T diag(y) G_{K^c} diag(y) F for any
F (M, r) with F F^T = G_K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_EXPLICIT = 9  # features up to which A_K is written down: 512 columns cost less than the eigenvectors of G_K


@dataclass(frozen=True)
class Entanglement:
    """Entanglement across one partition, with rho_j = sigma_j^2 / sum sigma^2.

    Args:
        entropy: -sum rho_j log rho_j. geometric: sqrt(1 - max rho). error: standard error of the entropy where it is an
            estimate, 0 where it is exact.
    """

    entropy: float
    geometric: float
    error: float = 0.0


def entanglement_of(squares: Tensor) -> Entanglement:
    """From squared singular values (r,), rounding errors below zero counted as zero; 0 if all are zero."""
    squares = squares.clamp(min=0)
    total = squares.sum()
    if not float(total) > 0:
        return Entanglement(0.0, 0.0)
    rho = squares / total
    return Entanglement(float(torch.special.entr(rho).sum()), math.sqrt(max(0.0, 1 - float(rho.max()))))


def exact_entanglement(factor: Tensor, rest: Tensor, signs: Tensor) -> Entanglement:
    """Mean over labellings of the entanglement across a partition.

    Args:
        factor: F (M, r) with F F^T = G_K. rest: G_{K^c} (M, M). signs: (k, M) labels +-1.
    """
    found = []
    for y in signs:
        labelled = factor * y[:, None]
        squares = torch.linalg.eigvalsh(labelled.T @ (rest @ labelled))
        noise = torch.finfo(squares.dtype).eps * len(y)  # of an eigenvalue; every sample's own product is 1
        if float(squares.sum()) <= noise * len(y):  # equal samples with opposite labels: the data tensor is zero
            squares = torch.zeros_like(squares)
        found.append(entanglement_of(torch.where(squares > noise, squares, 0.0)))
    return mean_of(found)


def mean_of(found: list[Entanglement]) -> Entanglement:
    """The mean of estimates that are independent of each other."""
    n = len(found)
    error = math.sqrt(sum(e.error**2 for e in found)) / n
    return Entanglement(sum(e.entropy for e in found) / n, sum(e.geometric for e in found) / n, error)


def factor_of(x: Tensor, theta: float, log_gram: Tensor) -> Tensor:
    """F (M, r) with F F^T = exp(log_gram), the Gram matrix of features x (M, n).

    Few features are multiplied out, r = 2^n; otherwise F has the eigenvectors of the Gram matrix above rounding.
    """
    if x.shape[1] <= _EXPLICIT:
        factor = x.new_ones(len(x), 1)
        for angle in (math.pi * theta * x).unbind(1):
            factor = torch.cat([factor * angle.cos()[:, None], factor * angle.sin()[:, None]], dim=1)
        return factor
    values, vectors = torch.linalg.eigh(log_gram.exp())
    kept = values > torch.finfo(values.dtype).eps * values[-1]
    found: Tensor = vectors[:, kept] * values[kept].sqrt()
    return found
