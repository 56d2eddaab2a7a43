"""Fitting a factorization by gradient descent from a small start."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.fitting.loop import FitLoop
from htfcli.engine.fitting.optimizers import make_optimizer
from htfcli.engine.fitting.records import SampleLoss
from htfcli.engine.observations.observations import Observations
from htfcli.engine.runtime.device import captured
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.samples import Sample
from htfcli.errors import ConfigError, RunError

_EXPLODED = 1e6  # a loss this many times the first one (or 1) has exploded


class GradientFit(FitLoop):
    """A fit by gradient descent, full-batch or in mini-batches.

    Args:
        model, observations, config, workers: see `FitLoop`.

    Attributes:
        full_batch: whether `gradient` is that of all observations. shared: whether it is computed together with the
        gradients of other runs, see `batched`.

    Raises:
        ConfigError: if there are fewer observations than processes.
    """

    _needed = frozenset({"limit"})

    def __init__(
        self, model: Factorization, observations: Observations, config: FitConfig, workers: Workers | None = None
    ) -> None:
        super().__init__(model, observations, config, workers)
        count = observations.counts[0]
        if count < self._workers.count:
            got = f"{count} for {self._workers.count} processes"
            raise ConfigError("fewer observations than processes", got=got)
        self.shared = False
        self._batch = min(config.batch_size or count, count)
        self._limit = 0.0  # the loss from which the run has exploded; set by the first record
        parameters = model.parameters
        parameters.grad = self.gradient
        self._optimizer = make_optimizer(config.optimizer, parameters, config.lr, config.momentum)
        self.full_batch = self._batch == count
        sharded = self._workers.count == 1 or observations.whole is not None
        part = self.train if sharded else self._part(torch.arange(count))
        gradient = self.gradient if self.full_batch else None
        self._whole = SampleLoss(model, part, self._loss, gradient, self._workers, count)
        if self.full_batch:
            self._part_gradient = captured(self._whole.forward_backward, parameters.device)
            self._step = self._captured_step()
        else:
            self._part_gradient, self._step = self._batch_gradient, self._optimizer.step
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def _captured_step(self) -> Callable[[], None]:
        """The optimizer's step, captured as a CUDA graph; the optimizer's state is left as before its first step."""
        before = dict(self._optimizer.state)
        parameters = self.model.parameters
        step = captured(self._optimizer.step, parameters.device, [parameters, *before.values()])
        for name, tensor in self._optimizer.state.items():
            if name not in before:  # created by the warm-up
                tensor.zero_()
        return step

    # --- one iteration ------------------------------------------------------------------------------------------------

    def _descend(self) -> None:
        """The gradient at the current weights, summed over processes."""
        self._part_gradient()
        self._workers.sum(self.gradient)

    def _advance(self) -> None:
        self._step()

    def _evaluate(self) -> None:
        if not self.full_batch or self.shared:
            self._whole.forward()

    def _measure_step(self) -> None:
        self._recorder.measure_step(self._optimizer.flow_time)

    def _part(self, rows: Tensor) -> Sample:
        """This process's part of the observations at positions `rows`."""
        return self.train.select(self._workers.shard(rows))

    def _batch_gradient(self) -> None:
        """Gradient of this iteration's batch: the next part of a permutation that seed and epoch determine."""
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

    def _own_state(self) -> dict[str, Tensor]:
        own = {f"optimizer.{key}": value.clone() for key, value in self._optimizer.state.items()}
        return own | {"limit": torch.tensor(self._limit, dtype=torch.float64)}

    def _restore(self, state: dict[str, Tensor], counters: list[int]) -> None:
        self._limit = float(state["limit"])
        self.model.parameters.copy_(state["parameters"])
        prefix = "optimizer."
        self._optimizer.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
