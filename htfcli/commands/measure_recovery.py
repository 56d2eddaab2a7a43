"""`htf measure-recovery`: how often random tensors are recovered; started by `htf sweep`, hidden from users."""

from __future__ import annotations

from typing import Annotated

import typer

from htfcli.cli.options import ForceOption, FormatOption, with_config
from htfcli.config.recovery import RecoveryConfig

app = typer.Typer(rich_markup_mode=None)


@app.command("measure-recovery", hidden=True)
@with_config(RecoveryConfig)
def measure_recovery(
    config: RecoveryConfig,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FOLDER", help="Run folder.")],
    force: ForceOption = False,
    format: FormatOption = None,
) -> None:
    """Measure how often random low-rank tensors are recovered exactly from some of their entries."""
    from htfcli.cli.console import RecordWriter
    from htfcli.cli.interrupts import StopSignals
    from htfcli.experiments.runs.recovery import run_recovery

    with StopSignals() as stop:
        summary = run_recovery(config, output, lambda solved: stop.received, force=force)
    writer = RecordWriter(format, lambda record: {k: v for k, v in record.items() if k != "kind"})
    writer.write(summary)
    writer.close()
