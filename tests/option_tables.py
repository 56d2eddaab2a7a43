"""The tables of options in README.md, made from the commands: `python -m tests.option_tables` writes them anew."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import typer

from htfcli.app import COMMANDS, app
from htfcli.commands import generate

README = Path(__file__).parent.parent / "README.md"
SHARED = "shared"  # name of the table of options that many commands have
_MANY = 4  # commands with the same option, from which it stands in the shared table
_TABLE = re.compile(r"(<!-- options: ([\w -]+) -->\n)(.*?)(<!-- end of options -->)", re.S)


def command_names() -> list[str]:
    """All commands, those of `generate` by two words."""
    subcommands = [f"generate {command.name}" for command in generate.app.registered_commands]
    return [*subcommands, *(name for name in COMMANDS if name != "generate")]


def options_of(name: str) -> dict[str, str]:
    """The options of a command and what they do, as its help has them."""
    command: Any = typer.main.get_command(app)
    for word in name.split():
        command = command.get_command(typer.Context(command), word)
    context = typer.Context(command)
    options = [p for p in command.get_params(context) if p.param_type_name == "option"]
    records = [option.get_help_record(context) for option in options]
    return {f"`{_cell(names)}`": _cell(text) for names, text in records}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def tables() -> dict[str, str]:
    """Name of a table -> its lines. An option that means the same in many commands stands in the shared one alone."""
    options = {name: options_of(name) for name in command_names()}
    count = Counter(pair for found in options.values() for pair in found.items())
    shared = dict(pair for pair, commands in count.items() if commands >= _MANY)
    own = {name: {k: v for k, v in found.items() if shared.get(k) != v} for name, found in options.items()}
    return {name: _table(found) for name, found in {**own, "htf": options_of(""), SHARED: shared}.items() if found}


def _table(options: dict[str, str]) -> str:
    return "".join(["\n| option | |\n|---|---|\n", *(f"| {k} | {v} |\n" for k, v in options.items()), "\n"])


def written(text: str) -> dict[str, str]:
    """Name of a table -> its lines, as they stand in `text`."""
    return {name: body for _, name, body, _ in _TABLE.findall(text)}


def renewed(text: str) -> str:
    """`text` with its tables as they should be."""
    made = tables()
    return _TABLE.sub(lambda m: m[1] + made[m[2]] + m[4], text)


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
