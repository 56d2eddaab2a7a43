"""A completion from input to output: load, fit, write what was asked for and a run folder beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from htfcli.config.records import Record
from htfcli.engine.completion.complete import complete
from htfcli.engine.completion.result import Completion
from htfcli.engine.factorizations.factorization import DENSE_LIMIT
from htfcli.engine.runtime.device import choose_device, describe_device
from htfcli.engine.runtime.distributed import Workers
from htfcli.errors import ConfigError, DataError, HtfError, Interrupted
from htfcli.experiments.runs.completion_output import Output
from htfcli.experiments.runs.completion_request import Request
from htfcli.experiments.runs.completion_summary import LONG, summarize
from htfcli.files.completion_input import Data, load_data, load_queries, observed, order_of_modes
from htfcli.files.foreign.datasets import DatasetTensor
from htfcli.files.foreign.dense_tensor import DenseTensor
from htfcli.files.own.completion import SavedCompletion, save_completion, slices_of
from htfcli.files.own.run_folder import RunFolder, versions
from htfcli.files.stored_entries import StoredEntries
from htfcli.files.tables.table import Table

MOST_ROWS = 10**8  # of a table that is written without being asked for
_COUNTABLE = 2**62  # combinations that can be numbered
_OF_PREDICTIONS = {"interval", "imputations"}  # settings that a fitted completion can be given


class CompleteRun:
    """One completion, ready to go.

    Args:
        request: what is asked for. workers: the processes that run this, each the whole; only the first one writes.

    Attributes:
        output: the file that is written, or `-`. notes: how the data were read, where that is not as one expects.

    Raises:
        HtfError: for everything that can be wrong with settings and data, before anything is written.
    """

    def __init__(self, request: Request, *, workers: Workers | None = None) -> None:
        self._workers = workers or Workers()
        self.config, self._input, self._force = request.config, request.data, request.force
        config, output, predict, folder = request.config, request.output, request.predict, request.folder
        uncertainty, force = request.uncertainty, request.force
        self.output = output
        self._remarked: list[str] = []
        self.notes: list[str] = []
        loaded = load_data(request.located, config, self._remarked.append, request.understood, self.notes.append)
        self._saved = loaded if isinstance(loaded, SavedCompletion) else None
        if self._saved is not None:
            self._refuse_settings(predict, folder)
        self._data: Data | None = None if isinstance(loaded, SavedCompletion) else loaded
        self._axes, self._value_name = loaded.axes, loaded.value_name
        queries = None if predict is None else load_queries(predict, self._axes, self._value_name, config)
        target = self._data if queries is None else queries
        assert target is not None
        if isinstance(target, StoredEntries):
            raise DataError(
                f"{target.name} is of a tensor too large to be written out",
                got=f"dimensions {list(target.dims)}",
                allowed=f"{DENSE_LIMIT:.2g} entries",
                next_step="Name the entries you need in a table, with --predict.",
            )
        self._target, self._asked = target, queries is not None
        self._folder = folder or (None if output == "-" or self._data is None else f"{output}.run")
        further, self.predicted = self._count()
        self._output = Output(target, self._asked, output, uncertainty, config, further)
        if self._workers.first:
            self._output.refuse_impossible(self.predicted, force)
        if self._data is not None:
            self.entries, self._std = observed(self._data, config)
            self._order = order_of_modes(self._data, config.ordered or ())
            self._device = choose_device(config.place, config.threads, self._workers.count)

    def _refuse_settings(self, predict: str | None, folder: str | None) -> None:
        """Raise ConfigError if it is not said what a fitted completion predicts, or settings are given that it has."""
        if predict is None:
            advice = "Name a table of them: --predict queries.csv."
            raise ConfigError(f"{self._input} is fitted; which entries to predict", next_step=advice)
        free = _OF_PREDICTIONS | ({"seed"} if self.config.imputations is not None else set())
        given = [f"--{name.replace('_', '-')}" for name in sorted(self.config.model_fields_set - free)]
        given += [] if folder is None else ["--run"]
        if given:
            raise ConfigError(f"{self._input} is fitted, its settings cannot change", got=", ".join(given))

    def _count(self) -> tuple[bool, int]:
        """Whether rows are added to a table, and how many entries the model predicts."""
        target = self._target
        if self._asked and isinstance(target, Table):
            return False, len(target.value)
        if not isinstance(target, Table):
            return False, target.lacking()
        missing = int(torch.isnan(target.value).sum())
        if missing and not self.config.all:
            return False, missing
        lacking, total = target.lacking(), math.prod(target.dims)
        if total > _COUNTABLE or (lacking > MOST_ROWS and not self.config.all):
            by_all = "" if total > _COUNTABLE else ", or insist with --all"
            raise DataError(
                f"{target.name} lacks too many combinations to write them all",
                got=f"{lacking:,}" if lacking < 10**15 else f"about 10^{len(str(lacking)) - 1}",
                allowed=f"{MOST_ROWS:,}",
                next_step=f"Name those you need with --predict{by_all}.",
            )
        return True, missing + lacking

    def describe(self) -> str:
        """What is about to happen, in a line."""
        dims = self._target.dims
        size = f"{' x '.join(map(str, dims[:8]))}{' x ...' if len(dims) > 8 else ''}"
        if self._saved is not None:
            return f"{self.predicted:,} entries of {size} to predict"
        names = [axis.name for axis in self._axes]
        named = "" if all(name.isdigit() for name in names) else f" ({', '.join(names[:8])})"
        device = describe_device(self._device)
        several = f", {self._workers.count} processes" if self._workers.count > 1 else ""
        return f"{size}{named}; {len(self.entries):,} observed, {self.predicted:,} to predict; on {device}{several}"

    def run(self, on_step: Callable[[Record], None], should_stop: Callable[[], bool]) -> Record:
        """Fit, keep the fit, write what was asked for, and say how it went.

        Args:
            on_step: called with a record of each model fitted. should_stop: asked often; True interrupts.
        Returns: the summary.
        Raises:
            Interrupted: if `should_stop` said so; it says what has been written and kept.
        """
        if self._data is None:
            assert self._saved is not None
            self._write(self._saved.completion, should_stop, kept="")
            return {
                "kind": "prediction",
                "model": self._input,
                "output": self._output.file,
                "predicted": self.predicted,
                "warnings": self._remarks(),
            }
        with self._open_folder() as folder:
            completion, summary = self._fit(self._data, folder, on_step, should_stop)
            kept = ""
            if folder is not None:
                settings = self.config.model_dump(mode="json")
                slices = slices_of(self._data.values) if isinstance(self._data, DenseTensor | DatasetTensor) else None
                saved = SavedCompletion(completion, self._axes, self._value_name, slices)
                save_completion(folder.path / "model.safetensors", saved, settings)
                folder.write_summary(summary)
                kept = f"; the fit is in {folder.path}, predict with: htf complete {folder.path} --predict"
            self._write(completion, should_stop, kept)
        return {key: value for key, value in summary.items() if key not in LONG}

    def _open_folder(self) -> AbstractContextManager[RunFolder | None]:
        if self._folder is None or not self._workers.first:
            return nullcontext()
        folder = RunFolder(self._folder, force=self._force, resumable=False)
        facts = {"data": self._input, "output": self._output.file, "device": describe_device(self._device)}
        folder.write_config(self.config.model_dump(mode="json"), facts | versions())
        folder.start_records()
        return folder

    def _fit(
        self,
        data: Data,
        folder: RunFolder | None,
        on_step: Callable[[Record], None],
        should_stop: Callable[[], bool],
    ) -> tuple[Completion, Record]:
        def record(step: Record) -> None:
            step = {"kind": "complete", **step}
            if folder is not None:
                folder.append(step)
            on_step(step)

        started = time.monotonic()
        coordinates, unordered = self._order
        try:
            completion = complete(
                self.entries,
                data.dims,
                self.config,
                record,
                should_stop,
                coordinates=coordinates,
                std=self._std,
                wanted=self._wanted(),
                unordered=unordered,
            )
            if self._workers.any(should_stop()):
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            kept = "" if folder is None else f"; the models fitted so far are in {folder.path}/records.jsonl"
            raise Interrupted(f"interrupted, nothing is written{kept}") from None
        except HtfError:
            if folder is not None:
                folder.discard()  # nothing is in it that the next try, with other settings, should be asked about
            raise
        summary = {
            "kind": "completion",
            "input": self._input,
            "output": self._output.file,
            "predicted": self.predicted,
            "notes": self.notes,
            **summarize(completion, self.entries, self._axes),
            "seconds": round(time.monotonic() - started, 3),
            "run": self._folder,
            "device": describe_device(self._device),
            "versions": versions(),
        }
        summary["warnings"] += self._remarks()
        for passing in ("seconds", "steps"):  # equal runs are kept in equal bytes; records.jsonl has the steps
            completion.report.pop(passing, None)
        return completion, summary

    def _wanted(self) -> Tensor | None:
        """Entries (m, N) that are to be predicted; None for all that are not observed."""
        if not isinstance(self._target, Table) or self._output.further:
            return None
        known = None if self._asked else self.entries
        index = self._target.asked(known, everywhere=self._asked)
        return index if len(index) else None

    def _remarks(self) -> list[str]:
        """What the tables say that may be a mistake."""
        found = list(self._remarked)
        if isinstance(self._target, Table):
            for column, label, count in self._target.unknown:
                rows = f"{count:,} of {len(self._target.value):,} rows of {self._target.name}"
                unseen = f"{rows} have a value of column {column} that was never observed, as {label!r}"
                found.append(f"{unseen}; their predictions are defaults, from the other columns alone")
        return found

    def _write(self, completion: Completion, should_stop: Callable[[], bool], kept: str) -> None:
        if self._workers.first:
            entries = None if self._data is None else self.entries
            self._output.write(completion, entries, should_stop, kept)
