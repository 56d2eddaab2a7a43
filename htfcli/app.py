"""The command line: `htf`. Registers the commands in the order of a pipeline; their modules are imported when run."""

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
from htfcli.engine.runtime.processes import follow_leash
from htfcli.errors import ConfigError, HtfError, did_you_mean, printable

COMMANDS = {
    "generate": ("htfcli.commands.generate", "Make learning problems with a known answer."),
    "fit": ("htfcli.commands.fit", "Fit a factorization by gradient descent from a small start."),
    "complete": ("htfcli.commands.complete", "Fill a tensor with holes, and say how far to trust it."),
    "train-cnn": ("htfcli.commands.train_cnn", "Train a convolutional network to classify images."),
    "measure-rank": ("htfcli.commands.measure_rank", "Hierarchical tensor ranks of a tensor or a factorization."),
    "measure-locality": (
        "htfcli.commands.measure_locality",
        "How the dependence a network models falls with distance.",
    ),
    "plot": ("htfcli.commands.plot", "Draw the records of fits, completions, trainings and locality."),
    "sweep": ("htfcli.commands.sweep", "Do a grid of runs with seeds, and summarise them."),
    "reproduce": (
        "htfcli.commands.reproduce",
        "Do a published experiment again: runs, figure, numbers beside ours.",
    ),
    "report": ("htfcli.commands.report", "Make one HTML page of runs and sweeps, to look at and share."),
    "inspect": ("htfcli.commands.inspect", "Say what is in a file."),
}
HIDDEN = {"fit-batch": "htfcli.commands.fit_batch"}  # what the commands above start


class LazyGroup(TyperGroup):
    """Lists `COMMANDS` without importing them, so that help and completion stay fast."""

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
        if isinstance(stream, io.TextIOWrapper):  # a character that a terminal does not know is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    follow_leash()
    try:
        result = typer.main.get_command(app).main(args=args, prog_name="htf", standalone_mode=False)
        sys.stdout.flush()
        if result == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except BrokenPipeError:  # the reader of stdout has gone; what it saw may be cut off, so this is not success
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
    """One line on what went wrong, and the exit code."""
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
    """How much was asked for, and what there is, where that is known."""
    from htfcli.engine.runtime.memory import available_memory, in_bytes, requested_bytes

    available = available_memory()
    asked = requested_bytes(error)
    sizes = [f"got {asked} more" if asked else "", f"{in_bytes(available)} free" if available is not None else ""]
    told = ", ".join(filter(None, sizes))
    less = "Ask for less: lower --width or --batch-size, or fewer entries."
    return f"out of memory{f' ({told})' if told else ''}. {less}"


def _fail(message: str, code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
    print(f"Error: {printable(message)}", file=sys.stderr)
    return code


def _silence_stdout() -> None:
    """Point stdout at nothing, or Python complains about the broken pipe once more as it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
