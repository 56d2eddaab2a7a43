"""Fitting a factorization to entries by Levenberg-Marquardt: records, stop rules and resumable state of a fit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.factorization import Factorization, check_state
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.fitting.records import Record, Recorder, SampleLoss
from htfcli.engine.least_squares.levenberg_marquardt import LevenbergMarquardt
from htfcli.engine.observations.observations import Observations
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, RunError

_CALM = 1e-6  # share of the objective under which a step gains next to nothing
_CALM_STEPS = 10  # such steps in a row, after which the run has converged
_EXACT = 1e-15  # relative error that is rounding


class SecondOrderFit:
    """One run of Levenberg-Marquardt, with the interface of `GradientFit`; an iteration is a step tried.

    Minimizes the sum of squared residuals + n * ridge * (sum of squared weights), n the number of observations. For
    `huber` and `l1` the squares get weights anew for every step (see `robust_weights`).

    Args:
        model: float64, fitted in place. observations: its train sample must be entries. config: how.

    Attributes:
        iteration: steps tried so far. stop_reason: why `run` ended: iterations, loss, seconds, converged or
        interrupted.

    Raises:
        ConfigError: if measurements are observed. RunError: if the loss of the first weights is not finite.
    """

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
        self.model, self.config = model, config
        self.iteration = 0
        self.stop_reason = ""
        self._calm = 0  # records in a row with the train loss under the tolerance
        self._idle = 0  # steps in a row that gained next to nothing
        device = model.parameters.device
        entries = Entries(observations.train.index.to(device), observations.train.value.to(model.parameters))
        loss = LOSSES[config.loss]
        gradient = torch.zeros_like(model.parameters)
        self._solver = LevenbergMarquardt(model, entries, config.ridge * len(entries), config.loss)
        self._solver.reweight()
        self._whole = SampleLoss(model, observations.train, loss, gradient)
        self._recorder = Recorder(model, observations, config, loss, gradient)
        self._exact = _EXACT**2 * float(entries.value.square().sum())

    @torch.no_grad()
    def run(self, should_stop: Callable[[int], bool] = lambda iteration: False) -> Iterator[Record]:
        """Step until a stop rule holds; yields a record every `record_every` iterations and at the end.

        As with `GradientFit`, the state at a yield is that after the recorded step, and an interruption yields nothing.

        Raises:
            RunError: if the loss of the first weights is NaN or infinite; later steps cannot raise it.
        """
        started = time.monotonic()
        config = self.config
        while True:
            if should_stop(self.iteration):
                self.stop_reason = "interrupted"
                return
            out_of_time = config.seconds is not None and time.monotonic() - started >= config.seconds
            converged = self._solver.stalled or self._idle >= _CALM_STEPS or self._solver.loss <= self._exact
            last = self.iteration >= config.iterations or out_of_time or converged
            if self.iteration % config.record_every and not last:
                self._advance()
                continue
            self._whole.forward_backward()
            if not math.isfinite(loss := self._whole.loss()):
                raise RunError(
                    "the first weights are too large", got=f"train loss {loss:.3g}", next_step="Lower --init-std."
                )
            record = self._recorder.measure(self.iteration, self._whole)
            under = config.until_loss is not None and record["train_loss"] < config.until_loss
            calm = self._calm + 1 if under else 0
            if last or calm >= config.patience:
                reasons = {"loss": calm >= config.patience, "converged": converged, "seconds": out_of_time}
                self.stop_reason = next((reason for reason, holds in reasons.items() if holds), "iterations")
                yield record  # `state` is that before this record, which a resumed run makes again
                return
            self._calm = calm
            self._advance()
            yield record

    def _advance(self) -> None:
        """One step, and the weights of a robust loss for the next."""
        before = self._solver.objective
        if self._solver.step():
            self._idle = self._idle + 1 if before - self._solver.objective <= _CALM * before else 0
        self._solver.reweight()
        self.iteration += 1

    def result(self, scale: float = 1.0) -> Factorization:
        """A copy of the model on the CPU, in the units that the data had before `scale` multiplied them."""
        return self.model.to(device="cpu").scale(1 / scale)

    # --- resumable state ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Copies of all that changes: parameters, damping, counters."""
        counters = torch.tensor([self.iteration, self._calm, self._idle], dtype=torch.int64)
        return {"parameters": self.model.parameters.clone(), "counters": counters, "damping": self._solver.damping}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state()` of a run with the same model, data and configuration: `parameters` (p,), and more.

        Raises:
            DataError: if the state belongs to another model.
        """
        check_state(state, self.model, {"counters", "damping"})
        self.iteration, self._calm, self._idle = (int(c) for c in state["counters"])
        self._solver.restore(state["parameters"], state["damping"])

    @property
    def good_state(self) -> dict[str, Tensor] | None:
        """Every state has a sound loss, since no step is taken that raises it; None before the first step."""
        return self.state() if self.iteration else None
