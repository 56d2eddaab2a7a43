"""Blocks of J^T J that involve leaves, against the Jacobian written out."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.least_squares.leaf_normal_equations import LeafSums
from tests.problems import generator


@pytest.mark.parametrize("q", [0, 3])
def test_sums_over_blocks_are_the_products_of_the_jacobian(q):
    g = generator(q)
    shapes, n = [(4, 2), (3, 1), (5, 3)], 20
    spans, start = [], 0
    for d, width in shapes:
        spans.append((start, d, width))
        start += d * width
    p = start + q
    columns = [torch.randint(d, (n,), generator=g) for d, _ in shapes]
    leaves = [torch.randn(n, width, generator=g, dtype=torch.float64) for _, width in shapes]
    above = torch.randn(n, q, generator=g, dtype=torch.float64)
    residual = torch.randn(n, generator=g, dtype=torch.float64)
    jacobian = torch.zeros(n, p, dtype=torch.float64)
    jacobian[:, start:] = above
    for entry in range(n):
        for (first, _, width), column, leaf in zip(spans, columns, leaves, strict=True):
            at = first + width * int(column[entry])
            jacobian[entry, at : at + width] = leaf[entry]
    sums, gradient = LeafSums(spans, q, residual), torch.zeros(p, dtype=torch.float64)
    for block in (slice(0, 13), slice(13, n)):
        parts = [leaf[block] for leaf in leaves], above[block], residual[block], [column[block] for column in columns]
        sums.add(*parts, gradient)
    hessian = torch.full((p, p), torch.nan, dtype=torch.float64)
    hessian[start:, start:] = above.t() @ above  # not a leaf's
    sums.write(hessian)
    assert torch.allclose(hessian, jacobian.t() @ jacobian, atol=1e-12)
    assert torch.allclose(gradient[:start], (jacobian.t() @ residual)[:start], atol=1e-12)
    assert not gradient[start:].any()
