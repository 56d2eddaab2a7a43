"""`htf generate is-same-class` and `htf generate pathfinder`: image data sets that need long-range dependence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from htfcli.cli.options import ForceOption, FormatOption, QuietOption, with_config
from htfcli.config.images import IsSameClassConfig, PathfinderConfig

if TYPE_CHECKING:
    from htfcli.engine.vision.datasets.image_set import ImageData

IS_SAME_CLASS_EXAMPLES = """\b
Examples:
  htf generate is-same-class --distance 80 --preview pairs.png -o pairs.safetensors
  htf generate is-same-class --source digits --height 8 --width 48 --distance 24 -o - | htf inspect -"""

PATHFINDER_EXAMPLES = """\b
Examples:
  htf generate pathfinder --path-length 7 --preview paths.png -o pathfinder.safetensors
  htf generate pathfinder --profile lra-32 --layout lra --train 160000 --test 40000 -o pathfinder32
  htf generate pathfinder --path-length 5 --size 64 --train 2000 --test 1000 -o - | htf inspect -"""

OutputOption = Annotated[
    Optional[str], typer.Option("--output", "-o", metavar="FILE", help="Image data set file, or - for stdout.")
]
PreviewOption = Annotated[
    Optional[str],
    typer.Option("--preview", metavar="FILE", help="Also draw the first images on one sheet, a .png, .svg or .pdf."),
]


@with_config(IsSameClassConfig)
def is_same_class(
    config: IsSameClassConfig,
    output: OutputOption = None,
    preview: PreviewOption = None,
    force: ForceOption = False,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Place pairs of images on a canvas, labelled by whether both are of the same class.

    Half of the pairs are. Train and test pairs share no images. The same seed gives the same pairs at every distance.
    The file holds each image once, and the pairs as indices.
    """
    from htfcli.engine.vision.datasets.is_same_class import make_is_same_class

    output = _refuse(output, preview, force)
    _finish(make_is_same_class(config), output, preview, format, quiet)


@with_config(PathfinderConfig)
def pathfinder(
    config: PathfinderConfig,
    output: OutputOption = None,
    preview: PreviewOption = None,
    metadata: Annotated[
        Optional[str],
        typer.Option(
            "--metadata",
            metavar="FILE",
            help="Also write the layout, one JSON line per image: label, ends of the long paths, discs, all dashes.",
        ),
    ] = None,
    layout: Annotated[
        Literal["file", "lra"],
        typer.Option(
            "--layout",
            help="file: one data set file. lra: a folder of PNG files, as in Long Range Arena; its readers, including "
            "htf, split it into train and test images themselves.",
        ),
    ] = "file",
    workers: Annotated[
        Optional[int],
        typer.Option(
            "--workers", metavar="N", min=1, help="Number of processes.  [default: one per core, if that is faster]"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run with the same settings.")
    ] = False,
    force: ForceOption = False,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Draw dashed paths with two marked ends, labelled by whether both are of the same path.

    There are two long paths and short distractors, laid out by the published distribution; half of the labels are 1.
    Lengths are in pixels of the canvas, which is twice as wide as the stored image: 300 and 150, as published. The
    images do not depend on the number of workers. An interrupted run keeps what it has drawn in FILE.part.
    """
    from htfcli.cli.console import note, progress
    from htfcli.cli.interrupts import StopSignals
    from htfcli.errors import ConfigError
    from htfcli.experiments.runs.generate_pathfinder import PathfinderRun, write_metadata

    if layout == "lra" and config.masks:
        raise ConfigError("--masks are not a part of --layout lra", next_step="Leave one out.")
    output = _refuse(output, preview, force, metadata, folder=layout == "lra")
    run = PathfinderRun(config, output, resume=resume, force=force)
    with StopSignals() as stop, progress("pathfinder", run.drawing.total, quiet) as show:
        data = run.run(workers, lambda done: show(done, ""), lambda: stop.received)
    if metadata is not None:
        write_metadata(metadata, run.drawing)
        note(f"wrote {metadata}", quiet)
    _finish(data, output, preview, format, quiet, layout)
    run.clean()


def _refuse(
    output: str | None, preview: str | None, force: bool, metadata: str | None = None, folder: bool = False
) -> str:
    """The output, a file or a folder; ConfigError unless all can be written."""
    from htfcli.errors import ConfigError
    from htfcli.files.own.container import refuse_existing
    from htfcli.files.own.folders import refuse_existing_folder

    if output is None:
        raise ConfigError("no output file", next_step="Name one with -o, or - for stdout.")
    if preview == "-":
        raise ConfigError("--preview writes a file; stdout is for the data set")
    if preview is not None:
        from htfcli.experiments.figures.style import kind_of

        kind_of(preview)
    if metadata == "-":
        raise ConfigError("--metadata writes a file; stdout is for the data set")
    if folder and output == "-":
        raise ConfigError("--layout lra writes a folder, not stdout", next_step="Name one with -o.")
    if folder:
        refuse_existing_folder(output)
    for path in filter(None, (preview, metadata, None if folder else output)):
        refuse_existing(path, force)
    return output


def _finish(data: ImageData, output: str, preview: str | None, format: Any, quiet: bool, layout: str = "file") -> None:
    """Save the data set and its preview, and say so."""
    from htfcli.cli.console import RecordWriter, note, progress
    from htfcli.files.image_export import export_long_range_arena
    from htfcli.files.image_files import image_facts, save_image_data
    from htfcli.files.own.container import write_bytes

    if preview is not None:
        from htfcli.experiments.figures.contact_sheet import contact_sheet
        from htfcli.experiments.figures.style import kind_of, render

        write_bytes(preview, render(contact_sheet(data), kind_of(preview)))
        note(f"wrote {preview}", quiet)
    if layout == "lra":
        with progress("write", len(data.train) + len(data.test), quiet) as show:
            export_long_range_arena(output, data, lambda done: show(done, ""))
    else:
        save_image_data(output, data)
    record = image_facts(data)
    if output == "-":
        size = " x ".join(map(str, record["image"]))
        note(f"{record['train']:,} train and {record['test']:,} test images of {size} for {record['task']}", quiet)
        return
    writer = RecordWriter(format, lambda r: {k: v for k, v in r.items() if k not in ("kind", "classes")})
    writer.write({"kind": record.pop("kind"), "output": output, **record})
    writer.close()
