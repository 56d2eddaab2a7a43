"""Output of commands: records, or the bytes of an artefact, on stdout; messages and progress on stderr.

Records are a table when stdout is a terminal and JSON Lines otherwise; `--format` overrides. Progress is shown only
when stderr is a terminal.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from htfcli.config.records import Record
from htfcli.errors import printable
from htfcli.files.own.records import cells, to_json

Format = Literal["table", "jsonl", "csv"]


def note(text: str, quiet: bool = False) -> None:
    """Print a message on stderr."""
    if not quiet:
        print("\n".join(map(printable, text.splitlines())), file=sys.stderr, flush=True)


class RecordWriter:
    """Writes records to stdout: lines of JSON at once, a table or CSV when it is closed.

    Args:
        format: table, jsonl or csv; None for the default of this stdout.
        row: maps a record to the cells of its table row, by column title.
        keep: whether a table shows the row with a number, of how many rows. caption: a line below the table.
    """

    def __init__(
        self,
        format: Format | None,
        row: Callable[[Record], Record],
        keep: Callable[[int, int], bool] = lambda number, count: True,
        caption: str | None = None,
    ) -> None:
        self.format = format or ("table" if sys.stdout.isatty() else "jsonl")
        self._row, self._keep, self._caption = row, keep, caption
        self._rows: list[Record] = []

    def write(self, record: Record) -> None:
        """Write one record, or keep it for the end."""
        if self.format == "jsonl":
            sys.stdout.write(to_json(record) + "\n")
            sys.stdout.flush()
        elif self.format == "csv":
            self._rows.append(dict(cells(record)))
        else:
            self._rows.append(self._row(record))

    def close(self) -> None:
        """Print the table, or the lines of CSV, whose columns are known when all records are."""
        if self.format == "csv":
            columns = list(dict.fromkeys(key for row in self._rows for key in row))
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerows(
                [columns, *([row.get(key, "") for key in columns] for row in self._rows)] if columns else []
            )
            sys.stdout.flush()
        if self.format != "table" or not self._rows:
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.measure import Measurement
        from rich.table import Table

        console = Console(markup=False, emoji=False)  # labels may contain [brackets]
        table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=self._caption)
        for column in self._rows[0]:
            table.add_column(printable(column), justify="left" if isinstance(self._rows[0][column], str) else "right")
        rows = [row for number, row in enumerate(self._rows) if self._keep(number, len(self._rows))]
        for row in rows:
            table.add_row(*(cell(value) for value in row.values()))
        if Measurement.get(console, console.options.update(max_width=1000), table).minimum <= console.width:
            console.print(table)
            return
        for row in rows:  # too narrow for columns: one line per value
            lines = [f"{printable(column)}: {cell(value)}" for column, value in row.items()]
            console.print(*lines, "", sep="\n", markup=False)


def cell(value: Any) -> str:
    """The text of a table cell: numbers with four significant digits, items of lists in their order."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "  ".join(cell(item) for item in value)
    return printable(str(value))


@contextmanager
def progress(label: str, total: int | None, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """Show a progress line on stderr during the block; yields `update(done, detail)`, which may be called often."""
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
            if time.monotonic() - shown > 0.1:  # drawing the line may take longer than an iteration
                shown = time.monotonic()
                bar.update(task, completed=done, detail=detail)

        yield update
