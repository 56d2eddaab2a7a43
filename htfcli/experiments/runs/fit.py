"""A fit from observations to run folder: trained, recorded, saved; resumable after an interruption at any iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from htfcli.config.records import Record
from htfcli.config.tensors import DEFAULT_TOLERANCE, FitConfig, FitRunConfig
from htfcli.config.units import duration
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.fitting.fit import SOLVERS, build_model, prepare
from htfcli.engine.fitting.gradient_descent import GradientFit
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.fitting.records import derivative_error
from htfcli.engine.observations.observations import Observations
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra
from htfcli.engine.runtime.device import choose_device, describe_device
from htfcli.errors import ConfigError
from htfcli.experiments.runs.training_run import Resumable, TrainingRun
from htfcli.files.inputs import load_observations
from htfcli.files.own.artefacts import save_factorization
from htfcli.files.shards import fingerprint, load_shard

_DRIFT = 0.01  # relative difference between the losses in float32 and float64 from which on it is reported


class FitRun(TrainingRun[FitConfig]):
    """One fit, checked and ready to start; see `TrainingRun`.

    Attributes:
        fit: the training. model: the result in the units of the data, set at the end of the run.
        remarks: what was found out about a table, or may be a mistake in it.
    """

    command, counter = "fit", "iteration"
    may_change: ClassVar[set[str]] = {
        "iterations",
        "seconds",
        "until_loss",
        "patience",
        "lr",
        "checkpoint_every",
        "threads",
        "device",
    }
    model: Factorization

    def _load(self, config: FitConfig) -> str:
        if self._input is None:
            advice = "Shortest useful call: htf fit data.npy (see htf fit --help)."
            raise ConfigError("no data to fit", next_step=advice)
        self.remarks: list[str] = []
        self._given = self._observations(self._input)
        return fingerprint(self._given, self.workers)

    def _observations(self, data: str) -> Observations:
        """All observations, or this process's shard where an iteration needs no others."""
        s = self.settings
        if s.dims is None and s.batch_size is None and s.test_fraction is None and s.solver == "gradient":
            return load_shard(data, self.workers, s if isinstance(s, FitRunConfig) else None, self.remarks.append)
        tables = s if isinstance(s, FitRunConfig) else None
        dims = None if s.dims is None else tuple(s.dims)
        return load_observations(data, dims, tables, self.remarks.append)

    def _build(self, state: dict[str, Tensor] | None) -> None:
        self.observations, self.scale = prepare(self._given, self.settings, self.workers)
        self.device = choose_device(self.settings.device, self.settings.threads, self.workers.count)
        model = build_model(self.settings, self._given.dims, self.device)
        self.fit = SOLVERS[self.settings.solver](model, self.observations, self.settings, self.workers)
        if state is not None:
            self.fit.load_state(state)
        self._first = self._saved_iteration = self.fit.iteration
        del self._given

    def describe(self) -> str:
        """One line on what is about to be fitted."""
        model, (train, test) = self.fit.model, self.observations.counts
        return (
            f"{model.kind} of {' x '.join(map(str, model.dims[:8]))}{' x ...' if model.order > 8 else ''}, "
            f"{len(model.parameters):,} parameters; {train:,} observations, "
            f"{test:,} held out; {self.settings.dtype} on {describe_device(self.device)}"
            f"{f', {self.workers.count} processes' if self.workers.count > 1 else ''}"
        )

    def ending(self) -> str:
        """One line on how the fit ended."""
        s = self.settings
        why = {
            "iterations": "all iterations done",
            "loss": f"train loss under {s.until_loss:g} for {s.patience} records" if s.until_loss is not None else "",
            "seconds": "time limit reached",
            "converged": "converged",
        }[self.fit.stop_reason]
        error = self.summary.get("test_error")
        held_out = "" if error is None else f", held-out relative error {error:.4g}"
        rounded, exact = self.summary["train_loss"], self.summary.get("train_loss_float64")
        if exact is not None and abs(exact - rounded) > _DRIFT * exact:
            held_out += f"; train loss {rounded:.4g} is {exact:.4g} in float64, try --dtype float64"
        return f"{why} at iteration {self.fit.iteration:,} after {duration(self.summary['seconds'])}{held_out}"

    def run(self, on_record: Callable[[Record], None], should_stop: Callable[[int], bool]) -> Factorization:
        """Train to the end and save everything.

        Args:
            on_record: called with each record, in process 0. should_stop: called before each iteration; True
                interrupts the run.
        Returns: the result in the units of the data.
        Raises:
            RunError: if the run diverged; the last good state has been saved.
            Interrupted: if `should_stop` returned True; the state has been saved.
        """
        for _ in self._run(self.fit.run(should_stop), on_record):
            raise AssertionError("a fit that computes its own gradients asked for one")
        return self.model

    def course(self, should_stop: Callable[[int], bool]) -> Iterator[None]:
        """`run` for a caller that computes the gradients, see `GradientFit.course`: yields whenever one is needed."""
        assert isinstance(self.fit, GradientFit)
        return self._run(self.fit.course(should_stop), lambda record: None)

    def save(self, destination: str | Path) -> None:
        save_factorization(destination, self.model, self.settings.model_dump(mode="json"))

    @property
    def _training(self) -> Resumable:
        return self.fit

    @property
    def _count(self) -> int:
        return self.fit.iteration

    @property
    def _checkpoint_every(self) -> float:
        return self.settings.checkpoint_every

    def _place(self) -> str:
        return f"at iteration {self.fit.iteration}"

    def _good_state(self) -> dict[str, Tensor] | None:
        return self.fit.good_state

    def _write_checkpoint(self, state: dict[str, Tensor]) -> None:
        super()._write_checkpoint(state)
        self._saved_iteration = int(state["counters"][0])

    def _saved_state(self) -> str:
        return f"the state of iteration {self._saved_iteration}"

    def _observe(self, record: Record) -> None:
        if not self.fit.stop_reason:  # no step follows the last record, which therefore has no measured derivatives
            self._last_with_derivatives = record

    def _conclude(self, record: Record, seconds: float) -> Record:
        self.model = self.fit.result(self.scale)
        spectra = FactoredSpectra(self.model.to(torch.float64)).spectra()
        steps = self.fit.iteration - self._first
        return {
            "kind": "fit",
            "stop_reason": self.fit.stop_reason,
            **{key: value for key, value in record.items() if not isinstance(value, list | str)},
            "hierarchical_rank": {s.label: s.rank() for s in spectra},
            "rank_tolerance": DEFAULT_TOLERANCE,
            "effective_rank": {s.label: s.effective_rank for s in spectra},
            **self._exact_loss(),
            "derivative_error": derivative_error(self._last_with_derivatives),
            "parameters": len(self.model.parameters),
            "value_scale": self.scale,
            "iterations_per_second": round(steps / seconds, 1) if steps else None,
        }

    def _exact_loss(self) -> dict[str, float]:
        """The final train loss evaluated in float64, for a fit in float32: what its rounding hides."""
        if self.settings.dtype == "float64":
            return {}
        train = self.observations.train  # this process's part of it
        residual = self.fit.model.to(torch.float64, "cpu").measure(train) - train.value
        mean = LOSSES[self.settings.loss].mean(residual)
        total, count = self.workers.sum(
            torch.stack([mean * len(train), mean.new_tensor(len(train))]).to(self.device)
        ).tolist()
        return {"train_loss_float64": total / count}
