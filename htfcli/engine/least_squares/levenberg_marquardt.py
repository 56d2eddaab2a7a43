"""Levenberg-Marquardt on the weight matrices of a factorization: a few dozen steps to a least-squares solution.

Minimizes  sum of squared residuals + ridge * (sum of squared weights)  by steps

    (J^T J + (ridge + mu) I) step = -(J^T r + ridge * weights)

with the damping mu adapted to how well the last step was predicted (Nielsen, 1999). The scale of a component can move
between its weight vectors without changing the tensor; after every step all vectors of a component are made equally
long, which also makes the ridge the penalty it should be: on components, small ones first. Small problems factorize
J^T J (Cholesky), large ones solve for the step by conjugate gradients preconditioned with its diagonal blocks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from htfcli.engine.factorizations.balance import balance
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.least_squares.jacobian import Sweeps
from htfcli.engine.least_squares.robust import robust_weights
from htfcli.engine.samples import Entries

MATRIX_LIMIT = 2500  # parameters up to which J^T J is built (50 MB)
_MAX_SOLVES = 60  # of conjugate gradients a step
_BEND = 0.75
_FIRST_DAMPING = 1e-3  # over the mean diagonal of J^T J


class LevenbergMarquardt:
    """Minimizes over the weights of `model`, in place.

    Args:
        model: float64. entries: what it is fitted to. ridge: penalty on the squared weights.
        loss: `l2`; or `huber` or `l1`, for which the squared residuals get weights that make their sum behave like it
        (iteratively reweighted least squares). damping: mu at first, over the mean diagonal of J^T J.

    Attributes:
        loss: (weighted) sum of squared residuals at the weights of now. iterations: steps tried so far.
        stalled: no step could be found that lowers the objective.
    """

    def __init__(
        self,
        model: Factorization,
        entries: Entries,
        ridge: float = 0.0,
        loss: str = "l2",
        damping: float = _FIRST_DAMPING,
    ) -> None:
        self.model, self.ridge = model, ridge
        self.iterations, self.stalled = 0, False
        self._sweeps = Sweeps(model, entries)
        self._robust = loss if loss != "l2" else None
        self._small = self._sweeps.p <= MATRIX_LIMIT
        self._growth = 2.0
        balance(model, sweeps=5)
        self.refresh()
        self._mu = damping * self._scale

    @property
    def work(self) -> float:
        """Estimate of what an iteration takes, see `Sweeps.work`."""
        return self._sweeps.work if self._small else self._sweeps.sweep_work * _MAX_SOLVES

    @property
    def objective(self) -> float:
        return self.loss + self.ridge * float(self.model.parameters.square().sum())

    def set_ridge(self, ridge: float) -> None:
        """Go on with another penalty."""
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
                self._mu = max(self._mu, 1e-16 * self._scale)
                self._growth = 2.0
                return True
        self._mu *= self._growth
        self._growth *= 2
        self.stalled = self._mu > 1e10 * self._scale
        return False

    def run(self, iterations: int, tolerance: float = 0.0, slow: float = 1e-3, patience: int = 4) -> None:
        """Step until the loss is under `tolerance`, or `patience` steps in a row gain less than the share `slow`.

        The weights of a robust loss are set anew before.
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
        """Set the weights of a robust loss by the residuals of now; nothing for l2."""
        if self._robust is not None:
            self._sweeps.set_weight(robust_weights(self._sweeps.residuals(self.model.parameters), self._robust))
            self.refresh()

    @property
    def damping(self) -> Tensor:
        """What decides the next step beside the weights: mu, its growth, and whether the run has stalled, (3,)."""
        return torch.tensor([self._mu, self._growth, self.stalled], dtype=torch.float64)

    def restore(self, parameters: Tensor, damping: Tensor) -> None:
        """Go on from weights (p,) and `damping` of another time."""
        self.model.parameters.copy_(parameters)
        self._mu, self._growth, self.stalled = float(damping[0]), float(damping[1]), bool(damping[2])
        self.refresh()
        self.reweight()

    # --- one step -----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Derivatives at the weights of now."""
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
        """The step with geodesic acceleration: half the second-order correction a, (J^T J + shift) a = -J^T r'' ,
        where r'' is the second derivative of the residuals along the step; a step that bends too much stays straight.
        """
        curvature = self._sweeps.curvature(self.model.parameters, step)
        correction = self._solve(curvature)
        if correction is None or float(correction.norm()) > _BEND * float(step.norm()):
            return step
        return step.add(correction, alpha=0.5)

    def _solve(self, gradient: Tensor) -> Tensor | None:
        shift = self.ridge + self._mu
        factors = self._factors(shift)
        if factors is None:
            return None
        if self._small:
            return -torch.cholesky_solve(gradient.unsqueeze(1), factors[0][0]).squeeze(1)
        return self._conjugate_gradients(-gradient, shift, factors)

    def _factors(self, shift: float) -> list[Tensor] | None:
        """Of J^T J + shift, or of its diagonal blocks, kept for the correction of a step, which solves with the same;
        None where one is not positive definite.
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

    def _conjugate_gradients(self, target: Tensor, shift: float, factors: list[Tensor]) -> Tensor:
        """Solve (J^T J + shift) x = target, to a tenth; a step need not be exact."""

        def precondition(vector: Tensor) -> Tensor:
            parts = []
            for (start, rows, columns), factor in zip(self._sweeps.spans, factors, strict=True):
                part = vector[start : start + rows * columns]
                if len(part):
                    shaped = part.view(factor.shape[0], -1, 1)
                    parts.append(torch.cholesky_solve(shaped, factor).flatten())
            return torch.cat(parts)

        solution = torch.zeros_like(target)
        residual = target.clone()
        direction = precondition(residual)
        rho = float(residual @ direction)
        goal = 0.01 * rho  # squared, in the preconditioner's norm
        for _ in range(_MAX_SOLVES):
            image = self._sweeps.product(self.model.parameters, direction).add_(direction, alpha=shift)
            alpha = rho / max(float(direction @ image), 1e-300)
            solution.add_(direction, alpha=alpha)
            residual.sub_(image, alpha=alpha)
            conditioned = precondition(residual)
            previous, rho = rho, float(residual @ conditioned)
            if rho <= goal:
                break
            direction = conditioned.add_(direction, alpha=rho / previous)
        return solution
