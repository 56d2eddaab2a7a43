"""`htf export`: image data sets for other programs."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from htfcli.cli.options import ForceOption, FormatOption, QuietOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf export pathfinder.safetensors -o images
  htf generate is-same-class --source digits --distance 24 -o - | htf export - -o pairs.npz"""


@app.command(epilog=EXAMPLES)
def export(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Image file of htf generate, - for stdin, or a folder of images.")
    ],
    output: Annotated[
        Optional[str],
        typer.Option("--output", "-o", metavar="FOLDER|FILE.npz", help="New folder of PNG files, or file of arrays."),
    ] = None,
    force: ForceOption = False,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write an image data set as PNG files or arrays.

    A folder has train and test, with a sub-folder for each class, as htf train-cnn reads it. A .npz has train_images
    (n, channels, height, width), train_labels and the same for test. Both have the masks of the data set, if any.
    """
    from htfcli.cli.console import RecordWriter, progress
    from htfcli.errors import ConfigError
    from htfcli.experiments.runs.image_input import load_images
    from htfcli.files.image_export import export_arrays, export_folder
    from htfcli.files.image_files import image_facts
    from htfcli.files.own.container import refuse_existing
    from htfcli.files.own.folders import refuse_existing_folder

    if output is None or output == "-":
        raise ConfigError("no output folder or file", got=output, next_step="Name a folder or a .npz file with -o.")
    arrays = output.endswith(".npz")
    if arrays:
        refuse_existing(output, force)
    else:
        refuse_existing_folder(output)
    images = load_images(data)
    with progress("export", len(images.train) + len(images.test), quiet) as show:
        (export_arrays if arrays else export_folder)(output, images, lambda done: show(done, ""))
    facts = image_facts(images)
    writer = RecordWriter(format, lambda r: {k: v for k, v in r.items() if k not in ("kind", "classes")})
    writer.write({"kind": facts.pop("kind"), "output": output, **facts})
    writer.close()
