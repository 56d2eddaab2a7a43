"""The part of J^T J that involves leaves, whose rows of the Jacobian are nearly empty."""

from __future__ import annotations

import torch
from torch import Tensor


class LeafSums:
    """Blocks of J^T J that involve leaves, summed entry by entry where their indices say.

    Args:
        spans: (first parameter, d, R) of the leaves. q: parameters above the leaves. like: dtype and device.
    """

    def __init__(self, spans: list[tuple[int, int, int]], q: int, like: Tensor) -> None:
        self._spans, self._q, self._like = spans, q, like
        self._pairs: dict[tuple[int, int], Tensor] = {}
        self._above: dict[int, Tensor] = {}

    def add(
        self, leaves: list[Tensor], above: Tensor, residual: Tensor, columns: list[Tensor], gradient: Tensor
    ) -> None:
        """One block of entries; the leaves' part of J^T r goes into `gradient`."""
        for k, (start, d, width) in enumerate(self._spans):
            view = gradient[start : start + d * width].view(d, width)
            view.index_add_(0, columns[k], leaves[k] * residual.unsqueeze(1))
            if self._q:
                if k not in self._above:
                    self._above[k] = self._like.new_zeros(d, width * self._q)
                self._above[k].index_add_(0, columns[k], (leaves[k].unsqueeze(2) * above.unsqueeze(1)).flatten(1))
            for other in range(k, len(self._spans)):
                _, e, other_width = self._spans[other]
                row = columns[k] if other == k else columns[k] * e + columns[other]
                if (k, other) not in self._pairs:
                    count = d if other == k else d * e
                    self._pairs[k, other] = self._like.new_zeros(count, width * other_width)
                outer = (leaves[k].unsqueeze(2) * leaves[other].unsqueeze(1)).flatten(1)
                self._pairs[k, other].index_add_(0, row, outer)

    def write(self, hessian: Tensor) -> None:
        """Into their places of (p, p)."""
        above = slice(hessian.shape[0] - self._q, None)
        for k, total in self._above.items():
            start, d, width = self._spans[k]
            rows = slice(start, start + d * width)
            hessian[rows, above] = total.view(d * width, self._q)
            hessian[above, rows] = total.view(d * width, self._q).t()
        for (k, other), total in self._pairs.items():
            start, d, width = self._spans[k]
            rows = slice(start, start + d * width)
            if k == other:
                hessian[rows, rows] = torch.block_diag(*total.view(d, width, width))  # type: ignore[no-untyped-call]
                continue
            first, e, other_width = self._spans[other]
            columns = slice(first, first + e * other_width)
            block = total.view(d, e, width, other_width).permute(0, 2, 1, 3).reshape(d * width, e * other_width)
            hessian[rows, columns] = block
            hessian[columns, rows] = block.t()
