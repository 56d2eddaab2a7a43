"""Gram matrices of products of feature vectors, as logarithms: products over thousands of features underflow.

A feature x in [0, 1] is mapped to phi(x) = (cos(pi theta x), sin(pi theta x)), so that the inner product of samples m
and m' over features K is the product over n in K of cos(pi theta (x[m, n] - x[m', n])), which is not negative for
theta <= 1/2.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

_NODES = 32  # of the Chebyshev interpolation; for angles up to 1/4 its coefficients fall below rounding before the end
_ROUNDING = 1e-14  # coefficients below this times the largest are noise of the interpolation in float64
_BLOCK = 2**26  # numbers of an expansion held at a time: 512 MiB in float64
_ROWS = 1024  # rows of a matrix product: few enough that little below the diagonal is computed
_FACTORS = 8  # cosines multiplied before a logarithm is taken: 1e-30^8 is still a float64
_ZERO = 1e-30  # orthogonal vectors: cos(pi / 2) is not exactly zero in floating point, and log 0 is not finite


def log_gram(x: Tensor, theta: float, accuracy: float = 1e-12) -> Tensor:
    """log G, (M, M), with G[m, m'] = product over n of cos(pi theta (x[m, n] - x[m', n])).

    Args:
        x: (M, n) in [0, 1]; float32 or float64, as the result. theta: in (0, 1/2].
        accuracy: of each entry, absolute, beside rounding; where log cos is expanded, terms below it are left out.
    """
    found = _expansion(theta, accuracy / max(1, x.shape[1]))
    return _direct(x, theta) if found is None else _expanded(x, *found)


@cache
def _expansion(theta: float, tolerance: float) -> tuple[Tensor, Tensor] | None:
    """log cos(pi theta (a - b)) = sum_r s_r u_r(a) u_r(b) + v(a) + v(b) on [0, 1]^2.

    Returns:
        s (r,), and the Chebyshev coefficients of u_r, (nodes - 1, r), from degree 1 on; None if `_NODES` do not suffice
        for `theta`. v follows from log cos 0 = 0.
    """
    angle = (torch.arange(_NODES, dtype=torch.float64) + 0.5) * (math.pi / _NODES)
    node = (angle.cos() + 1) / 2
    values = (math.pi * theta * (node[:, None] - node)).cos().log()
    transform = (torch.arange(_NODES, dtype=torch.float64)[:, None] * angle).cos() * (2 / _NODES)
    transform[0] /= 2
    mixed = (transform @ values @ transform.T)[1:, 1:]  # what is of degree 0 in a or b is part of v
    if not float(mixed[-2:].abs().max()) <= _ROUNDING * float(mixed.abs().max()):
        return None
    weight, vectors = torch.linalg.eigh((mixed + mixed.T) / 2)
    kept = weight.abs() > max(tolerance, _ROUNDING * float(weight.abs().max()))
    return weight[kept], vectors[:, kept]


def _expanded(x: Tensor, weight: Tensor, coefficients: Tensor) -> Tensor:
    """By matrix products: M^2 n r operations for r terms, above the diagonal alone."""
    samples, count = x.shape
    gram = x.new_zeros(samples, samples)
    weight, coefficients = weight.to(x), coefficients.to(x)
    step = max(1, _BLOCK // (samples * max(1, len(weight))))
    for first in range(0, count, step):
        part = 2 * x[:, first : first + step] - 1
        terms = part.new_zeros(len(weight), *part.shape)
        before, now = torch.ones_like(part), part
        for row in coefficients:
            terms.addcmul_(now[None], row[:, None, None])
            before, now = now, 2 * part * now - before
        left = (terms * weight[:, None, None]).transpose(0, 1).reshape(samples, -1)
        right = terms.transpose(0, 1).reshape(samples, -1)
        for at in range(0, samples, _ROWS):
            gram[at : at + _ROWS, at:].addmm_(left[at : at + _ROWS], right[at:].T)
    for at in range(0, samples, _ROWS):
        gram[at + _ROWS :, at : at + _ROWS] = gram[at : at + _ROWS, at + _ROWS :].T
    half = gram.diagonal().clone() / 2
    return gram.sub_(half[:, None]).sub_(half)


def _direct(x: Tensor, theta: float) -> Tensor:
    """Feature by feature, in float64."""
    angle = math.pi * theta * x.double()
    gram = angle.new_zeros(len(x), len(x))
    for first in range(0, x.shape[1], _FACTORS):
        product = torch.ones_like(gram)
        for column in angle[:, first : first + _FACTORS].unbind(1):
            cosine = torch.outer(column.cos(), column.cos()).addr_(column.sin(), column.sin())
            product *= cosine.clamp_(min=_ZERO)
        gram += product.log_()
    return gram.to(x.dtype)
