"""`htf train-cnn`: train a convolutional network, with the regularizer that promotes non-local dependence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from htfcli.cli.options import ForceOption, FormatOption, QuietOption, ResumeOption, TrackOption, with_config
from htfcli.config.vision import TrainCnnConfig

if TYPE_CHECKING:
    from htfcli.commands.training import RunLog
    from htfcli.experiments.runs.train_cnn import CnnRun

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf train-cnn --task pathfinder --path-length 7 --reg non-local --reg-coeff 3 -o runs/pf
  htf generate is-same-class --distance 80 -o - | htf train-cnn - --reg non-local -o runs/pairs
  torchrun --nproc-per-node 4 -m htfcli train-cnn pairs.safetensors --reg non-local -o runs/pairs"""

_MOST_CLASSES = 12  # of a confusion table that is shown


@app.command("train-cnn", epilog=EXAMPLES)
@with_config(TrainCnnConfig)
def train_cnn(
    config: TrainCnnConfig,
    data: Annotated[
        Optional[str],
        typer.Argument(
            metavar="DATA",
            help="Image file of htf generate, - for stdin, or a folder with a sub-folder of images per class.",
        ),
    ] = None,
    output: Annotated[
        Optional[str],
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Run folder, or - to write the model to stdout. Default: runs/TASK.",
        ),
    ] = None,
    resume: ResumeOption = False,
    track: TrackOption = None,
    force: ForceOption = False,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train a convolutional network to classify images.

    With --reg non-local the loss promotes dependence between distant patches, as published. Losses and accuracies are
    recorded after every epoch. Under torchrun all processes share each batch, with the same result as one process.
    """
    from htfcli.cli.console import note, progress
    from htfcli.commands.training import run_log
    from htfcli.experiments.runs.train_cnn import CnnRun
    from htfcli.files.own.container import refuse_terminal

    output = output or f"runs/{config.task or ('cnn' if data in (None, '-') else Path(str(data)).name.split('.')[0])}"
    if output == "-":
        refuse_terminal()
    with run_log(track, output, "epoch", quiet) as log:
        with progress("generate", None, log.quiet) as show:
            run = CnnRun(
                config,
                data,
                output,
                resume=resume,
                force=force,
                workers=log.workers,
                on_progress=lambda count: show(count, "images"),
            )
        note(run.describe(), log.quiet)
        _run(run, format, log)
        if output == "-" and log.workers.first:
            run.save("-")


def _run(run: CnnRun, format: Any, log: RunLog) -> None:
    """Train with progress on stderr and records on stdout, and say how it ended."""
    from htfcli.cli.console import RecordWriter, note, progress
    from htfcli.cli.interrupts import StopSignals

    writer = RecordWriter(format, table_row)
    latest: dict[str, Any] = {}
    warned = 0

    def warn() -> None:
        nonlocal warned
        for text in run.warnings[warned:]:
            note(f"Warning: {text}.", log.quiet)
        warned = len(run.warnings)

    with StopSignals() as stop, progress("train", run.settings.epochs, log.quiet) as show:

        def should_stop(epoch: int, step: int) -> bool:
            accuracy = f", test accuracy {latest['test_accuracy']:.3f}" if latest else ""
            warn()
            show(epoch, f"step {step + 1}/{run.training.steps}{accuracy}")
            return stop.received

        try:
            run.run(log.recorder(writer, latest), should_stop)
        finally:
            writer.close()
            warn()
    note(run.ending() + log.saved, log.quiet)
    if len(run.summary["classes"]) <= _MOST_CLASSES:
        note(confusion_table(run.summary["classes"], run.summary["confusion"]), log.quiet)


def table_row(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a record that a person follows."""
    names = ("epoch", "task_loss", "regularizer", "train_accuracy", "test_accuracy", "images_per_second")
    return {name.replace("_per_", "/").replace("_", " "): record[name] for name in names}


def confusion_table(classes: list[str], counts: list[list[int]]) -> str:
    """Rows are true classes, columns predicted ones."""
    width = max(9, *map(len, classes), *(len(str(n)) for row in counts for n in row)) + 2
    lines = [
        ["true \\ predicted", *classes],
        *([name, *map(str, row)] for name, row in zip(classes, counts, strict=True)),
    ]
    return "\n".join(first.ljust(18) + "".join(cell.rjust(width) for cell in rest) for first, *rest in lines)
