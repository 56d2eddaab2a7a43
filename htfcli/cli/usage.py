"""What a person is told who called a command wrongly: one line, with the nearest right name or a call that works."""

from __future__ import annotations

import re
from typing import Any

import typer

from htfcli.errors import did_you_mean


def usage_message(error: typer.TyperException, path: str) -> str:
    """The line. Args: path: the command that was called, where the error does not know it."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else path
    message, option = error.format_message().rstrip("."), getattr(error, "option_name", None)
    if option is not None and (possible := getattr(error, "possibilities", None)):
        message, advice = f"No such option: {option}", did_you_mean(option, possible)
    elif message.startswith("No such command"):
        message, _, advice = message.partition(". ")
        advice = advice.rstrip(".").replace("'", "") + " " if advice else ""
    elif message.startswith("Missing "):
        advice = shortest_call(context.command if context else None)
    else:
        message = message.replace("Value error, ", "")
        wrong = re.search(r"'([^']*)' is not one of (.*)$", message)
        advice = did_you_mean(wrong[1], re.findall(r"'([^']*)'", wrong[2])) if wrong else ""
    return f"{message}. {advice}See '{path} --help'."


def shortest_call(command: Any) -> str:
    """The first example of a command, as the end of a message; nothing if it has none."""
    example = re.search(r"^ *(htf [^|\n]*)", getattr(command, "epilog", None) or "", re.M)
    return f"Shortest useful call: {example[1].strip()}. " if example else ""
