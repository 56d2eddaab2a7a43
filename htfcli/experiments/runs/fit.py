"""A fit from input to run folder: load, train, record, checkpoint, save; interruptible at any iteration, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch

from htfcli.config.tensors import DEFAULT_TOLERANCE, FitConfig
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.fitting.fit import SOLVERS, build_model, prepare
from htfcli.engine.fitting.gradient_descent import GradientFit
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.observations.observations import Observations
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra
from htfcli.engine.fitting.records import Record, derivative_error
from htfcli.engine.runtime.device import choose_device, describe_device
from htfcli.engine.runtime.distributed import Workers
from htfcli.errors import ConfigError, Interrupted, RunError
from htfcli.experiments.runs.resuming import absolute, merged, open_folder
from htfcli.files.own.artefacts import save_factorization
from htfcli.files.own.container import Artefact
from htfcli.files.inputs import load_observations
from htfcli.files.own.run_folder import versions
from htfcli.files.shards import fingerprint, load_shard
from htfcli.config.units import duration

MAY_CHANGE = {"iterations", "seconds", "until_loss", "patience", "lr", "checkpoint_every", "threads", "device"}


_DRIFT = 0.01  # relative difference of a loss in float32 that is worth a word


class FitRun:
    """One fit, ready to go.

    Args:
        config: settings. On resuming, those of the checkpoint hold and only `MAY_CHANGE` may be given differently.
        data: input of any kind. output: run folder, or `-` to keep nothing but the result.
        resume, force: see `RunFolder`. workers: the processes that share the work; only the first one writes.

    Attributes:
        settings: what is in force. fit: the training run. summary: final numbers, once `run` has ended.
    """

    def __init__(
        self,
        config: FitConfig,
        data: str | None,
        output: str,
        *,
        resume: bool = False,
        force: bool = False,
        workers: Workers | None = None,
    ) -> None:
        self.workers = workers or Workers()
        self.summary: dict[str, Any] = {}
        self.folder = open_folder(
            output, data, self.workers, lambda saved: self._prepare(config, data, saved), resume=resume, force=force
        )

    def _prepare(self, config: FitConfig, data: str | None, saved: Artefact | None) -> None:
        """Everything that can be wrong with settings and data shows here, before a folder is made."""
        self.settings = config if saved is None else merged(config, saved.config, MAY_CHANGE)
        self._data = data if saved is None or data is not None else saved.content.get("input")
        if self._data is None:
            advice = "Shortest useful call: htf fit data.npy (see htf fit --help)."
            raise ConfigError("no data to fit", next_step=advice)
        observations = self._observations(self._data)
        self._digest = fingerprint(observations, self.workers)
        if saved is not None and saved.content.get("data") != self._digest:
            raise ConfigError("the run was fitted to other data", next_step="Resume with the data of the first run.")
        self.observations, self.scale = prepare(observations, self.settings, self.workers)
        self.device = choose_device(self.settings.device, self.settings.threads)
        model = build_model(self.settings, observations.dims, self.device)
        self.fit = SOLVERS[self.settings.solver](model, self.observations, self.settings, self.workers)
        if saved is not None:
            self.fit.load_state(saved.tensors())

    def _observations(self, data: str) -> Observations:
        """All of them; this process's shard where each iteration needs no other rows."""
        s = self.settings
        if s.dims is None and s.batch_size is None and s.test_fraction is None and s.solver == "gradient":
            return load_shard(data, self.workers)
        return load_observations(data, None if s.dims is None else tuple(s.dims))

    def describe(self) -> str:
        """What is about to happen, in a line."""
        model, (train, test) = self.fit.model, self.observations.counts
        return (
            f"{model.kind} of {' x '.join(map(str, model.dims[:8]))}{' x ...' if model.order > 8 else ''}, "
            f"{len(model.parameters):,} parameters; {train:,} observations, "
            f"{test:,} held out; {self.settings.dtype} on {describe_device(self.device)}"
            f"{f', {self.workers.count} processes' if self.workers.count > 1 else ''}"
        )

    def ending(self) -> str:
        """How it ended, in a line."""
        s = self.settings
        why = {
            "iterations": "all iterations done",
            "loss": f"train loss under {s.until_loss:g} for {s.patience} records" if s.until_loss is not None else "",
            "seconds": "time is up",
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
            on_record: called with each record. should_stop: called before each iteration; True interrupts.
        Returns: the result in the units of the data.
        Raises:
            RunError: if the run diverged; the last good state has been saved.
            Interrupted: if `should_stop` said so; the state has been saved.
        """
        work = self._work(self.fit.run(should_stop), on_record)
        while True:
            try:
                next(work)
            except StopIteration as ending:
                model: Factorization = ending.value
                return model

    def course(self, should_stop: Callable[[int], bool]) -> Iterator[None]:
        """`run` by a caller that computes the gradients, see `GradientFit.course`: yields when one is wanted."""
        assert isinstance(self.fit, GradientFit)
        return self._work(self.fit.course(should_stop), lambda record: None)

    def _work(
        self, records: Iterator[Record | None], on_record: Callable[[Record], None]
    ) -> Generator[None, None, Factorization]:
        """Save what `records` brings, and everything at its end; passes its Nones on."""
        started, first = time.monotonic(), self.fit.iteration
        if self.folder is None:
            return (yield from self._train(records, on_record, started, first, Record()))
        with self.folder:
            self.folder.write_config(
                self.settings.model_dump(mode="json"),
                {"data": self._data, "device": describe_device(self.device)} | versions(),
            )
            previous = self.folder.start_records(before=first)
            model = yield from self._train(records, on_record, started, first, previous)
            self._checkpoint(self.fit.state())
            save_factorization(self.folder.path / "model.safetensors", model, self.settings.model_dump(mode="json"))
            self.folder.write_summary(self.summary)
        return model

    def _train(
        self,
        records: Iterator[Record | None],
        on_record: Callable[[Record], None],
        started: float,
        first: int,
        previous: Record,
    ) -> Generator[None, None, Factorization]:
        """Train; `previous` is the last record before the first one made here."""
        saved_at = time.monotonic()
        record = Record()
        try:
            for latest in records:
                if latest is None:
                    yield
                    continue
                record = latest
                if self.folder is not None:
                    self.folder.append(record)
                    if time.monotonic() - saved_at >= self.settings.checkpoint_every:
                        self._checkpoint(self.fit.state())
                        saved_at = time.monotonic()
                if self.workers.first:
                    on_record(record)
                if not self.fit.stop_reason:
                    previous = record  # with measured derivatives: no step follows the last record
        except RunError as error:
            raise RunError(str(error).rstrip(".") + self._keep(self.fit.good_state)) from None
        except BrokenPipeError:  # whoever read the records has gone
            self._keep(self.fit.state())
            raise
        if self.fit.stop_reason == "interrupted":
            raise Interrupted(f"interrupted at iteration {self.fit.iteration}{self._keep(self.fit.state())}")
        model = self.fit.result(self.scale)
        self.summary = self._summarize(model, record, time.monotonic() - started, first)
        self.summary["derivative_error"] = derivative_error(previous)
        return model

    def _keep(self, state: dict[str, torch.Tensor] | None) -> str:
        """Save a state on the way out; the end of a sentence that says where it is."""
        if self.folder is None or state is None:
            return ""
        self._checkpoint(state)
        iteration = int(state["counters"][0])
        return f"; the state of iteration {iteration} is saved, continue with: htf fit --resume -o {self.folder.path}"

    def _checkpoint(self, state: dict[str, torch.Tensor]) -> None:
        assert self.folder is not None
        self.folder.save_checkpoint(
            state, self.settings.model_dump(mode="json"), {"data": self._digest, "input": absolute(self._data)}
        )

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

    def _summarize(self, model: Factorization, record: Record, seconds: float, first: int) -> dict[str, Any]:
        spectra = FactoredSpectra(model.to(torch.float64)).spectra()
        steps = self.fit.iteration - first
        final = {key: value for key, value in record.items() if not isinstance(value, list | str)}
        return {
            "kind": "fit",
            "stop_reason": self.fit.stop_reason,
            **final,
            "hierarchical_rank": {s.label: s.rank() for s in spectra},
            "rank_tolerance": DEFAULT_TOLERANCE,
            "effective_rank": {s.label: s.effective_rank for s in spectra},
            **self._exact_loss(),
            "parameters": len(model.parameters),
            "value_scale": self.scale,
            "seconds": round(seconds, 3),
            "iterations_per_second": round(steps / seconds, 1) if steps else None,
            "device": describe_device(self.device),
            "processes": self.workers.count,
            "versions": versions(),
        }
