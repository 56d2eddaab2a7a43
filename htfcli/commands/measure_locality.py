"""`htf measure-locality`: how local networks are, and how local data are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from htfcli.cli.options import FormatOption, QuietOption, with_config
from htfcli.config.vision import MeasureLocalityConfig

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf measure-locality runs/reg runs/plain | htf plot - -o locality.png
  htf measure-locality mine:network --weights mine.pt --data pairs.safetensors --patch-size 8
  htf measure-locality table.csv --label diagnosis --levels 1,2,3
  htf measure-locality 'digits.npz#images' --label labels | htf plot - -o entanglement.png"""


@app.command("measure-locality", epilog=EXAMPLES)
@with_config(MeasureLocalityConfig)
def measure_locality(
    config: MeasureLocalityConfig,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Networks: run folders, files of networks or factorizations, or module:function. Or data: tables of "
            "features, arrays with samples first, image data sets. - for stdin.",
        ),
    ],
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure the locality of networks, or of data.

    Networks: for random patches I and J at each distance, print their dependence (1 - mean |cosine| of the gradients
    with respect to x_I before and after x_J is swapped), and of the table f(x_I of sample a, x_J of sample b) the
    effective rank and the shares that are neither a sum nor a product of functions of x_I and x_J. Then print the
    profile of the gradient around the centre of the last feature map, or of the output where there is no such map, as
    in vision transformers. For factorizations, print hierarchical ranks by the distance between the modes of a node.

    Data: for each canonical partition of the features (2^l blocks of a line, 4^l squares of an image, each against the
    rest), print the entanglement of the data tensor, which must be low for locally connected networks to fit the data;
    the geometric entanglement; and the surrogate, the mean absolute correlation across. Then the means of each level.
    """
    from htfcli.cli.console import RecordWriter, note, progress
    from htfcli.experiments.runs.measure_locality import measure

    writer = RecordWriter(format, table_row)
    with progress("measure", None, quiet) as show:
        for number, record in enumerate(measure(inputs, config, lambda text: note(f"Warning: {text}", quiet))):
            show(number + 1, _doing(record))
            writer.write(record)
    writer.close()


def _doing(record: dict[str, Any]) -> str:
    if record["kind"] == "locality":
        return f"{record['model']}, distance {record['distance']}"
    return f"{record['data']}, level {record['level']}"


def table_row(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a record that a person compares."""
    if record["kind"] != "locality":
        mean = record["kind"] == "entanglement-mean"
        return {
            "data": record["data"],
            "level": record["level"],
            "block": "mean" if mean else ",".join(map(str, record["position"])),
            "features": "" if mean else len(record["features"]),
            "entanglement": record["entanglement"],
            "error": record.get("error") or "",
            "geometric": record["geometric"],
            "surrogate": record["surrogate"],
        }
    names = ("dependence", "additive_residual", "rank_one_residual", "effective_rank")
    return {
        "model": record["model"],
        "measure": record["measure"],
        "distance": record["distance"],
        **{name.replace("_", " "): record.get(name) for name in names},
    }
