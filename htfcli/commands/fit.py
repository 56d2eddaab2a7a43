"""`htf fit`: fit a factorization to observations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from htfcli.cli.options import ForceOption, FormatOption, QuietOption, ResumeOption, TrackOption, with_config
from htfcli.config.tensors import FitRunConfig

if TYPE_CHECKING:
    from htfcli.commands.training import RunLog
    from htfcli.experiments.runs.fit import FitRun

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf fit data.safetensors --width 512 --init-std 0.01 -o runs/dynamics
  htf fit il2.npy --test-fraction 0.1 -o - | htf measure-rank -
  torchrun --nproc-per-node 4 -m htfcli fit large.tns.gz --width 16 -o runs/large"""

_TABLE_ROWS = 12


@app.command(epilog=EXAMPLES)
@with_config(FitRunConfig)
def fit(
    config: FitRunConfig,
    data: Annotated[
        Optional[str],
        typer.Argument(metavar="DATA", help="Observations, or data with missing entries; - for stdin."),
    ] = None,
    output: Annotated[
        Optional[str],
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Run folder (runs/ and the name of DATA), or - for stdout.",
        ),
    ] = None,
    resume: ResumeOption = False,
    track: TrackOption = None,
    force: ForceOption = False,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fit a factorization to a tensor, recording how its ranks emerge.

    Records losses, local components and singular values. Values of data files are divided by their rms for the fit,
    and the result is scaled back (--scale). Under torchrun all processes share each iteration, with the result of one.
    """
    from htfcli.cli.console import note
    from htfcli.commands.training import run_log
    from htfcli.experiments.runs.fit import FitRun
    from htfcli.files.own.container import refuse_terminal

    output = output or f"runs/{'fit' if data in (None, '-') else Path(str(data)).name.split('.')[0]}"
    if output == "-":
        refuse_terminal()
    with run_log(track, output, "iteration", quiet) as log:
        run = FitRun(config, data, output, resume=resume, force=force, workers=log.workers)
        for remark in run.remarks:
            note(remark, log.quiet)
        note(run.describe(), log.quiet)
        _run(run, format, log)
        if output == "-" and log.workers.first:
            run.save("-")
        note(run.ending() + log.saved, log.quiet)


def _run(run: FitRun, format: Any, log: RunLog) -> None:
    """Train with progress on stderr and records on stdout."""
    from htfcli.cli.console import RecordWriter, progress
    from htfcli.cli.interrupts import StopSignals

    writer = RecordWriter(
        format, table_row, lambda number, count: number % -(-count // _TABLE_ROWS) == 0 or number == count - 1
    )
    latest: dict[str, Any] = {}
    with StopSignals() as stop, progress("fit", run.settings.iterations, log.quiet) as show:

        def should_stop(iteration: int) -> bool:
            if latest:
                show(iteration, f"train loss {latest['train_loss']:.3g}")
            return stop.received

        try:
            run.run(log.recorder(writer, latest), should_stop)
        finally:
            writer.close()


def table_row(record: dict[str, Any]) -> dict[str, Any]:
    """The columns of a record that the table shows."""
    columns = {
        "iteration": "iteration",
        "train_loss": "train loss",
        "test_loss": "test loss",
        "test_error": "test error",
        "reconstruction_error": "tensor error",
    }
    row = {title: record[name] for name, title in columns.items() if name in record}
    largest = max((n for n in record["nodes"] if "effective_rank" in n), key=lambda n: len(n["modes"]))
    return row | {f"eff. rank {largest['node']}": largest["effective_rank"]}
