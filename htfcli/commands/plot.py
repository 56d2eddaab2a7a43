"""`htf plot`: draw figures from records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from htfcli.cli.options import ForceOption, QuietOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)

QUANTITY_NAMES = (
    "norms",
    "singular-values",
    "effective-rank",
    "loss",
    "error",
)  # keys of experiments.figures.fits.QUANTITIES, whose import would slow down every start
COMPLETION_NAMES = ("members", "errors", "calibration", "held-out", "tree", "ridge", "slices")  # of figures.completions

EXAMPLES = """\b
Examples:
  htf plot runs/dynamics -o dynamics.png
  htf plot completed.csv.run -o why.png
  htf plot runs/init_scale --x init_std --y effective_rank --log-x -o ranks.pdf
  htf fit data.safetensors -o runs/a | htf plot - --what norms --what loss --log-y -o a.pdf"""


@app.command(epilog=EXAMPLES)
def plot(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Run folders, record files or - for stdin, drawn side by side; or a sweep."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help=".png, .svg or .pdf; - for PNG on stdout.")
    ],
    what: Annotated[
        Optional[list[str]],
        typer.Option(
            "--what",
            metavar="QUANTITY",
            autocompletion=lambda: [*QUANTITY_NAMES, *COMPLETION_NAMES],
            help=f"Draw this quantity: of fits {', '.join(QUANTITY_NAMES)}; of completions "
            f"{', '.join(COMPLETION_NAMES)} (repeatable).  [default: all but error]",
        ),
    ] = None,
    node: Annotated[
        Optional[list[str]],
        typer.Option("--node", metavar="MODES", help="Draw this node or matricization, e.g. 0,1 (repeatable)."),
    ] = None,
    top: Annotated[
        Optional[int],
        typer.Option("--top", metavar="N", min=1, help="Draw at most N curves per panel.  [default: all]"),
    ] = None,
    log_x: Annotated[bool, typer.Option("--log-x", help="Use a logarithmic horizontal axis.")] = False,
    log_y: Annotated[bool, typer.Option("--log-y", help="Use a logarithmic vertical axis.")] = False,
    x: Annotated[
        Optional[str], typer.Option("--x", metavar="SETTING", help="Horizontal axis of a sweep: a setting.")
    ] = None,
    y: Annotated[
        Optional[str], typer.Option("--y", metavar="NUMBER", help="Vertical axis of a sweep: a final number.")
    ] = None,
    group: Annotated[
        Optional[list[str]],
        typer.Option(
            "--group", metavar="SETTING", help="Draw one curve of a sweep for each value of this setting (repeatable)."
        ),
    ] = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Plot the records of fits, completions, training runs and locality.

    Fits: local component norms, singular values, effective ranks, losses and errors against iterations; one run as a
    grid of panels, several runs as one column each. Without --node the largest nodes are drawn.
    Completions: members and their weights, held-out errors by kind of holes, calibration of intervals, held-out entries
    predicted against observed, ranks of the strongest factorization, errors along the ridge, slices.
    Network trainings: accuracies and losses by epoch. Locality: every measure by distance. One colour per network.
    Sweeps: --y against --x, columns of summary.csv, with mean and standard error over seeds.
    """
    from htfcli.cli.console import note
    from htfcli.config.base import parse_mode_sets
    from htfcli.errors import ConfigError
    from htfcli.experiments.figures.registry import PlotOptions, draw
    from htfcli.experiments.figures.style import kind_of, render
    from htfcli.experiments.figures.sweeps import default_axes, plot_sweep
    from htfcli.experiments.sweeps.summary import SUMMARY_JSONL, load_summary
    from htfcli.files.own.container import refuse_existing, write_bytes
    from htfcli.files.own.records import load_records

    nodes = parse_mode_sets(node or [])
    if nodes is None:
        raise ConfigError("not sets of modes", got=" ".join(node or []), allowed="e.g. 0,2")
    kind = kind_of(output)
    refuse_existing(output, force)
    swept = all((Path(argument) / SUMMARY_JSONL).exists() for argument in runs) or Path(runs[0]).name == SUMMARY_JSONL
    if swept and x is None and y is None and not (group or what or nodes or top):
        rows = [row for argument in runs for row in load_summary(argument)]
        figure = plot_sweep(rows, *default_axes(rows), log_x=log_x, log_y=log_y)
    elif x is None and y is None and not group and not swept:
        figure = draw([load_records(argument) for argument in runs], PlotOptions(what, tuple(nodes), top, log_x, log_y))
    elif x is None or y is None or what or nodes or top is not None:
        raise ConfigError("a sweep needs --x and --y", allowed="with them --group, --log-x, --log-y")
    else:
        rows = [row for argument in runs for row in load_summary(argument)]
        figure = plot_sweep(rows, x, y, group or (), log_x=log_x, log_y=log_y)
    write_bytes(output, render(figure, kind))
    if output != "-":
        note(f"wrote {output}", quiet)
