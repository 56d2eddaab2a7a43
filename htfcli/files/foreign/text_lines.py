"""Text files, compressed or not, line by line."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from htfcli.errors import DataError

_LONGEST = 2**20  # characters of a line that is unpacked


@contextmanager
def open_text(path: Path, name: str) -> Iterator[Iterator[str]]:
    """The lines of a text file, or of a compressed one by its suffix .gz.

    Args:
        path: the file. name: what to call it in messages.
    Raises:
        DataError: for a line of a compressed file that is too long, as a few bytes may unpack to any number of zeros.
    """
    if path.suffix == ".gz":
        with gzip.open(path) as packed, io.TextIOWrapper(packed, encoding="utf-8-sig", newline="") as file:
            yield _bounded(file, name)
    else:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file


def _bounded(file: io.TextIOWrapper, name: str) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST):
        number += 1
        if len(line) == _LONGEST:
            raise DataError(f"{name} line {number} is too long", allowed=f"fewer than {_LONGEST:,} characters")
        yield line
