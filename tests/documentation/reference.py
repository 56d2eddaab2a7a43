"""The reference of all commands and their options, `docs/reference/commands.md`, made from the commands themselves."""

from __future__ import annotations

import html
import inspect
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import typer

from htfcli.app import COMMANDS, app
from htfcli.commands import generate
from tests.documentation.pages import DOCS

PATH = DOCS / "reference/commands.md"
_MANY = 4  # commands that have the same option, from which on it stands in the shared table
_INTRODUCTION = """\
# Commands

<!-- Made by python -m tests.documentation: change the commands, not this page. -->

Every command, its arguments and its options, as `htf COMMAND --help` shows them. A default stands in brackets; what happens
without an option that has none stands in parentheses. Options that most commands take are [in one table](#shared-options).
Every option that shapes a result is a [setting](settings.md) too.

| command | |
|---|---|
"""


def command_names() -> list[str]:
    """All commands; those of `generate` are two words."""
    kinds = [f"generate {command.name}" for command in generate.app.registered_commands]
    return [*kinds, *(name for name in COMMANDS if name != "generate")]


def _command(name: str) -> tuple[Any, typer.Context]:
    command: Any = typer.main.get_command(app)
    for word in name.split():
        command = command.get_command(typer.Context(command), word)
    return command, typer.Context(command, info_name=f"htf {name}".strip())


def options_of(name: str) -> dict[str, str]:
    """The options of a command and what they do, as its help has them; of `htf` itself for an empty name."""
    command, context = _command(name)
    options = [p for p in command.get_params(context) if p.param_type_name == "option"]
    return _rows(o.get_help_record(context) for o in options)


def _arguments_of(name: str) -> dict[str, str]:
    command, context = _command(name)
    arguments = [p for p in command.get_params(context) if p.param_type_name == "argument"]
    return _rows(a.get_help_record(context) for a in arguments)


def _rows(records: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names, as code, and what they mean, as cells of a Markdown table."""
    return {f"<code>{_cell(names)}</code>": _cell(text).replace("[", "\\[") for names, text in records}


def _cell(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;")


def shared_options() -> dict[str, str]:
    """The options that mean the same in several commands."""
    count = Counter(pair for name in command_names() for pair in options_of(name).items())
    return dict(pair for pair, commands in count.items() if commands >= _MANY)


def _table(title: str, rows: dict[str, str]) -> str:
    return (
        "".join([f"| {title} | |\n|---|---|\n", *(f"| {k} | {v} |\n" for k, v in rows.items()), "\n"]) if rows else ""
    )


def _section(name: str, shared: dict[str, str]) -> str:
    command, context = _command(name)
    usage = " ".join([context.info_name, *command.collect_usage_pieces(context)])
    examples = re.sub(r"^\s*(\x08|\\b)?\s*Examples?:\n", "", inspect.cleandoc(command.epilog or ""))
    own = {k: v for k, v in options_of(name).items() if shared.get(k) != v}
    parts = [f"## htf {name}\n\n", f"{inspect.cleandoc(command.help)}\n\n", f"```text\n{usage}\n```\n\n"]
    if examples.strip():
        parts.append(f"<!-- not run: the examples of its help -->\n```bash\n{_joined(examples)}\n```\n\n")
    return "".join([*parts, _table("argument", _arguments_of(name)), _table("option", own)])


def _joined(examples: str) -> str:
    return "\n".join(line.strip() for line in examples.splitlines() if line.strip())


def reference() -> str:
    """The whole page."""
    shared = shared_options()
    overview = "".join(
        f"| [`htf {name}`](#htf-{name.replace(' ', '-')}) | {_summary(name)} |\n" for name in command_names()
    )
    sections = "".join(_section(name, shared) for name in command_names())
    ends = f"## Shared options\n\n{_table('option', shared)}## htf\n\n`htf` itself takes\n\n{_table('option', options_of(''))}"
    return f"{_INTRODUCTION}{overview}\n{sections}{ends}".rstrip("\n") + "\n"


def _summary(name: str) -> str:
    command, _ = _command(name)
    return _cell(inspect.cleandoc(command.help).partition("\n\n")[0])
