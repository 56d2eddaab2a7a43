"""Errors with a message for the user, all derived from `HtfError`.

A message is one line: what is wrong, the value found and those allowed, the next step. `main()` prints
`Error: <message>` on stderr and returns the exit code of the error's class.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class HtfError(Exception):
    """Base class of all errors raised on purpose.

    Args:
        what: what is wrong, without a full stop.
        got: the value found, shown as `(got ...)`.
        allowed: the values accepted, shown beside it.
        next_step: one sentence on what to do.
    """

    exit_code = 1

    def __init__(self, what: str, *, got: object = None, allowed: object = None, next_step: str = "") -> None:
        values = [f"{label} {value}" for label, value in (("got", got), ("allowed", allowed)) if value is not None]
        message = f"{what} ({', '.join(values)})." if values else what if what.endswith("?") else f"{what}."
        super().__init__(printable(f"{message} {next_step}".strip()))


def printable(text: str) -> str:
    """The text with control characters escaped, so that it stays on one line; file names may contain them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean X? ` for the closest of the known names, or an empty text.

    A name is close if it is spelled similarly, shares a word (`lr-rate`, `lr`) or consists of the initials
    (`learning-rate`).
    """
    known, words = list(known), re.findall(r"[^-_]+", name)
    close = difflib.get_close_matches(name, known, n=1)
    close += [k for k in known if k == "".join(word[0] for word in words) or set(re.findall(r"[^-_]+", k)) & set(words)]
    return f"Did you mean {close[0]}? " if close else ""


class ConfigError(HtfError):
    """An invalid option, setting or combination of them."""

    exit_code = 2


class DataError(HtfError):
    """A file or tensor that cannot be used: malformed, out of range, or too large."""


class RunError(HtfError):
    """A run that started and failed: it diverged, ran out of memory, or lost a process."""


class Interrupted(HtfError):  # noqa: N818 -- an ending, not an error
    """Ctrl-C or SIGTERM; the state has been saved if there is a run folder."""

    exit_code = 130
