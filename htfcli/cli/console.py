"""The stream rule: stdout carries records (or an artefact's bytes) and nothing else, everything said goes to stderr.

Records are a table when stdout is a terminal and JSON Lines when it is not; `--format` overrides. Progress is shown
only when stderr is a terminal.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from htfcli.errors import printable
from htfcli.files.own.records import flatten, to_json

Format = Literal["table", "jsonl", "csv"]
Row = dict[str, Any]


def note(text: str, quiet: bool = False) -> None:
    """Say something on stderr."""
    if not quiet:
        print("\n".join(map(printable, text.splitlines())), file=sys.stderr, flush=True)


class RecordWriter:
    """Writes records to stdout as they come; a table when all are there.

    Args:
        format: table, jsonl or csv; by default the one that suits stdout.
        row: record -> cells of its table row by column title. keep: which rows a table shows, of how many.
        caption: a line under the table.
    """

    def __init__(
        self,
        format: Format | None,
        row: Callable[[Row], Row],
        keep: Callable[[int, int], bool] = lambda number, count: True,
        caption: str | None = None,
    ) -> None:
        self.format = format or ("table" if sys.stdout.isatty() else "jsonl")
        self._row, self._keep, self._caption = row, keep, caption
        self._rows: list[Row] = []
        self._columns: list[str] | None = None

    def write(self, record: Row) -> None:
        if self.format == "jsonl":
            sys.stdout.write(to_json(record) + "\n")
            sys.stdout.flush()
        elif self.format == "csv":
            flat = dict(flatten(record))
            writer = csv.writer(sys.stdout, lineterminator="\n")
            if self._columns is None:
                self._columns = list(flat)
                writer.writerow(self._columns)
            writer.writerow([flat.get(column, "") for column in self._columns])
            sys.stdout.flush()
        else:
            self._rows.append(self._row(record))

    def close(self) -> None:
        """Draw the table, if that is the format."""
        if self.format != "table" or not self._rows:
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.measure import Measurement
        from rich.table import Table

        console = Console(markup=False, emoji=False)  # a label may read [like this]
        table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=self._caption)
        for column in self._rows[0]:
            table.add_column(printable(column), justify="left" if isinstance(self._rows[0][column], str) else "right")
        rows = [row for number, row in enumerate(self._rows) if self._keep(number, len(self._rows))]
        for row in rows:
            table.add_row(*(cell(value) for value in row.values()))
        if Measurement.get(console, console.options.update(max_width=1000), table).minimum <= console.width:
            console.print(table)
            return
        for row in rows:  # too narrow to tell columns from each other: a line a value
            lines = [f"{printable(column)}: {cell(value)}" for column, value in row.items()]
            console.print(*lines, "", sep="\n", markup=False)


def cell(value: Any) -> str:
    """A table cell: four significant digits, lists as they come."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "  ".join(cell(item) for item in value)
    return printable(str(value))


@contextmanager
def progress(label: str, total: int | None, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """A progress line on stderr while the block runs; yields `update(done, detail)`, which may be called often."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, detail: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(label),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, detail="")
        shown = 0.0

        def update(done: int, detail: str) -> None:
            nonlocal shown
            if time.monotonic() - shown > 0.1:  # an iteration may take less than drawing the line
                shown = time.monotonic()
                bar.update(task, completed=done, detail=detail)

        yield update
