"""Numbers as people write them: decimal commas, thousands, and the spellings of a missing value."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from htfcli.errors import DataError
from htfcli.files.own.axes import as_number

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

# in lower case; the last ones are what Windows and spreadsheets print for NaN
MISSING = frozenset(
    {"", "na", "n/a", "nan", "-nan", "null", "none", "<na>", "-", ".", "#n/a", "#na"}
    | {"-1.#ind", "1.#ind", "1.#qnan", "-1.#qnan", "#n/a n/a"}
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?\d{1,3}(_\d{3})+(\.\d*)?([eE][+-]?\d+)?")  # with `_` for the sign between thousands


@dataclass(frozen=True)
class Notation:
    """How numbers are written.

    Args:
        decimal: `.` or `,`. thousands: the sign between groups of three digits, empty for none.
        missing: further spellings of a missing value, in lower case.
    """

    decimal: str = "."
    thousands: str = ""
    missing: frozenset[str] = frozenset()

    @property
    def plain(self) -> bool:
        """Whether numbers are written as in Python."""
        return self.decimal == "." and not self.thousands

    def is_missing(self, text: str) -> bool:
        """Whether a field says that there is no value."""
        lowered = text.strip().lower()
        return lowered in MISSING or lowered in self.missing

    def standard(self, text: str) -> str:
        """A number in Python's notation; any other text as it is."""
        if self.plain:
            return text
        stripped = text.strip()
        if self.thousands and self.thousands in stripped:
            marked = stripped.replace(self.thousands, "_").replace(self.decimal, ".")
            return marked.replace("_", "") if _GROUPED.fullmatch(marked) else text
        if self.decimal == "." or "." in stripped:
            return text
        changed = stripped.replace(self.decimal, ".")
        return changed if _NUMBER.fullmatch(changed) else text

    def number(self, text: str) -> float | int | None:
        """The number in a field, None if it is something else."""
        stripped = text.strip()
        if not stripped.isascii() and not self.standard(stripped).isascii():
            return None  # Python would read digits of any script
        if self.decimal == "," and "." in stripped and self.thousands != ".":
            return None  # 1.5 where commas are decimal: two notations in one file
        return as_number(self.standard(stripped))

    def text(self, value: float) -> str:
        """A number in this notation, exactly."""
        shown = repr(float(value))
        return shown if self.decimal == "." else shown.replace(".", self.decimal)

    def values(self, fields: Sequence[str], where: Collection[str] = ()) -> Floats:
        """The numbers (n,) in fields, NaN where there is none.

        Raises:
            NotANumberError: for the first field that is neither a finite number nor missing.
        """
        if self.plain:
            try:
                joined = "".join(fields)
                if "_" not in joined and joined.isascii():  # float reads digits of any script
                    found: Floats = np.fromiter(map(float, fields), np.float64, len(fields))
                    # an infinity may be a number beyond the range of doubles, which is reported with its text
                    if not np.isinf(found).any() and not self.missing:
                        return found
            except ValueError:
                pass
        return np.array([self._value(field, row) for row, field in enumerate(fields)])

    def _value(self, field: str, row: int) -> float:
        if self.is_missing(field):
            return math.nan
        text = field.partition("#")[0].strip()  # a comment may follow
        if text.lower() in MISSING:
            return math.nan
        number = self.number(text)
        if number is None:
            raise NotANumberError(row, f"has a value that is not a number (got {text[:40]!r})")
        try:
            value = float(number)
        except OverflowError:  # integers can exceed the range of doubles
            value = math.inf
        if not math.isfinite(value):
            raise NotANumberError(row, f"has no finite value (got {text[:40]})")
        return value


class NotANumberError(DataError):
    """A field that should be a number and is not.

    Args:
        row: its place among the fields. problem: what is wrong with it.
    """

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(problem)
        self.row, self.problem = row, problem
