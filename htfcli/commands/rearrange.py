"""`htf rearrange`: features in an order in which neighbours are correlated."""

from __future__ import annotations

from typing import Annotated

import typer

from htfcli.cli.options import ForceOption, FormatOption, QuietOption, with_config
from htfcli.config.vision import RearrangeConfig

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf rearrange train.csv --label diagnosis -o rearranged.csv
  htf rearrange test.csv --apply rearranged.csv.order.json -o rearranged_test.csv
  htf rearrange images -o images.safetensors
  htf rearrange table.csv --label diagnosis -o - | htf measure-locality - --label diagnosis"""


@app.command(epilog=EXAMPLES)
@with_config(RearrangeConfig)
def rearrange(
    config: RearrangeConfig,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Table of features, array with samples first, image data set or folder of images; - for stdin.",
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The data rearranged, in their own format.")
    ],
    force: ForceOption = False,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Rearrange features so that locally connected networks can fit the data.

    Recursive minimum balanced cuts of the graph of correlations put correlated features into the same blocks, and so
    lower the surrogate of entanglement, the mean absolute correlation across canonical partitions; print its mean per
    level before and after. Features move among the columns of a table or the pixels of images; everything else stays.
    Labels are not looked at. The order goes into FILE.order.json, which --apply applies to other data of the same kind.
    """
    from htfcli.cli.console import RecordWriter, note
    from htfcli.experiments.runs.rearrange import rearrange as run

    records = run(data, output, config, force, lambda text: note(f"Warning: {text}", quiet))
    if output == "-":
        return
    writer = RecordWriter(format, lambda record: {k: v for k, v in record.items() if k not in ("kind", "order")})
    for record in records:
        writer.write(record)
    writer.close()
