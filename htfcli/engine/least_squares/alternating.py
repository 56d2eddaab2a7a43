"""Alternating least squares for large problems: one weight matrix after another, each solved exactly.

With all others held fixed the values are linear in one matrix, and its normal equations fall apart: a leaf's rows have
one small system each (R x R), an interior node has one (R_v R_parent square). A sweep over the tree costs a few passes
over the entries, whatever the mode dimensions.
"""

from __future__ import annotations

import torch

from htfcli.engine.factorizations.balance import balance
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.least_squares.jacobian import Sweeps
from htfcli.engine.least_squares.robust import robust_weights
from htfcli.engine.samples import Entries

_TINY = 1e-7  # shift of a system, over its mean diagonal: keeps rows without data where they are


class AlternatingLeastSquares:
    """Minimizes the same objective as `LevenbergMarquardt`, with the same interface; an iteration is a sweep.

    Args:
        model: changed in place. entries: what it is fitted to. ridge: penalty on the squared weights. loss: l2, l1 or
        huber.

    Attributes:
        loss: (weighted) sum of squared residuals at the weights of now. iterations: sweeps so far.
        work: estimate of what a sweep takes, in nanoseconds of one core.
    """

    def __init__(self, model: Factorization, entries: Entries, ridge: float = 0.0, loss: str = "l2") -> None:
        self.model, self.ridge, self.iterations = model, ridge, 0
        self._sweeps = Sweeps(model, entries)
        self._robust = loss if loss != "l2" else None
        solved = [node for node, weight in enumerate(model.node_weights) if weight is not None]
        self._order = [*solved, *reversed(solved[:-1])]  # up the tree and down again
        sizes = [columns if node < model.order else rows * columns for node, (_, rows, columns) in self._nodes(solved)]
        self.work = 2 * (len(solved) * self._sweeps.sweep_work + sum(s * s for s in sizes) * len(entries.value))
        balance(model, sweeps=5)
        self.refresh()

    def _nodes(self, nodes: list[int]) -> list[tuple[int, tuple[int, int, int]]]:
        return [(node, self._sweeps.spans[node]) for node in nodes]

    @property
    def objective(self) -> float:
        return self.loss + self.ridge * float(self.model.parameters.square().sum())

    def refresh(self) -> None:
        """The loss at the weights of now."""
        self.loss = self._sweeps.loss(self.model.parameters)

    def set_ridge(self, ridge: float) -> None:
        """Go on with another penalty."""
        self.ridge = ridge

    def step(self) -> None:
        """One sweep."""
        self.iterations += 1
        for node in self._order:
            self._solve(node)
        balance(self.model)
        self.refresh()

    def run(self, iterations: int, tolerance: float = 0.0, slow: float = 1e-3, patience: int = 2) -> None:
        """Sweep until the loss is under `tolerance`, or `patience` sweeps in a row gain less than the share `slow`."""
        if self._robust is not None:
            self._sweeps.set_weight(robust_weights(self._sweeps.residuals(self.model.parameters), self._robust))
            self.refresh()
        calm = 0
        for _ in range(iterations):
            before = self.objective
            self.step()
            calm = calm + 1 if before - self.objective < slow * before else 0
            if calm >= patience or self.loss <= tolerance:
                return

    def _solve(self, node: int) -> None:
        """The matrix of a node that minimizes the objective, all others as they are: a Newton step, exact here."""
        weight = self.model.node_weights[node]
        assert weight is not None
        block, gradient = self._sweeps.node_normal(self.model.parameters, node)
        block, gradient = block.double(), gradient.double()
        gradient.add_(weight.double().reshape(gradient.shape), alpha=self.ridge)
        diagonal = block.diagonal(dim1=1, dim2=2)
        diagonal.add_(self.ridge + _TINY * diagonal.mean().clamp_min(1e-300))
        factor, info = torch.linalg.cholesky_ex(block)
        step = torch.cholesky_solve(gradient.unsqueeze(2), factor).squeeze(2)
        step[info > 0] = 0.0
        weight.sub_(step.reshape(weight.shape).to(weight.dtype))
