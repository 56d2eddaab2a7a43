"""The command line `htf`: its commands in the order of a pipeline, each imported only when it is run."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from htfcli._version import __version__
from htfcli.cli.interrupts import INTERRUPTED, listen, terminated
from htfcli.cli.usage import usage_message
from htfcli.engine.runtime.processes import end_with_parent
from htfcli.errors import ConfigError, HtfError, did_you_mean, printable

COMMANDS = {
    "generate": ("htfcli.commands.generate", "Generate learning problems with a known answer."),
    "fit": ("htfcli.commands.fit", "Fit a factorization to a tensor, recording how its ranks emerge."),
    "complete": ("htfcli.commands.complete", "Fill in missing entries of a table or tensor, with their uncertainty."),
    "train-cnn": ("htfcli.commands.train_cnn", "Train a convolutional network to classify images."),
    "measure-rank": ("htfcli.commands.measure_rank", "Measure hierarchical ranks of a tensor or a factorization."),
    "measure-locality": (
        "htfcli.commands.measure_locality",
        "Measure the locality of networks, or of data.",
    ),
    "rearrange": (
        "htfcli.commands.rearrange",
        "Rearrange features so that locally connected networks can fit the data.",
    ),
    "plot": ("htfcli.commands.plot", "Plot the records of fits, completions, training runs and locality."),
    "sweep": ("htfcli.commands.sweep", "Run a grid of experiments and summarise the results."),
    "reproduce": (
        "htfcli.commands.reproduce",
        "Reproduce a published experiment and compare the results.",
    ),
    "report": ("htfcli.commands.report", "Write an HTML report of runs and sweeps."),
    "export": ("htfcli.commands.export", "Write an image data set as PNG files or arrays."),
    "inspect": ("htfcli.commands.inspect", "Describe a file."),
}
HIDDEN = {  # started by the commands above
    "fit-batch": "htfcli.commands.fit_batch",
    "measure-recovery": "htfcli.commands.measure_recovery",
}


class LazyGroup(TyperGroup):
    """Lists `COMMANDS` without importing them, so that help and shell completion stay fast."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS and cmd_name not in HIDDEN:
            if ctx.resilient_parsing:  # completion
                return None
            guess = did_you_mean(cmd_name, COMMANDS)
            raise ConfigError("no such command", got=cmd_name, allowed=", ".join(COMMANDS), next_step=guess)
        module = HIDDEN.get(cmd_name) or COMMANDS[cmd_name][0]
        command = typer.main.get_command(importlib.import_module(module).app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


app = typer.Typer(
    cls=LazyGroup,
    name="htf",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"htf {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def htf(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hierarchical tensor factorization: complete tensors, watch ranks emerge, measure them.

    A pipeline:  htf generate tensor -o - | htf fit - -o - | htf measure-rank -
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(2)


def main(args: list[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0 done, 1 bad data or a failed run, 2 usage, 130 interrupted."""
    listen()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that the terminal cannot show must not end the command
            stream.reconfigure(errors="backslashreplace")
    end_with_parent()
    try:
        result = typer.main.get_command(app).main(args=args, prog_name="htf", standalone_mode=False)
        sys.stdout.flush()
        if result == INTERRUPTED:  # typer turns KeyboardInterrupt into this exit code
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except BrokenPipeError:  # the reader of stdout is gone; it may have seen a part only, so this is a failure
        _silence_stdout()
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted.", INTERRUPTED)
    except Exception as error:
        if terminated:
            return _fail("interrupted.", INTERRUPTED)
        if os.environ.get("HTF_DEBUG") == "1":
            traceback.print_exc()
        return _fail(*_explain(error, sys.argv[1:] if args is None else args))


def _explain(error: Exception, args: list[str]) -> tuple[str, int]:
    """The error message, one line, and the exit code."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, HtfError):
        return str(error), error.exit_code
    if isinstance(error, typer.TyperException):
        return usage_message(error, f"htf {args[0]}" if args and args[0] in COMMANDS else "htf"), error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        advice = " Free some space and try again." if error.errno == errno.ENOSPC else ""
        return f"{where}{error.strerror or error}.{advice}", 1
    from htfcli.engine.runtime.memory import is_out_of_memory

    if is_out_of_memory(error):
        return _out_of_memory(error), 1
    return f"internal error: {type(error).__name__}: {reason}. HTF_DEBUG=1 shows where; please report it.", 1


def _out_of_memory(error: Exception) -> str:
    """The message for a failed allocation, with the requested and the free memory where they are known."""
    from htfcli.config.units import format_bytes
    from htfcli.engine.runtime.memory import available_memory, requested_bytes

    available = available_memory()
    asked = requested_bytes(error)
    sizes = [f"got {asked} more" if asked else "", f"{format_bytes(available)} free" if available is not None else ""]
    known = ", ".join(filter(None, sizes))
    less = "Reduce --width, --batch-size or the number of entries."
    return f"out of memory{f' ({known})' if known else ''}. {less}"


def _fail(message: str, code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
    print(f"Error: {printable(message)}", file=sys.stderr)
    return code


def _silence_stdout() -> None:
    """Redirect stdout to the null device; otherwise Python reports the broken pipe again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
