"""Fitting a factorization by gradient descent from a small start: the loop, its stop rules and its resumable state."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.factorization import Factorization, check_state
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.fitting.optimizers import make_optimizer
from htfcli.engine.fitting.records import Record, Recorder, SampleLoss
from htfcli.engine.observations.observations import Observations
from htfcli.engine.runtime.device import captured
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.samples import Sample
from htfcli.errors import ConfigError, RunError

_EXPLODED = 1e6  # a loss this many times the first one (or 1) has exploded


class GradientFit:
    """One training run.

    Args:
        model: trained in place. observations: what it is fitted to. config: how.
        workers: the processes that share every iteration, each with its part of the observations; all take part in
        all calls, and all have the same model, configuration and data, or their shards of these.

    Attributes:
        iteration: steps taken so far. stop_reason: why `run` ended: iterations, loss, seconds or interrupted.
        train: what it is fitted to. gradient: (p,) the loss's at the current weights. full_batch: whether of all of
        `train`. shared: whether it is computed together with those of other runs.
    """

    def __init__(
        self,
        model: Factorization,
        observations: Observations,
        config: FitConfig,
        workers: Workers | None = None,
    ) -> None:
        self.model, self.config = model, config
        self._workers = workers or Workers()
        self.iteration = 0
        self.stop_reason, self.shared = "", False
        self.train = observations.train
        count = observations.counts[0]
        self._batch = min(config.batch_size or count, count)
        if count < self._workers.count:
            got = f"{count} for {self._workers.count} processes"
            raise ConfigError("fewer observations than processes", got=got)
        self._calm = 0  # records in a row with the train loss under the tolerance
        self._limit = 0.0  # the loss at which the run has exploded; set by the first record
        parameters = model.parameters
        parameters.grad = self.gradient = torch.zeros_like(parameters)
        self._optimizer = make_optimizer(config.optimizer, parameters, config.lr, config.momentum)
        loss = LOSSES[config.loss]
        self._recorder = Recorder(model, observations, config, loss, self.gradient, self._workers)
        self.full_batch = full = self._batch == count
        self._loss = loss
        shard = self._workers.count == 1 or observations.whole is not None
        part = self.train if shard else self._part(torch.arange(count))
        gradient = self.gradient if full else None
        self._whole = SampleLoss(model, part, loss, gradient, self._workers, count)
        if full:
            self._part_gradient = captured(self._whole.forward_backward, parameters.device)
            self._advance = self._captured_step()
        else:
            self._part_gradient, self._advance = self._batch_gradient, self._optimizer.step
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)
        self._good: dict[str, Tensor] | None = None

    @torch.no_grad()
    def run(self, should_stop: Callable[[int], bool] = lambda iteration: False) -> Iterator[Record]:
        """Train until a stop rule holds; yields a record every `record_every` iterations and at the end.

        At every yield the state is that after the recorded step, so that it can be saved. An interruption yields
        nothing: resuming from `state` then gives the records and weights of an uninterrupted run.

        Raises:
            RunError: if the loss is NaN, infinite or has exploded; `good_state` is the one at the last record before.
        """
        for record in self.course(should_stop):
            if record is None:
                self._descend()
            else:
                yield record

    @torch.no_grad()
    def course(self, should_stop: Callable[[int], bool] = lambda iteration: False) -> Iterator[Record | None]:
        """`run` by a caller that computes the gradients: None asks for `gradient` at the current weights.

        Several runs can then share the work, see `batch`.
        """
        started = time.monotonic()
        config = self.config
        while True:
            if self._workers.any(should_stop(self.iteration)):
                self.stop_reason = "interrupted"
                return
            out_of_time = config.seconds is not None and self._workers.any(time.monotonic() - started >= config.seconds)
            last = self.iteration >= config.iterations or out_of_time
            due = self.iteration % config.record_every == 0
            yield None
            if not due and not last:
                self._advance()
                self.iteration += 1
                continue
            if not self.full_batch or self.shared:
                self._whole.forward()
            self._check_loss(self._whole.loss())
            record = self._recorder.measure(self.iteration, self._whole)
            under = config.until_loss is not None and record["train_loss"] < config.until_loss
            calm = self._calm + 1 if under else 0
            if last or calm >= config.patience:
                self.stop_reason = "loss" if calm >= config.patience else "seconds" if out_of_time else "iterations"
                yield record  # `state` is that before this record, which a resumed run makes again
                return
            self._good = self.state()
            self._calm = calm
            self._advance()
            self._recorder.measure_step(self._optimizer.flow_time)
            self.iteration += 1
            yield record

    def result(self, scale: float = 1.0) -> Factorization:
        """A copy of the model on the CPU, in the units that the data had before `scale` multiplied them.

        In float64 where the tensor's size could leave the range of float32 on the way to an entry.
        """
        extreme = not 1e-20 < scale < 1e20
        return self.model.to(torch.float64 if extreme else None, "cpu").scale(1 / scale)

    # --- one iteration ------------------------------------------------------------------------------------------------

    def _captured_step(self) -> Callable[[], None]:
        """The optimizer's step, captured; its state is as before a first step afterwards."""
        before = dict(self._optimizer.state)
        parameters = self.model.parameters
        step = captured(self._optimizer.step, parameters.device, [parameters, *before.values()])
        for name, tensor in self._optimizer.state.items():
            if name not in before:  # made by the warm-up
                tensor.zero_()
        return step

    def _descend(self) -> None:
        """The gradient at the current weights, summed over processes."""
        self._part_gradient()
        self._workers.sum(self.gradient)

    def _part(self, rows: Tensor) -> Sample:
        """This process's part of some observations."""
        return self.train.select(self._workers.shard(rows))

    def _batch_gradient(self) -> None:
        """Gradient on this iteration's batch: the next part of a permutation that seed and epoch determine."""
        per_epoch = math.ceil(len(self.train) / self._batch)
        epoch, part = divmod(self.iteration, per_epoch)
        if epoch != self._epoch:
            digest = hashlib.sha256(f"{self.config.seed} {epoch}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
            self._permutation = torch.randperm(len(self.train), generator=generator)
            self._epoch = epoch
        rows = self._permutation[part * self._batch : (part + 1) * self._batch]
        sample = self._part(rows)
        if len(sample):
            SampleLoss(self.model, sample, self._loss, self.gradient, total=len(rows)).forward_backward()
        else:  # the last batch of an epoch may be smaller than the number of processes
            self.gradient.zero_()

    def _check_loss(self, loss: float) -> None:
        if not self._limit:
            self._limit = _EXPLODED * max(loss, 1.0) if math.isfinite(loss) else math.inf
        if math.isfinite(loss) and loss <= self._limit:
            return
        raise RunError(
            f"training diverged by iteration {self.iteration}",
            got=f"train loss {loss:.3g}",
            next_step=f"Lower --lr (now {self.config.lr:g}) or --init-std.",
        )

    # --- resumable state ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Copies of all that changes: parameters, optimizer, counters."""
        counters = torch.tensor([self.iteration, self._calm], dtype=torch.int64)
        state = {"parameters": self.model.parameters.clone(), "counters": counters}
        state["limit"] = torch.tensor(self._limit, dtype=torch.float64)
        return state | {f"optimizer.{key}": value.clone() for key, value in self._optimizer.state.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state()` of a run with the same model, data and configuration: `parameters` (p,), and more.

        Raises:
            DataError: if the state belongs to another model.
        """
        check_state(state, self.model, {"counters", "limit"})
        self.iteration, self._calm = (int(c) for c in state["counters"])
        self._limit = float(state["limit"])
        self.model.parameters.copy_(state["parameters"])
        prefix = "optimizer."
        self._optimizer.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    @property
    def good_state(self) -> dict[str, Tensor] | None:
        """State at the last record with a sound loss, or None."""
        return self._good
