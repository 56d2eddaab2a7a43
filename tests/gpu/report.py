"""The report of a run on a GPU, `gpu.md`, and a CSV file of every job; both grow while the jobs run."""

from __future__ import annotations

import csv
import time
from pathlib import Path

from tests.benchmarks.timing import machine, table
from tests.gpu.setting import Job, Row


class Report:
    """Written anew after every row, so that what is there when the time is up is kept.

    Args:
        out: folder. smoke: whether the figures are those of a rehearsal.
    """

    def __init__(self, out: Path, smoke: bool) -> None:
        self._out, self._smoke = out, smoke
        self._started = time.monotonic()
        self._jobs: list[tuple[Job, list[Row], list[str]]] = []

    def begin(self, job: Job) -> None:
        self._jobs.append((job, [], []))

    def add(self, row: Row) -> None:
        job, rows, _ = self._jobs[-1]
        rows.append(row)
        with (self._out / f"{job.NAME}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, _columns(rows))
            writer.writeheader()
            writer.writerows(rows)
        self.write()

    def remark(self, text: str) -> None:
        """A line below the table of the job that runs."""
        self._jobs[-1][2].append(text)
        self.write()

    def write(self) -> None:
        rehearsal = "A rehearsal on the CPU at toy sizes: its figures mean nothing." if self._smoke else ""
        lines = ["# On a GPU", "", "<!-- Made by python -m tests.gpu: not to be changed by hand. -->", ""]
        lines += [rehearsal, ""] if rehearsal else []
        lines += [f"{machine()}; {time.monotonic() - self._started:.0f} s in all.", ""]
        for job, rows, remarks in self._jobs:
            lines += [f"## {job.TITLE}", "", job.ABOUT, ""]
            if rows:
                columns = _columns(rows)
                lines += [table(tuple(columns), [tuple(_cell(row.get(c)) for c in columns) for row in rows]), ""]
            lines += [line for remark in remarks for line in (remark, "")]
        (self._out / "gpu.md").write_text("\n".join(lines).rstrip() + "\n")


def _columns(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
