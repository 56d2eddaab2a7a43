"""Progress of sweeps: a live table on a terminal, otherwise one line per run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from htfcli.cli.console import cell, note
from htfcli.cli.interrupts import StopSignals
from htfcli.config.units import duration
from htfcli.experiments.sweeps.local_pool import Pool
from htfcli.experiments.sweeps.summary import FINAL_SHOWN, Row
from htfcli.experiments.sweeps.sweep import Progress, Sweep, Watcher

_MOST_LINES = 20  # of the live table: running and failed runs first
_TAIL = 1 << 16  # bytes at the end of a file of records that contain the last one
_ORDER = ("running", "failed", "interrupted", "finished", "waiting")


def run_with_progress(sweep: Sweep, pool: Pool, retries: int, on_row: Callable[[Row], None], quiet: bool) -> list[Row]:
    """Run a sweep with progress on stderr; each row is passed to `on_row` when its run ends, and all are returned."""
    note(sweep.describe(), quiet)
    live = sys.stderr.isatty() and not quiet

    def on_end(progress: Progress) -> None:
        on_row(progress.row)
        if not live and not progress.kept:
            after = f"{progress.status} after {duration(progress.seconds)}"
            left = time_left(sweep.progress, time.monotonic() - started)
            note(f"{progress.job.run.name}: {after}" + (f": {progress.error}" if progress.error else left), quiet)

    started = time.monotonic()
    with StopSignals() as stop, _live(live) as show:
        sweep.run(pool, retries, Watcher(show, on_end, lambda: stop.received))
    note(f"all runs finished; summary in {os.path.relpath(sweep.path)}/summary.csv", quiet)
    return [progress.row for progress in sweep.progress]


def table_row(row: Row) -> Row:
    """Of a run: what varied, and its first final numbers."""
    final = row["final"] or {}
    shown = {name.replace("_", " "): final.get(name) for name in FINAL_SHOWN[row["command"]]}
    return {**row["varied"], "status": row["status"], **shown}


@contextmanager
def _live(wanted: bool) -> Iterator[Callable[[Sequence[Progress]], None]]:
    if not wanted:
        yield lambda progress: None
        return
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        started, shown = time.monotonic(), 0.0

        def show(progress: Sequence[Progress]) -> None:
            nonlocal shown
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                live.update(_view(progress, shown - started), refresh=True)

        yield show


def _view(progress: Sequence[Progress], elapsed: float) -> Group:
    """The live table, and a line with counts and the remaining time."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("run", "status", "try", "time", "now"):
        table.add_column(title, justify="right" if title in ("try", "time") else "left", no_wrap=title != "now")
    ordered = sorted(progress, key=lambda p: (_ORDER.index(p.status), p.kept, -(p.started or 0)))
    for p in ordered[:_MOST_LINES]:
        running = p.status == "running" and p.started is not None
        seconds = time.monotonic() - p.started if running and p.started is not None else p.seconds
        now = p.error or (latest(p.job.folder) if running else "")
        table.add_row(p.job.run.name, p.status, str(p.tries or ""), duration(round(seconds)) if seconds else "", now)
    counts = Counter(p.status for p in progress)
    line = ", ".join(f"{counts[status]} {status}" for status in _ORDER if counts[status])
    return Group(table, Text(line + time_left(progress, elapsed)))


def time_left(progress: Sequence[Progress], elapsed: float) -> str:
    """The remaining time at the pace so far, as the end of a line; empty until a run has ended."""
    done = sum(p.status in ("finished", "failed") and not p.kept for p in progress)
    rest = sum(p.status in ("running", "waiting") for p in progress)
    if not done or not rest:
        return ""
    return f"; about {duration(round(elapsed / done * rest))} left"


def latest(folder: Path) -> str:
    """Where a run is, according to its last complete record."""
    try:
        with open(folder / "records.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            record = json.loads(file.read().splitlines()[-2])
    except (OSError, ValueError, IndexError):
        return ""
    shown = ("iteration", "epoch", "stage", "width", "train_loss", "task_loss", "test_accuracy", "held_out_error")
    return ", ".join(f"{key.replace('_', ' ')} {cell(record[key])}" for key in shown if record.get(key) is not None)
