"""`htf generate`: learning problems with a known answer."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from htfcli.cli.options import ForceOption, FormatOption, QuietOption, with_config
from htfcli.commands.generate_images import (
    IS_SAME_CLASS_EXAMPLES,
    PATHFINDER_EXAMPLES,
    is_same_class,
    pathfinder,
)
from htfcli.config.tensors import TargetConfig

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    help="Make learning problems with a known answer.",
)


@app.callback(invoke_without_command=True)
def _group(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        from htfcli.errors import ConfigError

        kinds = ", ".join(str(command.name) for command in app.registered_commands)
        advice = "Shortest useful call: htf generate tensor -o data.safetensors (see htf generate --help)."
        raise ConfigError("no kind of problem to generate", got="none", allowed=kinds, next_step=advice)


EXAMPLES = """\b
Examples:
  htf generate tensor --order 4 --dim 8 --rank 5 --observed 2048 -o data.safetensors
  htf generate tensor --target cp --dims 16,16,16 --observed 50% -o - | htf inspect -"""


@app.command("tensor", epilog=EXAMPLES)
@with_config(TargetConfig)
def tensor(
    config: TargetConfig,
    output: Annotated[
        Optional[str], typer.Option("--output", "-o", metavar="FILE", help="Observations file, or - for stdout.")
    ] = None,
    force: ForceOption = False,
    format: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Make a low-rank tensor and observe entries or random measurements of it."""
    from htfcli.cli.console import RecordWriter, note
    from htfcli.engine.observations.synthetic import make_observations
    from htfcli.errors import ConfigError
    from htfcli.files.foreign.readers import read_mask
    from htfcli.files.own.artefacts import save_observations, task_of
    from htfcli.files.own.container import refuse_existing

    if output is None:
        raise ConfigError("no output file", next_step="Name one with -o, or - for stdout.")
    refuse_existing(output, force)
    observations = make_observations(config, None if config.mask is None else read_mask(config.mask))
    save_observations(output, observations, config.model_dump(mode="json"))
    record = {
        "kind": "observations",
        "output": output,
        "target": config.target,
        "task": task_of(observations.train),
        "dims": list(observations.dims),
        "train": len(observations.train),
        "test": 0 if observations.test is None else len(observations.test),
    }
    if output == "-":
        size = " x ".join(map(str, observations.dims))
        note(f"{record['train']:,} train and {record['test']:,} test observations of a {size} tensor", quiet)
        return
    writer = RecordWriter(format, lambda r: {k: v for k, v in r.items() if k != "kind"})
    writer.write(record)
    writer.close()


app.command("is-same-class", epilog=IS_SAME_CLASS_EXAMPLES)(is_same_class)
app.command("pathfinder", epilog=PATHFINDER_EXAMPLES)(pathfinder)
