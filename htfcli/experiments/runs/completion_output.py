"""What a completion writes: predictions, their deviations and intervals, and completed data sets drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.engine.completion.result import Completion
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, Interrupted
from htfcli.files.completion_input import Cube, refuse_other_format
from htfcli.files.foreign.cells import Values
from htfcli.files.foreign.readers import suffix_of
from htfcli.files.own.container import refuse_existing, refuse_terminal
from htfcli.files.tables.formats import TEXT
from htfcli.files.tables.table import BOUNDS, Bounds, Table
from htfcli.files.tables.text import FIXED

_MOST_DRAWN = 10**7  # predicted entries of a data set that is drawn: all are held in memory at once
_TEXT = (*TEXT, ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Output:
    """The files of one completion.

    Args:
        target: the data, or a table of entries that are asked for. asked: whether it is the latter.
        file: of the predictions, or `-`. uncertainty: a file for their standard deviations.
        config: what is written beside them. further: add a row for every combination that a table lacks.
    """

    target: Table | Cube
    asked: bool
    file: str
    uncertainty: str | None
    config: CompletionRunConfig
    further: bool

    @property
    def _has_columns(self) -> bool:
        """Whether intervals are columns of the output, not files of their own."""
        return isinstance(self.target, Table) and not self.target.is_wide and self.target.suffix not in FIXED

    def paths(self) -> list[str]:
        """All files that are written."""
        found = [self.file, *([] if self.uncertainty is None else [self.uncertainty])]
        if self.config.interval is not None and not self._has_columns:
            found += [beside(self.file, name) for name in BOUNDS]
        return found + [beside(self.file, str(number + 1)) for number in range(self.config.imputations or 0)]

    def refuse_impossible(self, predicted: int, force: bool) -> None:
        """Raise ConfigError for files that cannot be written as they are asked for, or are there already."""
        for path in (self.file, *([] if self.uncertainty is None else [self.uncertainty])):
            refuse_other_format(path, self.target)
        if self.file == "-":
            if self.config.imputations is not None:
                raise ConfigError("--imputations writes files beside the output", next_step="Name a file with -o.")
            if self.config.interval is not None and not self._has_columns:
                kind = self.target.suffix
                raise ConfigError(f"--interval writes files beside a {kind} output", next_step="Name a file with -o.")
            if self.target.suffix not in _TEXT:
                refuse_terminal()
        if self.config.interval is not None and isinstance(self.target, Table) and self._has_columns:
            twice = [name for name in BOUNDS if name in self.target.source.file.head.names]
            if twice:
                raise ConfigError(f"--interval adds a column that {self.target.name} has already", got=twice[0])
        if self.config.imputations is not None and predicted > _MOST_DRAWN:
            allowed = f"{_MOST_DRAWN:,}"
            raise ConfigError("too many predicted entries to draw --imputations", got=f"{predicted:,}", allowed=allowed)
        for path in self.paths():
            if path != "-":
                refuse_existing(path, force)

    def write(
        self, completion: Completion, entries: Entries | None, should_stop: Callable[[], bool], kept: str = ""
    ) -> None:
        """Write all files, each whole or not at all.

        Args:
            completion: what predicts. entries: what is known. should_stop: asked often; True interrupts.
            kept: for the message of an interruption, what there is besides.
        Raises:
            Interrupted: if `should_stop` said so; it says which files are written.
        """
        written: list[str] = []

        def checked() -> None:
            if should_stop():
                raise Interrupted(f"interrupted, {self._state(written)}{kept}")

        def stoppable(values: Values) -> Values:
            def at(index: Tensor) -> Tensor:
                checked()
                return values(index)

            return at

        def put(
            path: str, values: Values, everywhere: bool, bounds: Bounds | None = None, own_type: bool = True
        ) -> None:
            if not isinstance(self.target, Table):
                self.target.write(path, stoppable(values), everywhere=everywhere, own_type=own_type)
            else:
                known = None if everywhere else entries
                how: dict[str, Any] = {"everywhere": everywhere, "further": self.further, "own_type": own_type}
                self.target.write(path, stoppable(values), known, bounds=bounds, **how)
            written.append(path)

        everywhere, level = self.asked or self.config.smooth, self.config.interval
        in_columns = level is not None and self._has_columns

        def bounds(index: Tensor) -> tuple[Tensor, Tensor]:
            assert level is not None
            return completion.interval(index, level)

        def end_of_bounds(end: int) -> Values:
            return lambda index: bounds(index)[end]

        put(self.file, completion.values, everywhere, bounds if in_columns else None)
        if self.uncertainty is not None:
            put(self.uncertainty, completion.std, everywhere=True, own_type=False)
        if level is not None and not in_columns:
            for end, name in enumerate(BOUNDS):
                put(beside(self.file, name), end_of_bounds(end), everywhere, own_type=False)
        if self.config.imputations:
            for number, drawn in enumerate(self._drawn(completion, entries, self.config.imputations), 1):
                put(beside(self.file, str(number)), in_order(drawn), everywhere=self.asked)

    def _drawn(self, completion: Completion, entries: Entries | None, count: int) -> Iterator[Tensor]:
        """Values (n,) of the predicted entries, in the order in which they are written, `count` times."""
        if not isinstance(self.target, Table):
            index = self.target.asked()
        else:
            known = None if self.asked else entries
            index = self.target.asked(known, everywhere=self.asked, further=self.further)
        generator = torch.Generator().manual_seed(self.config.seed)
        for _ in range(count):
            yield completion.imputations(index, 1, generator)[0]

    def _state(self, written: list[str]) -> str:
        if self.file == "-" and not written:
            return "the output is cut off"
        if not written:
            return "nothing is written"
        unwritten = self.paths()[len(written)]
        return f"{', '.join(written)} {'is' if len(written) == 1 else 'are'} written and {unwritten} is not"


def beside(path: str, name: str) -> str:
    """The file that stands beside another, as out.lower.npy beside out.npy."""
    suffix = suffix_of(Path(path))
    stem = path[: len(path) - len(suffix)]
    return f"{stem}.{name}{path[len(stem) :]}"


def in_order(drawn: Tensor) -> Values:
    """Values that were drawn beforehand, for a writer that asks for them in their order."""
    start = 0

    def values(index: Tensor) -> Tensor:
        nonlocal start
        start += len(index)
        return drawn[start - len(index) : start]

    return values
