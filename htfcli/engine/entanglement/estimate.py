"""Entanglement of many samples, estimated: stochastic Lanczos quadrature, beside the leading directions exactly.

With A = y y' * G_K and B = G_{K^c}, S = B^(1/2) A B^(1/2) has the squared singular values as eigenvalues lambda, and
the entropy is sum over j of -(lambda_j / tr S) log(lambda_j / tr S), with tr S = sum of A * B known exactly. For a
vector z, z' S log(S) z = <w, log(B A) w>_A with w = B^(1/2) z and <u, v>_A = u' A v, which Lanczos steps with
products by A and B give; no matrix is decomposed. Vectors z are an orthonormal basis of nearly the leading
eigenvectors, each with weight one, and random ones orthogonal to them, whose mean estimates what is left. Sources:
Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature" (2017); Meyer, Musco, Musco and
Woodruff, "Hutch++" (2021).

Axes: `M` samples, `b` vectors, `k` Lanczos steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from htfcli.engine.entanglement.exact import Entanglement

Product = Callable[[Tensor], Tensor]

_STEPS = 12  # Lanczos steps: the quadrature is exact for polynomials of degree 23
_LEADING = 24  # directions that are treated exactly
_RANDOM = 16  # vectors for what is left; the standard error falls with the square root of their number
_NEGLIGIBLE = 1e-6  # of the largest: rounding in float32, of directions that the leading ones repeat
_ROUNDING = 1e-3  # of an entropy in float32, against exact ones of 20 to 2,000 samples


def estimated_entanglement(ours: Tensor, rest: Tensor, y: Tensor, generator: torch.Generator) -> Entanglement:
    """Estimate of `exact_entanglement` for one labelling, with a standard error.

    Args:
        ours: G_K (M, M). rest: G_{K^c} (M, M). y: (M,) labels +-1. generator: of random vectors, on the CPU.
    """

    def times_a(v: Tensor) -> Tensor:
        return y[:, None] * (ours @ (y[:, None] * v))

    def times_b(v: Tensor) -> Tensor:
        return rest @ v

    # row by row: a copy of an M x M matrix would be a quarter of the memory that is needed
    trace = math.fsum(float(sign * torch.dot(row * y, other)) for sign, row, other in zip(y, ours, rest, strict=True))
    start = torch.randn(len(y), _LEADING + _RANDOM, generator=generator).to(ours)
    guess, random = start[:, :_LEADING], _square_root(times_b, start[:, _LEADING:])
    basis = times_a(times_b(times_a(guess)))  # the leading directions are B^(1/2) basis, made orthonormal
    image = times_b(basis)
    size, turn = torch.linalg.eigh((basis.T @ image).double())
    kept = size > _NEGLIGIBLE * size[-1]
    mixing = (turn[:, kept] / size[kept].sqrt()).to(ours)
    leading = image @ mixing
    random = random - leading @ (mixing.T @ (basis.T @ random))
    known = leading.shape[1]
    # of S among the leading directions; quadrature nodes can lie anywhere once a Krylov space is exhausted
    largest = float(torch.linalg.eigvalsh((leading.T @ times_a(leading)).double())[-1])
    weight, quadrature = _quadrature(times_a, times_b, torch.cat([leading, random], dim=1), trace)
    rest_of_trace = max(0.0, trace - float(weight[:known].sum()))
    ratio = float(quadrature[known:].sum() / weight[known:].sum().clamp(min=1e-300))
    deviation = quadrature[known:] - ratio * weight[known:]
    spread = float(deviation.std() / math.sqrt(_RANDOM) / weight[known:].mean().clamp(min=1e-300))
    entropy = (float(quadrature[:known].sum()) + rest_of_trace * ratio) / trace
    error = math.hypot(rest_of_trace * spread / trace, _ROUNDING)
    return Entanglement(max(0.0, entropy), math.sqrt(max(0.0, 1 - largest / trace)), error)


def _quadrature(times_a: Product, times_b: Product, w: Tensor, trace: float) -> tuple[Tensor, Tensor]:
    """For every column w (M, b): <w, w>_A and <w, -log(B A / trace) w>_A, both (b,) float64."""
    image = times_a(w)
    square = (w * image).sum(0).clamp(min=0).double()
    norm = square.sqrt().to(w)
    before, before_norm = torch.zeros_like(w), torch.zeros_like(norm)
    diagonal, beside = [], []
    for _ in range(_STEPS):
        now, image = _divided(w, norm), _divided(image, norm)
        ahead = times_b(image)
        alpha = (ahead * image).sum(0)
        w = ahead - alpha * now - before_norm * before
        diagonal.append(alpha)
        image = times_a(w)
        norm = (w * image).sum(0).clamp(min=0).sqrt()
        norm = torch.where(norm > _NEGLIGIBLE * diagonal[0].abs(), norm, 0.0)
        before, before_norm = now, norm
        beside.append(norm)
    nodes, vectors = torch.linalg.eigh(_tridiagonal(diagonal, beside))
    share = vectors[:, 0].square()
    value = -(share * (nodes / trace).clamp(1e-300, 1.0).log()).sum(1)
    return square, square * value


def _square_root(times: Product, z: Tensor) -> Tensor:
    """B^(1/2) z for every column of z (M, b), from a Krylov space."""
    norm = first = z.norm(dim=0)
    before, before_norm = torch.zeros_like(z), torch.zeros_like(norm)
    basis, diagonal, beside = [], [], []
    w = z
    for _ in range(_STEPS):
        now = _divided(w, norm)
        ahead = times(now)
        alpha = (ahead * now).sum(0)
        w = ahead - alpha * now - before_norm * before
        basis.append(now)
        diagonal.append(alpha)
        norm = w.norm(dim=0)
        norm = torch.where(norm > _NEGLIGIBLE * diagonal[0].abs(), norm, 0.0)
        before, before_norm = now, norm
        beside.append(norm)
    nodes, vectors = torch.linalg.eigh(_tridiagonal(diagonal, beside))
    mixing = (vectors * nodes.clamp(min=0).sqrt()[:, None] @ vectors[:, 0, :, None])[:, :, 0].to(z)  # (b, k)
    found = torch.zeros_like(z)
    for step, column in enumerate(basis):
        found.addcmul_(column, mixing[:, step][None])
    root: Tensor = found * first
    return root


def _tridiagonal(diagonal: list[Tensor], beside: list[Tensor]) -> Tensor:
    """(b, k, k) float64 from k columns (b,) on and k columns beside the diagonal, the last of which is unused."""
    off = torch.stack(beside[:-1], dim=1).double()
    return torch.diag_embed(torch.stack(diagonal, dim=1).double()) + off.diag_embed(1) + off.diag_embed(-1)


def _divided(w: Tensor, norm: Tensor) -> Tensor:
    """Columns divided by their norms; zero where the Krylov space has ended."""
    return torch.where(norm > 0, w / norm.clamp(min=1e-30), 0.0)
