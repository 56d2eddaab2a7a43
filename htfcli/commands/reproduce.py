"""`htf reproduce`: reproduce a published experiment."""

from __future__ import annotations

from typing import Annotated, Literal, Optional

import typer

from htfcli.cli.options import FormatOption, QuietOption, RerunOption, RetriesOption, ThreadsOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXPERIMENTS = (  # of experiments.paper
    "dynamics",
    "matricizations",
    "is-same-class",
    "pathfinder",
    "baselines",
    "phase-transition",
    "theorem",
    "initialization",
)

EXAMPLES = """\b
Examples:
  htf reproduce dynamics -o out/
  htf reproduce is-same-class --format jsonl | jq -c '{case, quantity, published, ours}'"""


@app.command(epilog=EXAMPLES)
def reproduce(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help=f"{', '.join(EXPERIMENTS)}.", autocompletion=lambda: list(EXPERIMENTS)),
    ],
    scale: Annotated[
        Literal["mini", "full"], typer.Option("--scale", help="mini takes minutes on a laptop, full is as published.")
    ] = "mini",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for figure, table, plan and runs.")
    ] = "out",
    workers: Annotated[
        Optional[int],
        typer.Option(
            "--workers", metavar="N", min=1, help="Runs at the same time.  [default: one per GPU, or one per core]"
        ),
    ] = None,
    threads: ThreadsOption = None,
    assignments: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of all runs (repeatable)."),
    ] = None,
    retries: RetriesOption = 1,
    force: RerunOption = False,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Reproduce a published experiment and compare the results.

    Executes its runs, draws the figure, and compares our numbers with the published ones. Writes NAME.pdf, NAME.png,
    NAME.md (the table), NAME.yaml (the plan, for htf sweep) and the folder NAME (the runs). If it is stopped, the same
    command continues.
    """
    from dataclasses import asdict

    from htfcli.cli.console import RecordWriter, note
    from htfcli.commands.sweep_progress import run_with_progress
    from htfcli.experiments.paper.reproduction import Reproduction
    from htfcli.experiments.sweeps.local_pool import LocalPool, default_workers

    job = Reproduction(name, scale, output, changes=assignments or (), force=force)
    workers = min(workers or default_workers(), len(job.sweep.jobs))
    with LocalPool(workers, threads) as pool:
        rows = run_with_progress(job.sweep, pool, retries, lambda row: None, quiet)
    writer = RecordWriter(format, lambda record: {k: v for k, v in record.items() if k != "kind"})
    for row in job.present(rows):
        writer.write({"kind": row.kind, **asdict(row)})
    writer.close()
    note(f"wrote {output.rstrip('/')}/{name}.pdf, .png, .md and .yaml", quiet)
