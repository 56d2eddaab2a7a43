"""`htf sweep`: run a grid of experiments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from htfcli.cli.options import FormatOption, QuietOption, RerunOption, RetriesOption, ThreadsOption

if TYPE_CHECKING:
    from htfcli.experiments.sweeps.plan import PlannedRun

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf sweep sample_configs/init_scale.yaml --workers 2 -o runs/init_scale
  htf sweep plan.yaml --dry-run --format jsonl | jq -r .run"""


@app.command(epilog=EXAMPLES)
def sweep(
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="YAML file of a plan, or the folder of a sweep to continue.")
    ],
    output: Annotated[
        Optional[str],
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Folder of the sweep.  [default: runs/NAME for NAME.yaml]"
        ),
    ] = None,
    workers: Annotated[
        Optional[int], typer.Option("--workers", metavar="N", min=1, help="Runs at the same time.  [default: 1]")
    ] = None,
    threads: ThreadsOption = None,
    retries: RetriesOption = 1,
    dask: Annotated[
        Optional[str],
        typer.Option(
            "--dask", metavar="ADDRESS", help="Run on the cluster of this Dask scheduler, e.g. tcp://host:8786."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs of the plan and stop.")] = False,
    force: RerunOption = False,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run a grid of experiments and summarise the results.

    Writes one run folder per experiment and a summary as CSV and JSON Lines. A sweep that was stopped or killed
    continues when it is started again: finished runs are kept, others resume from their checkpoints. Failed runs are
    retried and reported; the exit code is 1 if any run failed.
    """
    from htfcli.errors import ConfigError
    from htfcli.experiments.sweeps.plan import planned_runs, read_plan

    if dask is not None and workers is not None:
        raise ConfigError("--workers is for local runs; a Dask cluster has its own workers", got=f"--dask {dask}")
    loaded = read_plan(plan)
    if dry_run:
        _list(planned_runs(loaded), format)
        return
    from htfcli.cli.console import RecordWriter
    from htfcli.commands.sweep_progress import run_with_progress, table_row
    from htfcli.experiments.sweeps.dask_pool import DaskPool
    from htfcli.experiments.sweeps.local_pool import LocalPool
    from htfcli.experiments.sweeps.sweep import Sweep

    output = output or (plan if Path(plan).is_dir() else f"runs/{Path(plan).stem}")
    job = Sweep(loaded, output, force=force)
    writer = RecordWriter(format, table_row)
    try:
        with LocalPool(workers or 1, threads) if dask is None else DaskPool(dask, threads) as pool:
            run_with_progress(job, pool, retries, writer.write, quiet)
    finally:
        writer.close()


def _list(runs: Sequence[PlannedRun], format: Any) -> None:
    """Write the runs of a plan to stdout."""
    from htfcli.cli.console import RecordWriter

    writer = RecordWriter(format, lambda record: {"run": record["run"], **record["varied"]})
    for run in runs:
        data = None if run.target is None else run.target.model_dump(mode="json", exclude_unset=True)
        settings = run.settings.model_dump(mode="json", exclude_unset=True)
        record = {"kind": "planned run", "run": run.name, "varied": run.varied, "settings": settings, "generate": data}
        writer.write(record)
    writer.close()
