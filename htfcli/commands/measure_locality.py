"""`htf measure-locality`: how much networks model dependence between regions, by distance."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from htfcli.cli.options import FormatOption, QuietOption, with_config
from htfcli.config.vision import MeasureLocalityConfig

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf measure-locality runs/reg runs/plain | htf plot - -o locality.png
  htf measure-locality mine:network --weights mine.pt --data pairs.safetensors --patch-size 8"""


@app.command("measure-locality", epilog=EXAMPLES)
@with_config(MeasureLocalityConfig)
def measure_locality(
    config: MeasureLocalityConfig,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Run folders, files of networks or factorizations, or module:function; - for stdin.",
        ),
    ],
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure how the dependence a network models falls with distance.

    For random patches I and J at each distance, print their dependence (1 - mean |cosine| of the gradients with respect
    to x_I before and after x_J is swapped), and of the table f(x_I of sample a, x_J of sample b) the effective rank and
    the shares that are neither a sum nor a product of functions of x_I and x_J. Then print the profile of the gradient
    around the centre of the last feature map, or of the output where there is no such map, as in vision
    transformers. For factorizations, print hierarchical ranks by the distance between the modes of a node.
    """
    from htfcli.cli.console import RecordWriter, progress
    from htfcli.experiments.runs.measure_locality import measure

    writer = RecordWriter(format, table_row)
    with progress("measure", None, quiet) as show:
        for number, record in enumerate(measure(models, config)):
            show(number + 1, f"{record['model']}, distance {record['distance']}")
            writer.write(record)
    writer.close()


def table_row(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a record that a person compares."""
    names = ("dependence", "additive_residual", "rank_one_residual", "effective_rank")
    return {
        "model": record["model"],
        "measure": record["measure"],
        "distance": record["distance"],
        **{name.replace("_", " "): record.get(name) for name in names},
    }
