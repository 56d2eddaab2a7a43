"""Levenberg-Marquardt on many small problems of one shape at once, such as many starts of several completions.

A small problem spends its time on the overhead of operations: 40 of 60 parameters take about as long as two alone.
The steps are those of `levenberg_marquardt`, without its correction by the second derivative.

Axes: `runs` problems, `n` entries of each, `N` order, `p` parameters, `R` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.engine.factorizations.balance import balance
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.least_squares.combinations import Combinations
from htfcli.engine.least_squares.tree_sweeps import downward, jacobian_above, upward, written_out

EXACT = 1e-13  # relative residual at which a problem is solved, a few hundred times rounding
_FIRST_DAMPING = 1e-2  # over the mean diagonal of J^T J
_LEAST_DAMPING, _MOST_DAMPING = 1e-14, 1e12  # likewise: rounding of J^T J, and steps too short to change anything
_SLOW, _PATIENCE = 1e-3, 6  # a run ends after this many steps that gain less than this fraction
_SLOW_RIDGE, _PATIENCE_RIDGE = 1e-2, 2  # and a ridge is lowered after so many
_RIDGE_STEP, _LEAST_RIDGE = 5.0, 1e-7  # a ridge is divided by this until it is below that, and is zero from then on


class EntryBatch:
    """Observed entries of several factorizations of one shape.

    Args:
        model: gives the shape. index: (runs, n, N) int64. value: (runs, n).
    """

    def __init__(self, model: Factorization, index: Tensor, value: Tensor) -> None:
        self.model, self.index, self.value = model, index, value
        self._columns = list(index.unbind(-1))
        self._spans, start = [], 0
        for weight in model.node_weights[: model.order]:
            assert weight is not None
            self._spans.append((start, weight.shape[-2], weight.shape[-1]))
            start += weight.shape[-2] * weight.shape[-1]
        columns = [0 if weight is None else weight.shape[-1] for weight in model.node_weights]
        self._combinations = Combinations(model.tree, columns, model.dense_cores)

    def select(self, runs: Tensor) -> EntryBatch:
        """The entries of some runs, by number or mask."""
        return EntryBatch(self.model, self.index[runs], self.value[runs])

    def residuals(self, parameters: Tensor) -> Tensor:
        """Values of the models (runs, p) minus the observed ones, (runs, n)."""
        return self._upward(parameters)[0][-1][..., 0] - self.value

    def jacobian(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """J (runs, n, p) and the residuals (runs, n)."""
        weights = self.model.views(parameters)
        vectors, products = self._upward(parameters)
        slopes = downward(self.model.tree, weights, vectors, torch.ones_like(vectors[-1]), self._combinations)
        above = jacobian_above(weights, products, slopes)
        jacobian = written_out(slopes[: self.model.order], above, self._columns, self._spans)
        return jacobian, vectors[-1][..., 0] - self.value

    def gradient(self, parameters: Tensor) -> Tensor:
        """J^T r over n, the gradient of half the mean squared residual, (runs, p)."""
        weights = self.model.views(parameters)
        vectors, products = self._upward(parameters)
        residual = (vectors[-1] - self.value.unsqueeze(-1)) / self.value.shape[1]
        slopes = downward(self.model.tree, weights, vectors, residual, self._combinations)
        total = torch.zeros_like(parameters)
        for node, view in enumerate(self.model.views(total)):
            product = products[node]
            if view is None:
                continue
            if product is None:
                place = self._columns[node].unsqueeze(-1).expand_as(slopes[node])
                view.scatter_add_(1, place, slopes[node])
            else:
                view.baddbmm_(product.mT, slopes[node])
        return total

    def _upward(self, parameters: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        weights = self.model.views(parameters)
        leaves = []
        for weight, column in zip(weights, self._columns, strict=False):
            assert weight is not None
            runs, rows, width = weight.shape
            place = column + rows * torch.arange(runs).unsqueeze(1)
            leaves.append(weight.reshape(runs * rows, width).index_select(0, place.flatten()).view(runs, -1, width))
        return upward(self.model.tree, weights, leaves, self._combinations)


@dataclass
class _State:
    """Runs that have not ended; every tensor has one element or row per run.

    Args:
        number: of the run among all. group: runs of one group end when one of them is solved. mu, growth: the damping
            and the factor by which it grows at a failed step. ridge: times the squared weights. calm: slow steps.
    """

    number: Tensor
    group: Tensor
    parameters: Tensor
    ridge: Tensor
    mu: Tensor
    growth: Tensor
    calm: Tensor

    def select(self, runs: Tensor) -> _State:
        return _State(**{name: tensor[runs] for name, tensor in vars(self).items()})


@torch.no_grad()
def minimize_batch(
    model: Factorization, starts: Tensor, entries: EntryBatch, group: Tensor, ridge: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Minimize the sum of squared residuals of every run, along a path of falling ridges where the first one is not 0.

    Args:
        model: gives the shape. starts: (runs, p). entries: of all runs, values with rms about one. group: (runs,), runs
            of one group end when one of them is solved exactly.
        ridge: (runs,) first penalty on the squared weights, over the number of entries. iterations: steps at most.
    Returns: the weights (runs, p), and the relative residuals (runs,).
    """
    ends, errors = starts.clone(), torch.full((len(starts),), torch.inf, dtype=starts.dtype)
    size = torch.linalg.vector_norm(entries.value, dim=1)
    runs, nothing = len(starts), torch.zeros(len(starts), dtype=starts.dtype)
    state = _State(torch.arange(runs), group, starts.clone(), ridge.clone(), nothing, nothing + 2, nothing.long())
    for iteration in range(iterations + 1):
        jacobian, residual = entries.jacobian(state.parameters)
        errors[state.number] = torch.linalg.vector_norm(residual, dim=1) / size[state.number]
        ends[state.number] = state.parameters
        hessian = jacobian.mT @ jacobian
        scale = hessian.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)
        if iteration == 0:
            state.mu = _FIRST_DAMPING * scale
        solved = errors[state.number] <= EXACT
        calm = state.calm >= torch.where(state.ridge > 0, _PATIENCE_RIDGE, _PATIENCE)
        over = solved | torch.isin(state.group, state.group[solved]) | (calm & (state.ridge == 0))
        over |= state.mu > _MOST_DAMPING * scale
        lower = state.ridge / _RIDGE_STEP
        state.ridge = torch.where(calm, torch.where(lower < _LEAST_RIDGE, 0.0, lower), state.ridge)
        state.calm = torch.where(calm, 0, state.calm)
        if iteration == iterations or bool(over.all()):
            break
        if bool(over.any()):
            left = ~over
            state, entries = state.select(left), entries.select(left)
            jacobian, residual, hessian, scale = (t[left] for t in (jacobian, residual, hessian, scale))
        _step(state, entries, hessian, (jacobian.mT @ residual.unsqueeze(2)).squeeze(2), residual, scale)
        balance(model._with(state.parameters))
    return ends, errors


def _step(
    state: _State, entries: EntryBatch, hessian: Tensor, gradient: Tensor, residual: Tensor, scale: Tensor
) -> None:
    """One step of every run, taken where it lowers the objective; the damping follows (Nielsen, 1999)."""
    ridge = state.ridge * residual.shape[1]
    gradient = gradient + ridge.unsqueeze(1) * state.parameters
    hessian.diagonal(dim1=1, dim2=2).add_((ridge + state.mu).unsqueeze(1))
    factor, info = torch.linalg.cholesky_ex(hessian)
    step = -torch.cholesky_solve(gradient.unsqueeze(2), factor).squeeze(2)
    predicted = (step * (state.mu.unsqueeze(1) * step - gradient)).sum(1)
    moved = state.parameters + step
    before = residual.square().sum(1) + ridge * state.parameters.square().sum(1)
    after = entries.residuals(moved).square().sum(1) + ridge * moved.square().sum(1)
    taken = (info == 0) & (after < before)  # false for NaN
    gain = (before - after) / predicted.clamp_min(1e-300)
    state.parameters = torch.where(taken.unsqueeze(1), moved, state.parameters)
    shrink = torch.where(gain > 0.75, 0.1, (1 - (2 * gain - 1) ** 3).clamp_min(1 / 3))
    state.mu = torch.maximum(state.mu * torch.where(taken, shrink, state.growth), _LEAST_DAMPING * scale)
    state.growth = torch.where(taken, 2.0, 2 * state.growth)
    slow = taken & (before - after < torch.where(ridge > 0, _SLOW_RIDGE, _SLOW) * before)
    state.calm = torch.where(slow, state.calm + 1, torch.where(taken, 0, state.calm))
