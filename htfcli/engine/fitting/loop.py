"""The loop of a fit, whatever its solver: when to record, when to stop, and the state that a run is resumed from."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from htfcli.config.records import Record
from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.factorization import Factorization, check_state
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.fitting.records import Recorder, SampleLoss
from htfcli.engine.observations.observations import Observations
from htfcli.engine.runtime.distributed import Workers

_SAFE_SCALE = 1e20  # products of a scale up to this and of entries near one stay in the range of float32 (3e38)


class FitLoop(ABC):
    """One fit of a factorization to observations.

    Args:
        model: fitted in place. observations: what it is fitted to. config: settings.
        workers: the processes that share every iteration, each with a part of the observations; all take part in all
        calls and have the same model, configuration and data, or their shards of these.

    Attributes:
        iteration: iterations completed. train: the observations it is fitted to. gradient: (p,) of the loss.
        stop_reason: why `run` ended: iterations, loss, seconds, converged or interrupted; empty before.
        good_state: the state at the last record with a sound loss, or None.
    """

    _whole: SampleLoss  # loss of all observations; its gradient, if it has one, is `gradient`
    _needed: frozenset[str]  # names that a saved state must hold, besides those below

    def __init__(
        self, model: Factorization, observations: Observations, config: FitConfig, workers: Workers | None = None
    ) -> None:
        self.model, self.config, self.train = model, config, observations.train
        self.iteration, self.stop_reason = 0, ""
        self.good_state: dict[str, Tensor] | None = None
        self.gradient = torch.zeros_like(model.parameters)
        self._workers = workers or Workers()
        self._loss = LOSSES[config.loss]
        self._recorder = Recorder(model, observations, config, self._loss, self.gradient, self._workers)
        self._calm = 0  # consecutive records with the train loss below the tolerance

    @torch.no_grad()
    def run(self, should_stop: Callable[[int], bool] = lambda iteration: False) -> Iterator[Record]:
        """Iterate until a stop rule holds; yields a record every `record_every` iterations and at the end.

        At every yield the state is that after the recorded iteration, so that it can be saved. An interruption yields
        nothing: resuming from `state` then gives the records and weights of an uninterrupted run.

        Args:
            should_stop: called with the iteration before each one; True interrupts.
        Raises:
            RunError: if the loss is NaN, infinite or has exploded; `good_state` is the state to go back to.
        """
        for record in self.course(should_stop):
            if record is None:
                self._descend()
            else:
                yield record

    @torch.no_grad()
    def course(self, should_stop: Callable[[int], bool] = lambda iteration: False) -> Iterator[Record | None]:
        """`run` for a caller that computes the gradients itself: None asks for `gradient` at the current weights.

        Several runs can then share the work, see `batched`.
        """
        started = time.monotonic()
        config = self.config
        while True:
            if self._workers.any(should_stop(self.iteration)):
                self.stop_reason = "interrupted"
                return
            out_of_time = config.seconds is not None and self._workers.any(time.monotonic() - started >= config.seconds)
            converged = self._converged()
            last = self.iteration >= config.iterations or out_of_time or converged
            yield None
            if self.iteration % config.record_every and not last:
                self._advance()
                self.iteration += 1
                continue
            self._evaluate()
            self._check_loss(self._whole.loss())
            record = self._recorder.measure(self.iteration, self._whole)
            below = config.until_loss is not None and record["train_loss"] < config.until_loss
            calm = self._calm + 1 if below else 0
            if last or calm >= config.patience:
                reasons = {"loss": calm >= config.patience, "converged": converged, "seconds": out_of_time}
                self.stop_reason = next((reason for reason, holds in reasons.items() if holds), "iterations")
                yield record  # `state` is that before this record, which a resumed run measures again
                return
            self.good_state = self.state()
            self._calm = calm
            self._advance()
            self._measure_step()
            self.iteration += 1
            yield record

    def result(self, scale: float = 1.0) -> Factorization:
        """A copy of the model on the CPU, in the units that the data had before they were multiplied by `scale`.

        In float64 where the size of the tensor could leave the range of float32 on the way to an entry.
        """
        extreme = not 1 / _SAFE_SCALE < scale < _SAFE_SCALE
        return self.model.to(torch.float64 if extreme else None, "cpu").scale(1 / scale)

    # --- what solvers differ in -------------------------------------------------------------------------------------

    @abstractmethod
    def _descend(self) -> None:
        """Compute the gradient that the step of an iteration takes."""

    @abstractmethod
    def _advance(self) -> None:
        """Take the step of an iteration."""

    def _converged(self) -> bool:
        """Whether the solver cannot improve any more."""
        return False

    @abstractmethod
    def _evaluate(self) -> None:
        """Bring `_whole` and `gradient` to the current weights."""

    @abstractmethod
    def _check_loss(self, loss: float) -> None:
        """Raise a RunError if the train loss makes no sense."""

    @abstractmethod
    def _measure_step(self) -> None:
        """Complete the record of an iteration once its step has been taken."""

    # --- resumable state --------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Copies of all that changes: parameters (p,), counters, and the solver's own state."""
        counters = torch.tensor(self._counters, dtype=torch.int64)
        return {"parameters": self.model.parameters.clone(), "counters": counters} | self._own_state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state()` of a run with the same model, data and configuration.

        Raises:
            DataError: if the state belongs to another model or solver.
        """
        check_state(state, self.model, {"counters", *self._needed})
        self.iteration, self._calm, *others = (int(c) for c in state["counters"])
        self._restore(state, others)

    @property
    def _counters(self) -> list[int]:
        return [self.iteration, self._calm]

    @abstractmethod
    def _own_state(self) -> dict[str, Tensor]:
        """Copies of the solver's own state."""

    @abstractmethod
    def _restore(self, state: dict[str, Tensor], counters: list[int]) -> None:
        """Set parameters and the solver's own state; `counters`: those after the iteration and the calm records."""
