"""`htf complete`: fill a tensor with holes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from htfcli.cli.options import ForceOption, FormatOption, QuietOption, with_config
from htfcli.config.completion_run import CompletionRunConfig

if TYPE_CHECKING:
    from htfcli.experiments.runs.completion_request import Request

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf complete panel.csv
  htf complete experiments.csv --value response -o completed.csv
  htf complete panel.csv --std error --interval 0.9 --imputations 20 -o completed.csv
  htf complete large.tns --predict queries.tns -o predicted.tns
  htf complete cube.npy --uncertainty std.npy -o - | htf measure-rank -"""


@app.command(epilog=EXAMPLES)
@with_config(CompletionRunConfig)
def complete(
    config: CompletionRunConfig,
    data: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="DATA",
            help="Table or tensor with holes, or a fitted run; any format, - for stdin. Several files of one table are "
            "read as one.",
        ),
    ] = None,
    output: Annotated[
        Optional[str],
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Completed data in the format of DATA, or - for stdout (data.completed.csv beside data.csv).",
        ),
    ] = None,
    predict: Annotated[
        Optional[str],
        typer.Option("--predict", metavar="FILE", help="Table of the entries to predict (those missing in DATA)."),
    ] = None,
    uncertainty: Annotated[
        Optional[str],
        typer.Option(
            "--uncertainty",
            metavar="FILE",
            help="Predictive standard deviation of every entry, laid out as FILE.",
        ),
    ] = None,
    run: Annotated[
        Optional[str], typer.Option("--run", metavar="FOLDER", help="Run folder (FILE.run; none for -o -).")
    ] = None,
    force: ForceOption = False,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fill in missing entries of a table or tensor, with their uncertainty.

    Predictions are the average of several members: the mean, effects of the modes, wide factorizations on several mode
    trees, each with what it leaves interpolated along ordered modes. Observations that are held out, at random and in
    the shape of the holes, decide the weights and calibrate the uncertainty. The fit is kept in a run folder; htf
    complete FOLDER --predict uses it again.
    """
    from htfcli.cli.console import RecordWriter, note, progress
    from htfcli.cli.interrupts import StopSignals
    from htfcli.experiments.runs.completion_request import make_request

    def requested(several: bool = False, first: bool = True) -> Request:
        options: dict[str, Any] = {"predict": predict, "uncertainty": uncertainty, "folder": run, "force": force}
        return make_request(config, data or [], output, **options, several=several, first=first)

    # torch, whose import takes seconds, is not needed to refuse an input; several processes must be connected for that
    alone = "WORLD_SIZE" not in os.environ
    request = requested() if alone else None
    from htfcli.commands.training import connected
    from htfcli.experiments.runs.complete import CompleteRun
    from htfcli.experiments.runs.completion_summary import headline, rows

    with connected() as team:
        silent = quiet or not team.first
        job = CompleteRun(request or requested(team.count > 1, team.first), workers=team)
        for remark in job.notes:
            note(remark, silent)
        note(job.describe(), silent)
        with StopSignals(patience=0.5) as stop, progress("complete", None, silent) as show:
            tried: list[dict[str, Any]] = []

            def on_step(step: dict[str, Any]) -> None:
                tried.append(step)
                show(len(tried), progress_line(tried))

            summary = job.run(on_step, lambda: stop.received)
    if not team.first:
        return
    for warning in summary["warnings"]:
        note(f"Warning: {warning}", quiet)
    if job.output == "-":
        note(headline(summary), quiet)
        return
    writer = RecordWriter(format, lambda row: {k: v for k, v in row.items() if k != "kind"})
    for record in rows(summary) if writer.format == "table" and summary["kind"] == "completion" else [summary]:
        writer.write(record)
    writer.close()


def progress_line(tried: list[dict[str, Any]]) -> str:
    """The stage of a completion, the width of the model that it fitted last, the best held-out error so far."""
    last = tried[-1]
    errors = [error for step in tried if isinstance(error := step.get("held_out_error"), float) and error == error]
    best = f", best held-out error {min(errors):.3g}" if errors else ""
    return f"{last.get('stage', '')}, width {last.get('width', '?')}{best}"
