"""Levenberg-Marquardt on the weight matrices of a factorization: a least-squares solution in a few dozen steps.

Minimizes  sum of squared residuals + ridge * (sum of squared weights)  by steps

    (J^T J + (ridge + mu) I) step = -(J^T r + ridge * weights)

where the damping mu follows the ratio of actual to predicted gain of the last step (Nielsen, 1999). Scale can move
between the weight vectors of a component without changing the tensor, so after every step the vectors of a component
are made equally long. This also turns the ridge into a penalty on component norms that shrinks small components most.
Small problems factorize J^T J (Cholesky); large ones solve for the step by conjugate gradients, preconditioned with the
diagonal blocks of J^T J.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from htfcli.engine.factorizations.balance import balance
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.least_squares.conjugate_gradients import conjugate_gradients
from htfcli.engine.least_squares.jacobian import Sweeps
from htfcli.engine.least_squares.robust import robust_weights
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.samples import Entries

MATRIX_LIMIT = 2500  # parameters up to which J^T J is built (50 MB)
_MAX_SOLVES = 60  # iterations of conjugate gradients per step
_ACCURACY = 0.01  # of conjugate gradients, squared: a step solved to a tenth is good enough
_BEND = 0.75  # largest length of the correction of a step, over the step's (Transtrum and Sethna, 2012)
_FIRST_DAMPING = 1e-3  # over the mean diagonal of J^T J
_LEAST_DAMPING, _MOST_DAMPING = 1e-16, 1e10  # likewise: rounding of J^T J, and steps too short to change anything
_FIRST_BALANCING = 5  # passes before the first step; each pass leaves the vectors of a component more nearly equal


class LevenbergMarquardt:
    """Minimizes over the weights of `model`, in place.

    Args:
        model: float64, fitted in place. entries: what it is fitted to. ridge: penalty on the squared weights.
        loss: `l2`; or `huber` or `l1`, by iteratively reweighted least squares (see `robust_weights`).
        damping: the first mu, over the mean diagonal of J^T J. workers: the processes that share the sums over entries.

    Attributes:
        loss: (weighted) sum of squared residuals at the current weights. iterations: steps tried so far.
        stalled: no step was found that lowers the objective.
    """

    def __init__(
        self,
        model: Factorization,
        entries: Entries,
        ridge: float = 0.0,
        loss: str = "l2",
        damping: float = _FIRST_DAMPING,
        *,
        workers: Workers | None = None,
    ) -> None:
        self.model, self.ridge = model, ridge
        self.iterations, self.stalled = 0, False
        self._sweeps = Sweeps(model, entries, workers=workers)
        self._robust = loss if loss != "l2" else None
        self._small = self._sweeps.p <= MATRIX_LIMIT
        self._growth = 2.0
        balance(model, sweeps=_FIRST_BALANCING)
        self.refresh()
        self._mu = damping * self._scale

    @property
    def work(self) -> float:
        """Estimated cost of an iteration, see `Sweeps.work`."""
        return self._sweeps.work if self._small else self._sweeps.sweep_work * _MAX_SOLVES

    @property
    def objective(self) -> float:
        """`loss` plus the ridge penalty."""
        return self.loss + self.ridge * float(self.model.parameters.square().sum())

    def set_ridge(self, ridge: float) -> None:
        """Continue with another penalty."""
        self.ridge, self.stalled, self._growth = ridge, False, 2.0
        self._mu = min(self._mu, _FIRST_DAMPING * self._scale)

    def step(self) -> bool:
        """Try one step; True if it lowered the objective and was taken."""
        parameters, before = self.model.parameters, self.objective
        self.iterations += 1
        gradient = self._gradient + self.ridge * parameters
        step = self._solve(gradient)
        if step is not None:
            predicted = float(step @ (self._mu * step - gradient))
            step = self._bent(step)
            moved = parameters + step
            loss = self._sweeps.loss(moved)
            after = loss + self.ridge * float(moved.square().sum())
            if math.isfinite(after) and after < before:
                gain = (before - after) / max(predicted, 1e-300)
                parameters.copy_(moved)
                balance(self.model)
                self.refresh()
                self._mu *= 0.1 if gain > 0.75 else max(1 / 3, 1 - (2 * gain - 1) ** 3)
                self._mu = max(self._mu, _LEAST_DAMPING * self._scale)
                self._growth = 2.0
                return True
        self._mu *= self._growth
        self._growth *= 2
        self.stalled = self._mu > _MOST_DAMPING * self._scale
        return False

    def run(self, iterations: int, tolerance: float = 0.0, slow: float = 1e-3, patience: int = 4) -> None:
        """Step until a stop rule holds; the weights of a robust loss are computed first.

        Args:
            iterations: steps at most. tolerance: stop once the loss is at most this. slow, patience: stop after
            `patience` consecutive successful steps that lower the objective by less than the fraction `slow`.
        """
        self.reweight()
        calm, last = 0, self.iterations + iterations
        while self.iterations < last and not self.stalled and self.loss > tolerance:
            before = self.objective
            if self.step():
                calm = calm + 1 if before - self.objective < slow * before else 0
                if calm >= patience:
                    return

    def reweight(self) -> None:
        """Compute the weights of a robust loss from the current residuals; does nothing for l2."""
        if self._robust is not None:
            self._sweeps.set_weight(robust_weights(self._sweeps.residuals(self.model.parameters), self._robust))
            self.refresh()

    @property
    def damping(self) -> Tensor:
        """State besides the weights: mu, its growth factor, and whether the run has stalled; (3,)."""
        return torch.tensor([self._mu, self._growth, self.stalled], dtype=torch.float64)

    def restore(self, parameters: Tensor, damping: Tensor) -> None:
        """Continue from saved weights (p,) and `damping`."""
        self.model.parameters.copy_(parameters)
        self._mu, self._growth, self.stalled = float(damping[0]), float(damping[1]), bool(damping[2])
        self.refresh()
        self.reweight()

    # --- one step -----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Compute loss and derivatives at the current weights."""
        parameters = self.model.parameters
        self._factored: tuple[float, list[Tensor]] | None = None
        if self._small:
            normal = self._sweeps.normal(parameters)
            self._hessian, self._gradient, self.loss = normal.hessian, normal.gradient, normal.loss
            self._scale = max(float(normal.hessian.diagonal().mean()), 1e-300)
        else:
            self._gradient, self.loss = self._sweeps.gradient(parameters)
            self._blocks = self._sweeps.diagonal_blocks(parameters)
            trace = sum(float(b.diagonal(dim1=1, dim2=2).sum()) for b in self._blocks)
            self._scale = max(trace / len(parameters), 1e-300)

    def _bent(self, step: Tensor) -> Tensor:
        """The step with geodesic acceleration: plus half the correction a, (J^T J + shift) a = -J^T r''.

        r'' is the second derivative of the residuals along the step. Where the correction is too long, the step is
        returned unchanged. Source: Transtrum and Sethna (2012, arXiv 1201.5885).
        """
        curvature = self._sweeps.curvature(self.model.parameters, step)
        correction = self._solve(curvature)
        if correction is None or float(correction.norm()) > _BEND * float(step.norm()):
            return step
        return step.add(correction, alpha=0.5)

    def _solve(self, gradient: Tensor) -> Tensor | None:
        """The step -(J^T J + ridge + mu)^-1 gradient, (p,); None where the matrix is not positive definite."""
        shift = self.ridge + self._mu
        factors = self._factors(shift)
        if factors is None:
            return None
        if self._small:
            return -torch.cholesky_solve(gradient.unsqueeze(1), factors[0][0]).squeeze(1)

        def product(direction: Tensor) -> Tensor:
            return self._sweeps.product(self.model.parameters, direction).add_(direction, alpha=shift)

        def precondition(vector: Tensor) -> Tensor:
            parts = []
            for (start, rows, columns), factor in zip(self._sweeps.spans, factors, strict=True):
                part = vector[start : start + rows * columns]
                if len(part):
                    shaped = part.view(factor.shape[0], -1, 1)
                    parts.append(torch.cholesky_solve(shaped, factor).flatten())
            return torch.cat(parts)

        return conjugate_gradients(product, -gradient, precondition, iterations=_MAX_SOLVES, goal=_ACCURACY)

    def _factors(self, shift: float) -> list[Tensor] | None:
        """Cholesky factors of J^T J + shift, or of its diagonal blocks; None where one is not positive definite.

        Kept until the weights or the shift change: a step and its correction use the same ones.
        """
        if self._factored is None or self._factored[0] != shift:
            factors = []
            for block in [self._hessian.unsqueeze(0)] if self._small else self._blocks:
                shifted = block.clone()
                shifted.diagonal(dim1=1, dim2=2).add_(shift)
                factor, info = torch.linalg.cholesky_ex(shifted)
                if bool(info.any()):
                    return None
                factors.append(factor)
            self._factored = shift, factors
        return self._factored[1]
