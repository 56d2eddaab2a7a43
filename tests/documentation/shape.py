"""The shape of an output: what of it must be the same on every machine.

Numbers, times and sizes differ from one processor to the next, and so does how many there are; what stays are the keys of
JSON records, the labels of tables, and the words of every other line. Order does not count: parts of a pipe write at once.
"""

from __future__ import annotations

import json
import re

_NUMBER = r"[-+]?(?<![\w.])(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?(?![\w])|\b(?:nan|inf)\b"
_AMOUNT = re.compile(rf"(?:{_NUMBER})(?: (?:ns|ms|s|min|h|KiB|MiB|GiB|bytes))?")
_RULE = re.compile(r"^[\s─━=|+-]*$")


def shape(output: str, labels: bool = False) -> set[str]:
    """The shape of an output, a set of lines.

    Args:
        labels: of the rows of tables only the first cell, and no warnings: for results whose words depend on numbers.
    """
    lines = {_shape_of(line.strip(), labels) for line in output.splitlines() if not _RULE.match(line)}
    return {line for line in lines if not (labels and line.startswith("Warning:"))}


def _shape_of(line: str, labels: bool) -> str:
    if line.startswith("{"):
        try:
            return f"record of {', '.join(json.loads(line))}"
        except ValueError:
            pass
    cells = re.split(r"\s{2,}|\s*│\s*", line)
    return masked(cells[0]) if labels and len(cells) > 1 else masked(" ".join(cells))


def masked(text: str) -> str:
    """A text with one `#` in the place of every number or list of numbers."""
    text = re.sub(r"\bthreads?\b", "threads", _AMOUNT.sub("#", text))
    text = re.sub(r"[(\[{]*#[)\]}]*(?:(?: x |, ?|; ?| )[(\[{]*#[)\]}]*)+", "#", text)
    return re.sub(r"[(\[{]+#[)\]}]+", "#", " ".join(text.split()))
