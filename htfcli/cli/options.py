"""Options shared by commands, and those that a configuration class turns into."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import NoneType
from typing import Annotated, Any, Literal, Optional, get_args, get_origin

import typer

from htfcli.config.base import Config

FormatOption = Annotated[
    Optional[Literal["table", "jsonl", "csv"]],
    typer.Option(
        "--format", help="Records on stdout: table (default on a terminal), jsonl (default in a pipe) or csv."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")]
TrackOption = Annotated[
    Optional[Literal["tensorboard"]],
    typer.Option("--track", help="Write the records for TensorBoard too, into the run folder."),
]
RetriesOption = Annotated[
    int, typer.Option("--retries", metavar="N", min=0, help="How often a failed run is tried again.")
]
AnewOption = Annotated[bool, typer.Option("--force", help="Do runs anew that the folder holds with other settings.")]
ThreadsOption = Annotated[
    Optional[int], typer.Option("--threads", metavar="N", min=1, help="Cores of a run.  [default: an equal share]")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]

_METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT", list[int]: "N,N,..."}
_MULTIPLE = {"matricization": "MODES"}


def with_config(config_class: type[Config]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one option per field of `config_class`, and --config, --set and --print-config.

    The command is written with a first keyword `config` for the resolved configuration. Fields that it also takes as
    parameters (a positional DATA, say) are left to it.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "config"]
        fields = [name for name in config_class.model_fields if name not in {p.name for p in own}]

        def wrapper(**values: Any) -> Any:
            flags = {name: value for name in fields if (value := values.pop(name)) is not None}
            path, assignments = values.pop("config_file"), values.pop("assignments")
            show = values.pop("print_config")
            config = config_class.resolve(flags, assignments, path)
            if show:
                typer.echo(config.to_yaml(), nl=False)
                return None
            return command(config=config, **values)

        parameters = [*own, *(_option(config_class, name) for name in fields), *_CONFIG_OPTIONS]
        wrapper.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            sorted(parameters, key=lambda p: p.kind is inspect.Parameter.KEYWORD_ONLY)
        )
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        return wrapper

    return decorate


def _option(config_class: type[Config], name: str) -> inspect.Parameter:
    """The option of one field; its text goes to the configuration class as it is, which says all that is wrong."""
    field = config_class.model_fields[name]
    flag = "--" + name.replace("_", "-")
    plain = [t for t in get_args(field.annotation) if t is not NoneType] or [field.annotation]
    kind: Any = str
    metavar: str | None
    declared, metavar = flag, _METAVARS.get(plain[0], "TEXT") if len(plain) == 1 else "N[,N...]"
    if plain == [bool]:
        kind, declared, metavar = bool, f"{flag}/--no-{flag[2:]}", None
    elif get_origin(field.annotation) is Literal:
        kind, metavar = field.annotation, None
    elif name in _MULTIPLE:
        kind, metavar = list[str], _MULTIPLE[name]
    elif name == "tree":
        metavar = "TREE"
    default = field.get_default()
    shown = "" if default is None or isinstance(default, bool | list) else f"  [default: {default}]"
    help_text = f"{field.description}{shown}"
    option = typer.Option(declared, help=help_text, metavar=metavar, show_default=False)
    return _keyword(name, Annotated[Optional[kind], option], None)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_CONFIG_OPTIONS = [
    _keyword(
        "config_file",
        Annotated[
            Optional[str], typer.Option("--config", metavar="FILE", help="YAML file of settings; flags win over it.")
        ],
        None,
    ),
    _keyword(
        "assignments",
        Annotated[Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="One setting (repeatable).")],
        None,
    ),
    _keyword(
        "print_config",
        Annotated[bool, typer.Option("--print-config", help="Print the resolved configuration as YAML and stop.")],
        False,
    ),
]
