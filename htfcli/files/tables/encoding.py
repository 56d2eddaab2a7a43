"""Encodings of text files: UTF-8 and UTF-16, with or without a byte order mark, and Latin-1."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from htfcli.errors import ConfigError, DataError

_LONGEST = 2**20  # characters of a line in a compressed file: far more than a row has
_BLOCK = 2**22  # bytes scanned at a time
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
WESTERN = "cp1252"  # Latin-1 as Windows writes it: the same letters, and quotes, dashes and the euro sign


@dataclass(frozen=True)
class Encoding:
    """How the characters of a file are stored.

    Args:
        codec: its name in Python. mark: whether the file begins with a byte order mark.
    """

    codec: str = "utf-8"
    mark: bool = False

    def words(self) -> str:
        """Its name, empty for plain UTF-8."""
        if self.codec == "utf-8":
            return ""
        return {"utf-16-le": "UTF-16", "utf-16-be": "UTF-16", WESTERN: "Latin-1", "latin-1": "Latin-1"}.get(
            self.codec, self.codec
        )


@dataclass(frozen=True)
class Scan:
    """What one pass over the bytes of a file finds.

    Args:
        encoding: of its text. comments: whether a line after the first row may begin with `#`. quotes: whether there
            are double quotes. skipped: comments and blank lines before the first row.
    """

    encoding: Encoding
    comments: bool
    quotes: bool
    skipped: int = 0


def scan(path: Path, name: str, codec: str | None = None) -> Scan:
    """Find how a text file is encoded, and whether it can have comments and quotes.

    Args:
        path: the file. name: its name in messages. codec: the encoding, if it is known.
    Raises:
        DataError: if it is not a text file, or not in the given encoding. ConfigError: if there is no such encoding.
    """
    with open_bytes(path) as file:
        head = file.read(_BLOCK)
        mark, found = next(((mark, found) for mark, found in _MARKS if head.startswith(mark)), (b"", ""))
        if codec is not None:
            known = _codec(codec)
            bare = known.removesuffix("-sig") if known == "utf-8-sig" else known
            found = found if known in ("utf-16", "utf-8-sig") and found else bare
            found = "utf-16-le" if found == "utf-16" else found
            mark = mark if found in [one for _, one in _MARKS] else b""
        if not found and b"\0" in head:
            found = _unmarked_utf16(head)
            if not found:
                raise DataError(f"{name} is not a text file")
        if found.startswith("utf-16"):
            return Scan(Encoding(found, bool(mark)), True, True)
        guessed = found or "utf-8"
        decoder = codecs.getincrementaldecoder(guessed)()
        # comments before the first row are skipped by their number, not looked for
        skipped, start = _leading(head, len(mark))
        comments, quotes, last, block, seen = False, False, b"", head, start
        while True:
            try:
                decoder.decode(block[len(mark) :] if block is head else block, final=not block)
            except UnicodeDecodeError:
                if codec is not None:
                    advice = "Name another: --encoding."
                    raise DataError(f"{name} is not in the encoding {codec}", next_step=advice) from None
                guessed = _western(path)
                decoder = codecs.getincrementaldecoder(guessed)()
            if not comments and b"#" in block:
                joined = last + block[seen:]
                comments = b"\n#" in joined or b"\r#" in joined
            quotes = quotes or b'"' in block
            if not block:
                return Scan(Encoding(guessed, bool(mark)), comments, quotes, skipped)
            last, seen = block[-1:], 0
            block = file.read(_BLOCK)


def _western(path: Path) -> str:
    """Latin-1 as Windows writes it, or as it was before where a byte has no meaning in that."""
    with open_bytes(path) as file:
        while block := file.read(_BLOCK):
            try:
                block.decode(WESTERN)
            except UnicodeDecodeError:
                return "latin-1"
    return WESTERN


def _leading(head: bytes, start: int) -> tuple[int, int]:
    """The number of comments and blank lines at the beginning, and the byte after them."""
    count = 0
    while (end := head.find(b"\n", start)) >= 0:
        line = head[start:end].strip()
        if line and not line.startswith(b"#"):
            break
        count, start = count + 1, end + 1
    return count, start


def _codec(name: str) -> str:
    try:
        return codecs.lookup(name).name.replace("iso8859-1", "latin-1")
    except LookupError:
        raise ConfigError(
            "--encoding: no such encoding", got=name, allowed="utf-8, utf-16, latin-1, cp1252, ..."
        ) from None


def _unmarked_utf16(head: bytes) -> str:
    """The order of bytes of UTF-16 text in Latin letters, where every other byte is zero; empty if it is not that."""
    pairs = len(head) // 2
    for zeros, codec in ((head[1::2].count(0), "utf-16-le"), (head[0::2].count(0), "utf-16-be")):
        if zeros > 0.7 * pairs and head.count(0) == zeros:
            return codec
    return ""


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed if its suffix is .gz."""
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as packed:
            yield packed  # type: ignore[misc]
    else:
        with open(path, "rb") as file:
            yield file


@contextmanager
def open_text(path: Path, name: str, encoding: Encoding) -> Iterator[Iterator[str]]:
    """Yield the lines of a text file with their ends, without a byte order mark.

    Raises:
        DataError: if it cannot be read, or for a line of a compressed file that is too long, as a few bytes may unpack
            to any number of zeros.
    """
    with readable(name), open_bytes(path) as binary:
        text = io.TextIOWrapper(binary, encoding=encoding.codec, newline="")
        try:
            if encoding.mark:
                text.read(1)
            yield _bounded(text, name) if path.suffix.lower() == ".gz" else text
        finally:
            text.detach()


def _bounded(file: io.TextIOWrapper, name: str) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST):
        number += 1
        if len(line) == _LONGEST:
            raise DataError(f"{name} line {number} is too long", allowed=f"fewer than {_LONGEST:,} characters")
        yield line


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn the errors of reading a text file into DataErrors."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not {error.encoding} text", next_step="Name its encoding: --encoding.") from None
    except csv.Error as error:
        raise DataError(f"{name} cannot be read: {error}") from None
    except EOFError:
        raise DataError(f"{name} is truncated") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} is damaged: {error}") from None
