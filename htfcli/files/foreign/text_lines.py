"""Lines of text files, compressed or not."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from htfcli.errors import DataError

_LONGEST = 2**20  # characters of a line in a compressed file: far more than a row has


@contextmanager
def open_text(path: Path, name: str) -> Iterator[Iterator[str]]:
    """Yield the lines of a text file, compressed if its suffix is .gz.

    Args:
        path: the file. name: its name in messages.
    Raises:
        DataError: for a line of a compressed file that is too long, as a few bytes may unpack to any number of zeros.
    """
    if path.suffix == ".gz":
        with gzip.open(path) as packed, io.TextIOWrapper(packed, encoding="utf-8-sig", newline="") as file:
            yield _bounded(file, name)
    else:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file


def not_utf8(path: Path, name: str) -> DataError:
    """The error for a text file that cannot be decoded, with the first line that is not UTF-8.

    Args:
        path: the file. name: what to call it in messages.
    """
    opened: Callable[..., IO[bytes]] = gzip.open if path.suffix == ".gz" else open  # type: ignore[assignment]
    with opened(path, "rb") as file:
        head = file.read(_LONGEST)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            advice = "Convert it: iconv -f utf-16 -t utf-8."
            return DataError(f"{name} is UTF-16 text", allowed="UTF-8", next_step=advice)
        if b"\0" in head:
            return DataError(f"{name} is not a text file")
        file.seek(0)
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                advice = "Convert it, e.g. from Latin-1: iconv -f latin1 -t utf-8."
                return DataError(f"{name} line {number} is not UTF-8 text", next_step=advice)
    return DataError(f"{name} is not a text file")


def _bounded(file: io.TextIOWrapper, name: str) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST):
        number += 1
        if len(line) == _LONGEST:
            raise DataError(f"{name} line {number} is too long", allowed=f"fewer than {_LONGEST:,} characters")
        yield line
