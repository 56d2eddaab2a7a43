"""Axes: the name of a mode and the labels of its indices, as in the columns of a table."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from htfcli.files.own.dates import as_days

Number = int | float
_is_code = re.compile(r"[+-]?0\d").match  # a number with a leading zero


@dataclass(frozen=True)
class Axis:
    """One mode of a tensor.

    Args:
        name: its column, or its number where columns have no names. size: its dimension.
        labels: of its indices, in order; None if they are numbers, counted from `first`.
    """

    name: str
    size: int
    labels: tuple[str, ...] | None = None
    first: int = 0

    def label(self, index: int) -> str:
        """The label of an index."""
        return str(index + self.first) if self.labels is None else self.labels[index]

    def find(self, label: str) -> int | None:
        """The index of a label, None if there is none; numbers are compared by value, `1.0` with `1`.

        Where a label has a leading zero, as codes have, they are compared as text.
        """
        number = as_number(label)
        if self.labels is None:
            whole = number is not None and (isinstance(number, int) or number.is_integer())
            index = int(number) - self.first if whole and number is not None else -1
            return index if 0 <= index < self.size else None
        by_value = self._numbers is not None and number is not None and not any(map(_is_code, self.labels))
        return self._index_of.get(number if by_value and number is not None else composed(label))

    def positions(self) -> list[float] | None:
        """Rising positions of the indices where the labels are numbers, or dates (in days); None for any other text."""
        if self.labels is None:
            return [float(index + self.first) for index in range(self.size)]
        try:
            found = as_days(self.labels) if self._numbers is None else list(map(float, self._numbers))
        except OverflowError:  # whole numbers have no bound, doubles do
            return None
        rising = found is not None and all(a < b for a, b in pairwise(found)) and all(map(math.isfinite, found))
        return found if rising else None

    @cached_property
    def _numbers(self) -> list[Number] | None:
        """The labels as numbers, None unless all are numbers, and different ones."""
        numbers = _as_numbers(self.labels or ())
        return numbers if numbers is not None and len(set(numbers)) == len(numbers) else None

    @cached_property
    def _index_of(self) -> dict[str | Number, int]:
        found: dict[str | Number, int] = {composed(label): at for at, label in enumerate(self.labels or ())}
        return found | {number: at for at, number in enumerate(self._numbers or ())}

    def place(self, index: int) -> str:
        """An index in words, for messages."""
        if self.labels is None and self.name.isdigit():
            return f"mode {self.name}, index {self.label(index)}"
        return f"column {self.name}, value '{self.label(index)}'"


def axis_of(name: str, labels: Sequence[str], as_met: bool = False) -> tuple[Axis, list[int]]:
    """The axis that has the given labels, and the index of each.

    Numbers stand in numeric order, equal ones (`1` and `1.0`) are one index unless they differ by leading zeros (`01`
    and `1`), which makes them text; dates stand in the order of time, any other text in alphabetical order. Text is one
    index whether its accents are composed or not.

    Args:
        name: of the column. labels: as they were met, none twice. as_met: leave other text in this order.
    """
    numbers = _as_numbers(labels)
    coded = numbers is not None and any(map(_is_code, labels))
    if coded and numbers is not None and len(set(numbers)) < len(labels):
        numbers = None
    value = dict(zip(labels, numbers, strict=True)) if numbers is not None else {}
    keys: Sequence[str | Number] = numbers if numbers is not None and not coded else list(map(composed, labels))
    text: dict[str | Number, str] = {}
    for key, label in zip(keys, labels, strict=True):
        text.setdefault(key, label)
    days = as_days(labels) if numbers is None else None
    if days is not None:
        place = dict(zip(reversed(keys), reversed(days), strict=True))
        ordered: list[str | Number] = sorted(text, key=lambda key: (place[key], text[key]))
    elif numbers is not None:
        ordered = sorted(text, key=lambda key: value[text[key]])
    else:
        ordered = list(text) if as_met else sorted(text)
    position = {key: index for index, key in enumerate(ordered)}
    plain = all(text[key] == str(index) for index, key in enumerate(ordered))
    axis = Axis(name, len(ordered), None if plain else tuple(text[key] for key in ordered))
    return axis, [position[key] for key in keys]


def label_remark(axis: Axis, labels: Sequence[str]) -> str | None:
    """A remark on labels that are written differently and taken for one, or differ by leading zeros and are not.

    Args:
        axis: what `axis_of` made of the labels.
    """
    first: dict[str | Number | None, str] = {}
    for label in labels:
        number = as_number(label)
        key = composed(label) if number is None else number
        other = first.setdefault(key, label)
        if other == label:
            continue
        if axis.find(other) == axis.find(label):
            return f"column {axis.name}: {other!r} and {label!r} are taken for one label, as others that differ so"
        return f"column {axis.name}: {other!r} and {label!r} are taken for two labels, as codes with leading zeros are"
    return None


def composed(label: str) -> str:
    """The label with accents in one notation (NFC), so that it is found however they were typed."""
    return label if label.isascii() else unicodedata.normalize("NFC", label)


def plain_axes(dims: Sequence[int], first: int = 0) -> tuple[Axis, ...]:
    """Axes without names and labels, whose indices are counted from `first`."""
    return tuple(Axis(str(mode), size, None, first) for mode, size in enumerate(dims))


def as_number(text: str) -> Number | None:
    """The number in a text, integers of any length exactly; None if it is not a number, as is Python's `1_000`."""
    if "_" in text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None


def _as_numbers(labels: Sequence[str]) -> list[Number] | None:
    numbers = [number for label in labels if (number := as_number(label)) is not None]
    return numbers if len(numbers) == len(labels) else None
