"""Every error a user can meet, under one root.

The message is one line: what is wrong, both values, the next step. `main()` turns an `HtfError` into
`Error: <message>` on stderr and the exit code of its class.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class HtfError(Exception):
    """Root of all errors raised on purpose.

    Args:
        what: what is wrong, without a full stop.
        got: the value met, shown as `(got ...)`.
        allowed: what would have been accepted, shown beside it.
        next_step: one sentence that tells the user what to do.
    """

    exit_code = 1

    def __init__(self, what: str, *, got: object = None, allowed: object = None, next_step: str = "") -> None:
        values = [f"{label} {value}" for label, value in (("got", got), ("allowed", allowed)) if value is not None]
        message = f"{what} ({', '.join(values)})." if values else what if what.endswith("?") else f"{what}."
        super().__init__(printable(f"{message} {next_step}".strip()))


def printable(text: str) -> str:
    """Text in one line, with escapes for what would move the cursor or break the line: names of files may have it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean X? ` for the closest of the known names, or nothing.

    Close are those spelled alike, with a word in common (`lr-rate`, `lr`), or made of its initials (`learning-rate`).
    """
    known, words = list(known), re.findall(r"[^-_]+", name)
    close = difflib.get_close_matches(name, known, n=1)
    close += [k for k in known if k == "".join(word[0] for word in words) or set(re.findall(r"[^-_]+", k)) & set(words)]
    return f"Did you mean {close[0]}? " if close else ""


class ConfigError(HtfError):
    """A wrong option, configuration key or combination of them."""

    exit_code = 2


class DataError(HtfError):
    """A file or tensor that cannot be used: malformed, out of range, too large for the request."""


class RunError(HtfError):
    """A run that started and failed: divergence, a device out of memory, a disk that is full."""


class Interrupted(HtfError):  # noqa: N818 -- it is an end, not an error
    """Ctrl-C or SIGTERM; the state has been saved where there was a place to save it."""

    exit_code = 130
