"""Fitting a factorization to entries by Levenberg-Marquardt."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.fitting.loop import FitLoop
from htfcli.engine.fitting.records import SampleLoss
from htfcli.engine.least_squares.levenberg_marquardt import LevenbergMarquardt
from htfcli.engine.observations.observations import Observations
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, RunError

_IDLE = 1e-6  # fraction of the objective; a step that gains less counts as idle
_IDLE_STEPS = 10  # consecutive idle steps after which the run has converged
_EXACT = 1e-15  # relative error at the level of rounding


class SecondOrderFit(FitLoop):
    """A fit by Levenberg-Marquardt; an iteration is one attempted step.

    Minimizes the sum of squared residuals + n * ridge * (sum of squared weights), n the number of observations. For
    `huber` and `l1` the squares are reweighted before every step (see `robust_weights`).

    Args:
        model: float64, fitted in place. observations: its train sample must be entries. config, workers: see `FitLoop`.

    Raises:
        ConfigError: if measurements are observed, the model is not float64, or there are several processes.
    """

    _needed = frozenset({"damping"})

    def __init__(
        self, model: Factorization, observations: Observations, config: FitConfig, workers: Workers | None = None
    ) -> None:
        if workers is not None and workers.count > 1:
            got = f"{workers.count} processes"
            raise ConfigError(
                "solver second-order runs in one process", got=got, next_step="Start it without torchrun."
            )
        if not isinstance(observations.train, Entries):
            raise ConfigError(
                "solver second-order is for observed entries",
                got="measurements",
                next_step="Leave out --solver.",
            )
        if model.parameters.dtype != torch.float64:
            raise ConfigError("solver second-order computes in float64", got=str(model.parameters.dtype)[6:])
        super().__init__(model, observations, config, workers)
        self._idle = 0  # consecutive idle steps
        device = model.parameters.device
        entries = Entries(observations.train.index.to(device), observations.train.value.to(model.parameters))
        self._solver = LevenbergMarquardt(model, entries, config.ridge * len(entries), config.loss)
        self._solver.reweight()
        self._whole = SampleLoss(model, observations.train, self._loss, self.gradient)
        self._exact = _EXACT**2 * float(entries.value.square().sum())

    def _descend(self) -> None:
        """Nothing: the solver keeps the derivatives at its current weights."""

    def _advance(self) -> None:
        before = self._solver.objective
        if self._solver.step():
            self._idle = self._idle + 1 if before - self._solver.objective <= _IDLE * before else 0
        self._solver.reweight()

    def _converged(self) -> bool:
        return self._solver.stalled or self._idle >= _IDLE_STEPS or self._solver.loss <= self._exact

    def _evaluate(self) -> None:
        self._whole.forward_backward()

    def _measure_step(self) -> None:
        """Nothing: steps do not follow the gradient flow that derivatives are predicted for."""

    def _check_loss(self, loss: float) -> None:
        """Only the first weights can have such a loss: no step is taken that raises it."""
        if not math.isfinite(loss):
            raise RunError(
                "the first weights are too large", got=f"train loss {loss:.3g}", next_step="Lower --init-std."
            )

    # --- resumable state ----------------------------------------------------------------------------------------------

    @property
    def _counters(self) -> list[int]:
        return [*super()._counters, self._idle]

    def _own_state(self) -> dict[str, Tensor]:
        return {"damping": self._solver.damping}

    def _restore(self, state: dict[str, Tensor], counters: list[int]) -> None:
        (self._idle,) = counters
        self._solver.restore(state["parameters"], state["damping"])
