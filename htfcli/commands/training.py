"""Rank-0 logging for distributed runs: what `htf fit`, `htf train-cnn` and `htf complete` share under torchrun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from htfcli.cli.console import RecordWriter
from htfcli.config.records import Record
from htfcli.engine.runtime.distributed import Workers, workers
from htfcli.errors import HtfError
from htfcli.experiments.runs.tracking import tracking


@dataclass(frozen=True)
class RunLog:
    """Where the records and messages of a training go.

    Args:
        workers: the processes of the run. send: passes a record to the tracker. output: the run folder, or `-`.
        quiet: no messages on stderr; always set in processes other than process 0.
    """

    workers: Workers
    send: Callable[[Record], None]
    output: str
    quiet: bool

    @property
    def saved(self) -> str:
        """The end of the closing message: where the result is."""
        return "" if self.output == "-" else f"; saved {self.output}"

    def recorder(self, writer: RecordWriter, latest: Record) -> Callable[[Record], None]:
        """A function that stores each record in `latest`, tracks it, and writes it unless stdout gets the result."""

        def on_record(record: Record) -> None:
            latest.update(record)
            self.send(record)
            if self.output != "-":
                writer.write(record)

        return on_record


@contextmanager
def run_log(track: Literal["tensorboard"] | None, output: str, counter: str, quiet: bool) -> Iterator[RunLog]:
    """Connect the processes of a training and open its tracker, in process 0, while the block runs."""
    with connected() as team, tracking(track if team.first else None, output, counter) as send:
        yield RunLog(team, send, output, quiet or not team.first)


@contextmanager
def connected() -> Iterator[Workers]:
    """Connect the processes that torchrun started while the block runs; only process 0 reports an error."""
    first = True
    try:
        with workers() as team:
            first = team.first
            yield team
    except HtfError as error:
        if first:
            raise
        raise SystemExit(error.exit_code) from None
