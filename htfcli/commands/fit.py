"""`htf fit`: train a factorization on observations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from htfcli.cli.options import ForceOption, FormatOption, QuietOption, ResumeOption, TrackOption, with_config
from htfcli.config.tensors import FitConfig

if TYPE_CHECKING:
    from htfcli.commands.training import Talk
    from htfcli.engine.factorizations.factorization import Factorization
    from htfcli.experiments.runs.fit import FitRun

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf fit data.safetensors --width 512 --init-std 0.01 -o runs/dynamics
  htf fit il2.npy --test-fraction 0.1 -o - | htf measure-rank -
  torchrun --nproc-per-node 4 -m htfcli fit large.tns.gz --width 16 -o runs/large"""

_TABLE_ROWS = 12


@app.command(epilog=EXAMPLES)
@with_config(FitConfig)
def fit(
    config: FitConfig,
    data: Annotated[
        Optional[str], typer.Argument(metavar="DATA", help="Observations, or data with holes; any format, - for stdin.")
    ] = None,
    output: Annotated[
        Optional[str],
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Run folder (runs/NAME of DATA), or - for the model on stdout."
        ),
    ] = None,
    resume: ResumeOption = False,
    track: TrackOption = None,
    force: ForceOption = False,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fit a factorization by gradient descent from a small start.

    Records how its local components, singular values and losses go. Values of data files are divided by their rms for
    the fit, and the result is scaled back (--scale). Under torchrun all processes share each iteration, with the
    result of one.
    """
    from htfcli.cli.console import note
    from htfcli.commands.training import talking
    from htfcli.experiments.runs.fit import FitRun
    from htfcli.files.own.artefacts import save_factorization
    from htfcli.files.own.container import refuse_terminal

    output = output or f"runs/{'fit' if data in (None, '-') else Path(str(data)).name.split('.')[0]}"
    if output == "-":
        refuse_terminal()
    with talking(track, output, "iteration", quiet) as talk:
        run = FitRun(config, data, output, resume=resume, force=force, workers=talk.team)
        note(run.describe(), talk.quiet)
        model = _run(run, format, talk)
        if output == "-" and talk.team.first:
            save_factorization("-", model, run.settings.model_dump(mode="json"))
        note(run.ending() + talk.saved, talk.quiet)


def _run(run: FitRun, format: Any, talk: Talk) -> Factorization:
    """Train with progress on stderr and records on stdout."""
    from htfcli.cli.console import RecordWriter, progress
    from htfcli.cli.interrupts import StopSignals

    writer = RecordWriter(
        format, table_row, lambda number, count: number % -(-count // _TABLE_ROWS) == 0 or number == count - 1
    )
    latest: dict[str, Any] = {}
    with StopSignals() as stop, progress("fit", run.settings.iterations, talk.quiet) as show:

        def should_stop(iteration: int) -> bool:
            if latest:
                show(iteration, f"train loss {latest['train_loss']:.3g}")
            return stop.received

        try:
            return run.run(talk.to(writer, latest), should_stop)
        finally:
            writer.close()


def table_row(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a record that a person follows."""
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
