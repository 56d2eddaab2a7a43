"""`htf report`: make an HTML report of runs and sweeps."""

from __future__ import annotations

from typing import Annotated

import typer

from htfcli.cli.options import ForceOption, QuietOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf report runs/dynamics -o report.html
  htf fit data.safetensors -o runs/a | htf report - -o - > a.html"""


@app.command(epilog=EXAMPLES)
def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run folders, sweep folders or record files; - for stdin."),
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="HTML file, or - for stdout.")],
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write an HTML report of runs and sweeps.

    A single page that needs no network: interactive curves, the mode tree coloured by effective rank with a slider over
    iterations, configuration and tables. Of a sweep, up to eight runs of the first seed are shown one by one.
    """
    from htfcli.cli.console import note
    from htfcli.experiments.report.html import build_report
    from htfcli.files.own.container import refuse_existing, write_bytes

    refuse_existing(output, force)
    write_bytes(output, build_report(runs).encode())
    if output != "-":
        note(f"wrote {output}", quiet)
