"""Processes that work together, of which the first one talks; and what `htf fit` and `htf train-cnn` share besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from htfcli.cli.console import RecordWriter
from htfcli.engine.runtime.distributed import Workers, workers
from htfcli.errors import HtfError
from htfcli.experiments.runs.tracking import tracking

Record = dict[str, Any]


@dataclass(frozen=True)
class Talk:
    """Where a training's records go.

    Args:
        team: its processes. send: to TensorBoard. output: the run folder, or `-`. quiet: nothing on stderr.
    """

    team: Workers
    send: Callable[[Record], None]
    output: str
    quiet: bool

    @property
    def saved(self) -> str:
        """The end of a sentence that says where the result is."""
        return "" if self.output == "-" else f"; saved {self.output}"

    def to(self, writer: RecordWriter, latest: Record) -> Callable[[Record], None]:
        """Called with each record: keeps it in `latest`, sends it, and writes it unless stdout gets the result."""

        def on_record(record: Record) -> None:
            latest.update(record)
            self.send(record)
            if self.output != "-":
                writer.write(record)

        return on_record


@contextmanager
def talking(track: Literal["tensorboard"] | None, output: str, counter: str, quiet: bool) -> Iterator[Talk]:
    """Connect the processes of a training."""
    with together() as team, tracking(track if team.first else None, output, counter) as send:
        yield Talk(team, send, output, quiet or not team.first)


@contextmanager
def together() -> Iterator[Workers]:
    """Connect the processes that torchrun started; what goes wrong is said by the first one for all."""
    first = True
    try:
        with workers() as team:
            first = team.first
            yield team
    except HtfError as error:
        if first:
            raise
        raise SystemExit(error.exit_code) from None
