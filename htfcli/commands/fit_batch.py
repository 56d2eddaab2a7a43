"""`htf fit-batch`: do small runs of a sweep in one process; started by `htf sweep`, hidden from users."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command("fit-batch", hidden=True)
def fit_batch(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="Folder of a sweep.")],
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names of its runs.")],
) -> None:
    """Do small runs of a sweep in one process."""
    from htfcli.cli.interrupts import StopSignals
    from htfcli.experiments.sweeps.batched_fits import run_batch
    from htfcli.experiments.sweeps.job import Job
    from htfcli.experiments.sweeps.plan import planned_runs, read_plan

    runs = {run.name: run for run in planned_runs(read_plan(sweep))}
    with StopSignals() as stop:
        run_batch([Job(runs[name], Path(sweep)) for name in names], lambda iteration: stop.received)
