"""Options shared by commands, and options made from the fields of a configuration class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

import typer

from htfcli.config.base import Config

FormatOption = Annotated[
    Optional[Literal["table", "jsonl", "csv"]],
    typer.Option("--format", help="Print records as table (default on a terminal), jsonl (default in a pipe) or csv."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors on stderr.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Resume the run in the output folder.")]
TrackOption = Annotated[
    Optional[Literal["tensorboard"]],
    typer.Option("--track", help="Also write records for TensorBoard into the run folder."),
]
RetriesOption = Annotated[int, typer.Option("--retries", metavar="N", min=0, help="Retry a failed run up to N times.")]
RerunOption = Annotated[bool, typer.Option("--force", help="Rerun runs whose saved settings differ.")]
ThreadsOption = Annotated[
    Optional[int], typer.Option("--threads", metavar="N", min=1, help="Use N cores per run.  [default: an equal share]")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace existing output.")]

_METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT", list[int]: "N,N,...", list[str]: "NAME,NAME,..."}
_WIDE = 45  # characters of choices that no longer fit beside an option in sixty columns
_MULTIPLE = {"matricization": "MODES", "na": "TEXT", "patches": "TOP,LEFT,HEIGHT,WIDTH"}
_OPPOSITE = {"wide": "--long"}  # the flag that says the opposite, where that has a name


def with_config(config_class: type[Config]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one option per field of `config_class`, and --config, --set and --print-config.

    The command receives the resolved configuration as keyword `config`. Fields that are also parameters of the command
    (such as a positional DATA) get no option.
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
    """The option of one field; its text is passed on as it is, for the configuration class to report all problems."""
    field = config_class.model_fields[name]
    flags = ["--" + key.replace("_", "-") for key in (name, *(a for a, n in config_class.aliases.items() if n == name))]
    plain = _kinds(field.annotation)
    kind: Any = str
    choices: tuple[str, ...] = ()
    metavar: str | None
    metavar = _METAVARS.get(plain[0], "TEXT") if len(plain) == 1 else "N[,N...]"
    if plain == [bool]:
        kind, flags, metavar = bool, [f"{flags[0]}/{_OPPOSITE.get(name, f'--no-{flags[0][2:]}')}"], None
    elif get_origin(field.annotation) is Literal:
        kind, choices = field.annotation, get_args(field.annotation)
        metavar = None if len("|".join(choices)) < _WIDE else name.upper()
    elif name in _MULTIPLE:
        kind, metavar = list[str], _MULTIPLE[name]
    elif name == "tree":
        metavar = "TREE"
    default = None if field.default_factory else field.get_default()  # which depends on other settings
    shown = "" if default is None or isinstance(default, bool | list) else f"  [default: {default}]"
    listed = f" One of {', '.join(choices)}." if metavar == name.upper() and choices else ""
    help_text = f"{field.description}{listed}{shown}"
    option = typer.Option(*flags, help=help_text, metavar=metavar, show_default=False)
    return _keyword(name, Annotated[Optional[kind], option], None)


def _kinds(annotation: Any) -> list[Any]:
    """The types that a field accepts beside None, without their validators."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) if part is not NoneType for kind in _kinds(part)]
    return [annotation]


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_CONFIG_OPTIONS = [
    _keyword(
        "config_file",
        Annotated[
            Optional[str],
            typer.Option("--config", metavar="FILE", help="Read settings from a YAML file; options override it."),
        ],
        None,
    ),
    _keyword(
        "assignments",
        Annotated[
            Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="Set one setting (repeatable).")
        ],
        None,
    ),
    _keyword(
        "print_config",
        Annotated[bool, typer.Option("--print-config", help="Print the resolved configuration as YAML and exit.")],
        False,
    ),
]
