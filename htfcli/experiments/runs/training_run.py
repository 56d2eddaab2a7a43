"""The base of the runs that train: how they start, record, save checkpoints and end, with or without a run folder."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from htfcli.config.base import Config
from htfcli.config.records import Record
from htfcli.engine.runtime.device import describe_device
from htfcli.engine.runtime.distributed import Workers
from htfcli.errors import ConfigError, Interrupted, RunError
from htfcli.experiments.runs.resuming import absolute, merged, open_folder
from htfcli.files.own.container import Artefact
from htfcli.files.own.run_folder import CHECKPOINT, versions

C = TypeVar("C", bound=Config)


class Resumable(Protocol):
    """A training that can be saved between records: `GradientFit`, `SecondOrderFit` or `Training`."""

    stop_reason: str

    def state(self) -> dict[str, Tensor]:
        """Copies of all that changes; with several processes, each must call it at the same time."""


class TrainingRun(ABC, Generic[C]):
    """One training, checked and ready to start.

    Args:
        config: settings. When a run is resumed the saved settings hold, and `config` may change only `may_change`.
        data: input; None where the settings say what to train on. output: run folder, or `-` to keep only the result.
        resume, force: see `RunFolder`. workers: the processes that share the work; only process 0 writes.
    Raises:
        ConfigError, DataError: if settings or data are unusable; nothing has been written then.

    Attributes:
        settings: the settings in force. device: where it trains. summary: final numbers, set at the end of the run.
    """

    command: ClassVar[str]  # the command that resumes the run
    counter: ClassVar[str]  # key of a record that counts, iteration or epoch
    may_change: ClassVar[set[str]]  # settings that may differ when the run is resumed

    settings: C
    device: torch.device

    def __init__(
        self,
        config: C,
        data: str | None,
        output: str,
        *,
        resume: bool = False,
        force: bool = False,
        workers: Workers | None = None,
    ) -> None:
        self.workers = workers or Workers()
        self.summary: Record = {}
        self.folder = open_folder(
            output, data, self.workers, lambda saved: self._prepare(config, data, saved), resume=resume, force=force
        )

    def _prepare(self, config: C, data: str | None, saved: Artefact | None) -> None:
        """Load and check everything before a folder is made; `saved` is the checkpoint of a run that is resumed."""
        self.settings = config if saved is None else merged(config, saved.config, self.may_change)
        self._input = data if saved is None or data is not None else saved.content.get("input")
        self._digest = self._load(config)
        if saved is not None and saved.content.get("data") != self._digest:
            raise ConfigError("the run was started on other data", next_step="Resume with the data it was started on.")
        self._build(None if saved is None else saved.tensors())

    # --- what each kind of training adds ------------------------------------------------------------------------------

    @abstractmethod
    def _load(self, config: C) -> str:
        """Load the data; `config` is what the user gave. Returns: a digest of the data."""

    @abstractmethod
    def _build(self, state: dict[str, Tensor] | None) -> None:
        """Build model and training, and restore the state of a checkpoint."""

    @property
    @abstractmethod
    def _training(self) -> Resumable: ...

    @property
    @abstractmethod
    def _count(self) -> int:
        """The counter of the next record."""

    @property
    @abstractmethod
    def _checkpoint_every(self) -> float:
        """Seconds between checkpoints; 0 for one at each record."""

    @abstractmethod
    def _place(self) -> str:
        """Where the training is, for the message of an interruption: `at iteration 30`."""

    @abstractmethod
    def _conclude(self, record: Record, seconds: float) -> Record:
        """Compute the result; returns the summary fields of this kind of training, given the last record."""

    @abstractmethod
    def save(self, destination: str | Path) -> None:
        """Write the result to a file, or to stdout if `destination` is `-`."""

    def _good_state(self) -> dict[str, Tensor] | None:
        """The state to save after a failure; None if the latest checkpoint holds it."""
        return None

    def _observe(self, record: Record) -> None:
        """Called with each record, and first with the last one before this run was resumed."""

    def _saved_state(self) -> str:
        """What the latest checkpoint holds, for a message."""
        return "the state"

    def _resume_options(self) -> str:
        """Options that resuming needs besides the folder."""
        return ""

    # --- the run ------------------------------------------------------------------------------------------------------

    def _run(self, records: Iterator[Record | None], on_record: Callable[[Record], None]) -> Iterator[None]:
        """Train to the end of `records` and save everything; each None among them is passed on to the caller.

        Args:
            records: of the training, which advances as they are taken. on_record: called with each, in process 0.
        Raises:
            RunError: if the training failed; the last good state has been saved.
            Interrupted: if the training was interrupted; its state has been saved.
        """
        started = time.monotonic()
        with self.folder or nullcontext():
            last: Record = {}
            if self.folder is not None:
                facts = {"data": self._input, **self._facts(), **versions()}
                self.folder.write_config(self.settings.model_dump(mode="json"), facts)
                last = self.folder.start_records(before=self._count, counter=self.counter)
            last = yield from self._train(records, on_record, last)
            seconds = time.monotonic() - started
            self.summary = {
                **self._conclude(last, seconds),
                "seconds": round(seconds, 3),
                **self._facts(),
                "versions": versions(),
            }
            if self.folder is not None:
                self.save(self.folder.path / "model.safetensors")
                self.folder.write_summary(self.summary)

    def _train(
        self, records: Iterator[Record | None], on_record: Callable[[Record], None], record: Record
    ) -> Generator[None, None, Record]:
        """Follow a training; `record` is the last one before it. Returns: its last record."""
        self._observe(record)
        saved, saved_at = False, time.monotonic()  # whether the current state is in the checkpoint
        try:
            for latest in records:
                if latest is None:
                    yield
                    continue
                record = latest
                if self.folder is not None:
                    self.folder.append(record)
                saved = time.monotonic() - saved_at >= self._checkpoint_every
                if saved:
                    self._checkpoint()
                    saved_at = time.monotonic()
                if self.workers.first:
                    on_record(record)
                self._observe(record)
        except RunError as error:
            if (state := self._good_state()) is not None:
                self._write_checkpoint(state)
            raise RunError(str(error).rstrip(".") + self._saved()) from None
        except BrokenPipeError:  # the reader of the records has exited
            if not saved:
                self._checkpoint()
            raise
        interrupted = self._training.stop_reason == "interrupted"
        if interrupted or not saved:
            self._checkpoint()
        if interrupted:
            raise Interrupted(f"interrupted {self._place()}{self._saved()}")
        return record

    def _checkpoint(self) -> None:
        if self.folder is not None or self.workers.count > 1:  # all processes contribute to the state
            self._write_checkpoint(self._training.state())

    def _write_checkpoint(self, state: dict[str, Tensor]) -> None:
        if self.folder is not None:
            content = {"data": self._digest, "input": absolute(self._input)}
            self.folder.save_checkpoint(state, self.settings.model_dump(mode="json"), content)

    def _facts(self) -> dict[str, Any]:
        """What the run ran with, for its configuration and its summary."""
        return {"device": describe_device(self.device), "processes": self.workers.count}

    def _saved(self) -> str:
        """The end of a message that says what is saved and how to continue; empty if nothing is."""
        if self.folder is None or not (self.folder.path / CHECKPOINT).exists():
            return ""
        continued = f"htf {self.command} --resume -o {self.folder.path}{self._resume_options()}"
        return f"; {self._saved_state()} is saved, continue with: {continued}"
