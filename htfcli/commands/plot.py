"""`htf plot`: figures from records."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from htfcli.options import ForceOption, QuietOption

app = typer.Typer(rich_markup_mode=None)

QUANTITY_NAMES = (
    "norms",
    "singular-values",
    "effective-rank",
    "loss",
    "error",
)  # of experiments.plots, not imported here

EXAMPLES = """\b
Examples:
  htf plot runs/dynamics -o dynamics.png
  htf fit data.safetensors -o runs/a | htf plot - --what norms --what loss --log-y -o a.pdf"""


@app.command(epilog=EXAMPLES)
def plot(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run folders or record files, drawn side by side; - for stdin."),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help=".png, .svg or .pdf; - for PNG on stdout.")
    ],
    what: Annotated[
        Optional[list[str]],
        typer.Option(
            "--what",
            metavar="QUANTITY",
            autocompletion=lambda: list(QUANTITY_NAMES),
            help=f"{', '.join(QUANTITY_NAMES)} (repeatable).  [default: all but error]",
        ),
    ] = None,
    node: Annotated[
        Optional[list[str]],
        typer.Option("--node", metavar="MODES", help="Show this node or matricization, e.g. 0,1 (repeatable)."),
    ] = None,
    top: Annotated[
        Optional[int], typer.Option("--top", metavar="N", min=1, help="Curves per panel.  [default: all]")
    ] = None,
    log_x: Annotated[bool, typer.Option("--log-x", help="Logarithmic iterations.")] = False,
    log_y: Annotated[bool, typer.Option("--log-y", help="Logarithmic values.")] = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw the records of fits, trainings or measurements of locality.

    Fits: local component norms, singular values, effective ranks, losses and errors against iterations; one run is a
    grid of panels, several are one column each; unless --node says otherwise the largest nodes are shown. Trainings:
    accuracies and losses against epochs. Locality: every measure against distance. In both, one colour a run.
    """
    from htfcli.config.base import parse_mode_sets
    from htfcli.console import note
    from htfcli.errors import ConfigError
    from htfcli.experiments.network_plots import plot_locality, plot_training
    from htfcli.experiments.plots import DEFAULT, kind_of, plot_runs, render
    from htfcli.files.container import refuse_existing, write_bytes
    from htfcli.files.records import load_records

    nodes = parse_mode_sets(node or [])
    if nodes is None:
        raise ConfigError("not sets of modes", got=" ".join(node or []), allowed="e.g. 0,2")
    kind = kind_of(output)
    refuse_existing(output, force)
    loaded = [load_records(argument) for argument in runs]
    kinds = {run.kind for run in loaded}
    if len(kinds) > 1:
        raise ConfigError("records of one kind make a picture", got=" and ".join(sorted(kinds)))
    if kinds == {"iteration"}:
        figure = plot_runs(loaded, what or DEFAULT, nodes, top=top, log_x=log_x, log_y=log_y)
    else:
        for option, value in (("what", what), ("node", node), ("top", top), ("log-x", log_x), ("log-y", log_y)):
            if value:
                raise ConfigError(f"--{option} is for records of fits", got=f"records of kind {loaded[0].kind}")
        figure = plot_training(loaded) if kinds == {"epoch"} else plot_locality(loaded)
    write_bytes(output, render(figure, kind))
    if output != "-":
        note(f"wrote {output}", quiet)
