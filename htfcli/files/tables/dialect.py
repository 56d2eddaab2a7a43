"""The dialect of a text table, found from its first rows: what separates fields, and how numbers are written."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from htfcli.errors import ConfigError
from htfcli.files.tables.encoding import Encoding
from htfcli.files.tables.numbers import Notation

DELIMITERS = (",", ";", "\t", "|")  # spaces are tried where none of these separates anything
_WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", None: "spaces"}
_SEPARATORS = {"'": "apostrophes", " ": "spaces", ".": "points", ",": "commas"}
_CONSISTENT = 0.9  # of the rows have the usual number of fields; a single bad row is reported, not taken for a dialect
_SIGN = r"[+-]?"
_WITH_COMMA = re.compile(rf"{_SIGN}\d*,\d+([eE][+-]?\d+)?")
_WITH_POINT = re.compile(rf"{_SIGN}\d*\.\d+([eE][+-]?\d+)?")
_ONE_GROUP = re.compile(rf"{_SIGN}[1-9]\d{{0,2}}[.,]\d{{3}}")  # 1,234: a thousand and more, or one and a fraction
_GROUPS = re.compile(
    rf"{_SIGN}[1-9]\d{{0,2}}(?P<sign>[., '\u2019\u00a0\u202f])\d{{3}}((?P=sign)\d{{3}})*(?P<rest>[.,]\d+)?"
)


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    Args:
        encoding: of its characters. delimiter: between fields; None for any number of spaces. notation: of its numbers.
    """

    encoding: Encoding = Encoding()  # noqa: RUF009 -- frozen
    delimiter: str | None = ","
    notation: Notation = Notation()  # noqa: RUF009 -- frozen

    def words(self, usual: str | None) -> str:
        """What is not as one expects, in words; empty if everything is.

        Args:
            usual: the delimiter that files of this suffix have.
        """
        found = (
            [] if self.delimiter == usual else [_WORDS.get(self.delimiter, f"fields separated by {self.delimiter!r}")]
        )
        if self.notation.decimal == ",":
            found.append("decimal commas")
        if sign := self.notation.thousands:
            found.append(f"thousands separated by {_SEPARATORS.get(sign, 'spaces')}")
        return ", ".join([*found, *filter(None, [self.encoding.words()])])


def records(lines: Iterable[str], delimiter: str | None) -> Iterator[list[str]]:
    """The fields of each row; comments and blank lines between rows are skipped.

    A field in quotes may hold line ends, after which `#` begins no comment.
    """
    inside = False  # a row whose end has not been read yet

    def wanted() -> Iterator[str]:
        nonlocal inside
        for line in lines:
            if inside or not is_no_row(line):
                inside = True
                yield line

    rows: Iterator[list[str]]
    if delimiter is None:
        rows = (line.partition("#")[0].split() for line in wanted())
    else:
        rows = csv.reader(wanted(), delimiter=delimiter)
    for fields in rows:
        inside = False
        yield fields


is_no_row = re.compile(r"#(?!N/?A\b)|\s*$").match  # a comment or a blank line; #N/A is a field


def find_delimiter(lines: Sequence[str], name: str, usual: str | None) -> str | None:
    """What separates the fields of the first lines of a file.

    A sign separates fields if it gives nearly all rows the same number of them. Of several such signs the one is meant
    whose fields do not contain another of them, except for the comma of a decimal number.

    Args:
        lines: with their ends. name: of the file, for messages. usual: what files of this suffix have.
    Raises:
        ConfigError: if several are possible.
    """
    possible: dict[str, list[list[str]]] = {}
    for sign in DELIMITERS:
        rows = _parsed(lines, sign)
        width, share = _usual_width(rows)
        if (width > 1 and share >= _CONSISTENT) or (width > 1 and len(rows) < 10 and share >= 0.5):
            possible[sign] = [row for row in rows if len(row) == width]
    clean = [
        sign
        for sign, rows in possible.items()
        if not any(_contains(rows, other) for other in possible if other != sign)
    ]
    if not possible:
        spaced = [line.partition("#")[0].split() for line in lines if not is_no_row(line)]
        return None if usual is None or _usual_width(spaced)[0] > 2 else usual
    if len(clean) == 1:
        return clean[0]
    best = clean or ([usual] if usual in possible else list(possible))
    widths = {sign: len(possible[sign][0]) for sign in best if sign is not None}
    most = [sign for sign, width in widths.items() if width == max(widths.values())]
    if len(most) == 1:
        return most[0]
    got = " or ".join(_WORDS[sign] for sign in most)
    raise ConfigError(f"{name}: what separates the fields", got=got, next_step="Say which with --delimiter.")


def _parsed(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    try:
        return list(records(iter(lines), delimiter))
    except csv.Error:
        return []


def _usual_width(rows: Sequence[Sequence[str]]) -> tuple[int, float]:
    """The most frequent number of fields, and the share of the rows that have it."""
    if not rows:
        return 0, 0.0
    (width, count), *_ = Counter(map(len, rows)).most_common(1)
    return width, count / len(rows)


def _contains(rows: Sequence[Sequence[str]], sign: str) -> bool:
    """Whether most rows have a field with this sign that is not a number with a decimal comma or groups."""
    other = sum(
        any(sign in field and not (sign == "," and _is_comma_number(field.strip())) for field in row) for row in rows
    )
    return other > 0.5 * len(rows)


def _is_comma_number(text: str) -> bool:
    return bool(_WITH_COMMA.fullmatch(text) or _GROUPS.fullmatch(text))


def find_notation(
    rows: Sequence[Sequence[str]], name: str, delimiter: str | None, known: Notation, fixed: bool
) -> Notation:
    """How numbers are written in the first rows of a table.

    Args:
        rows: fields, with or without a header. known: what is said about it. fixed: whether the decimal sign is said.
    Raises:
        ConfigError: if it cannot be decided.
    """
    commas = points = False  # that separate a fraction, without doubt
    thousands: set[str] = set()
    doubtful: dict[str, str] = {}  # sign -> an example that may be a thousand or a fraction
    whole = False
    for column in zip(*rows, strict=False):
        fields = [text for field in column[1:] or column if not known.is_missing(text := field.strip())]
        if not fields or not all(map(_looks_like_a_number, fields)):
            continue
        for text in fields:
            grouped = _GROUPS.fullmatch(text)
            if grouped and (
                grouped["rest"] or len(grouped[0].split(grouped["sign"])) > 2 or grouped["sign"] not in ".,"
            ):
                thousands.add(grouped["sign"])
                commas, points = (
                    commas or (grouped["rest"] or "")[:1] == ",",
                    points or (grouped["rest"] or "")[:1] == ".",
                )
            elif _ONE_GROUP.fullmatch(text):
                doubtful.setdefault("," if "," in text else ".", text)
            elif _WITH_COMMA.fullmatch(text):
                commas = True
            elif _WITH_POINT.fullmatch(text):
                points = True
            else:
                whole = whole or 0 < len(text.lstrip("+-")) <= 3
    if fixed:
        commas, points = known.decimal == ",", known.decimal == "."
    if known.thousands:
        thousands = {known.thousands}
    commas, points = commas or "." in thousands, points or "," in thousands
    if commas and points:
        got, step = "commas and points", "Say which with --decimal , or --decimal . (and --thousands)."
        raise ConfigError(f"{name}: which sign separates decimals", got=got, next_step=step)
    if not commas and not points and doubtful:
        # a point is a decimal point, except where fields are separated by semicolons and whole numbers stand beside it
        for sign, text in doubtful.items():
            if sign == "," or (delimiter == ";" and whole):
                raise ConfigError(
                    f"{name}: {text} may be a whole number or a fraction",
                    next_step=f"Say which: --thousands {sign} or --decimal {sign}.",
                )
    decimal = "," if commas else "."
    for sign in doubtful:
        if sign != decimal:
            thousands.add(sign)
    if len(thousands) > 1:
        got = " and ".join(sorted(map(repr, thousands)))
        raise ConfigError(f"{name}: which sign separates thousands", got=got, next_step="Say which with --thousands.")
    return Notation(decimal, next(iter(thousands), ""), known.missing)


def _looks_like_a_number(text: str) -> bool:
    shown = text.replace(",", "").replace(".", "")
    for sign in (" ", "'", "\u2019", "\u00a0", "\u202f"):
        shown = shown.replace(sign, "") if _GROUPS.fullmatch(text) else shown
    try:
        float(shown)
    except ValueError:
        return False
    return "_" not in text
