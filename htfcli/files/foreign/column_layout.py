"""Which columns of a table are modes and which are values: one row per entry, or one column per index.

Everything here looks at the first rows only, as `TableFile.sample` returns them: columns of numbers are float64.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from htfcli.config.tables import TableConfig
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.files.own.axes import as_number
from htfcli.files.own.dates import as_days

if TYPE_CHECKING:
    import pandas as pd

FEW = 9  # rows up to which a column may differ in each of them by chance
_UNNAMED = re.compile(r"(|Unnamed: \d+|__index_level_\d+__)")  # columns in which pandas saved the index of a frame
_NUMBERED = re.compile(r"(.*?[^\d])(\d+)")
_SHOWN = 20  # names in a message


@dataclass(frozen=True)
class Head:
    """The columns of a table.

    Args:
        names: of all columns. named: whether the file names them; otherwise they are numbered.
        padding: columns at the end that have neither a name nor a value, as where every line ends in a comma.
        extra: columns that the rows have before those that are named, as where row names are written without a name.
    """

    names: list[str]
    named: bool
    padding: int = 0
    extra: int = 0

    @classmethod
    def numbered(cls, count: int) -> Head:
        return cls([str(number) for number in range(count)], named=False)

    @property
    def used(self) -> range:
        """The positions of the columns that are no padding."""
        return range(len(self.names) - self.padding)


@dataclass(frozen=True)
class ColumnLayout:
    """The columns of a table by what they are.

    Args:
        labels_at: columns of labels, a mode each. values_at: columns of values; one, or those of the last mode.
        across: name of the mode that runs over the columns of values; empty for one row per entry.
        remarks: what was decided, for the user. chosen: whether the columns of labels are named by the user.
        std_at: the column of standard deviations, if any.
    """

    labels_at: tuple[int, ...]
    values_at: tuple[int, ...]
    across: str = ""
    remarks: tuple[str, ...] = ()
    chosen: bool = False
    std_at: int | None = None


@dataclass(frozen=True)
class Profile:
    """A column in the first rows: whether it holds numbers only, fractions among them, gaps; how many differ."""

    numeric: bool
    fractions: bool
    gaps: bool
    distinct: int
    rows: int
    low: float
    high: float

    @property
    def unique(self) -> bool:
        """Whether every row has another entry."""
        return self.distinct == self.rows and not self.gaps

    @property
    def measured(self) -> bool:
        """Whether it looks like measurements, not like labels that come again."""
        return self.numeric and (self.fractions and 2 * self.distinct > self.rows)


def choose_columns(
    sample: pd.DataFrame, head: Head, name: str, config: TableConfig, *, fixed: bool = False, together: bool = False
) -> ColumnLayout:
    """Decide which columns are modes and which are values.

    Args:
        sample: the first rows. head: the columns. name: of the table, for messages. config: what is said about it.
        fixed: whether the last column is the value and all others are modes, as in .tns and where dimensions are given.
        together: complete columns of measurements together, as variables, where the command line suggests it, and take
            a table that can be wide for it.
    Raises:
        ConfigError: if a named column does not exist, or it cannot be decided. DataError: if there are too few columns.
    """
    return _Choice(sample, head, name, config, fixed, together).layout()


class _Choice:
    def __init__(
        self, sample: pd.DataFrame, head: Head, name: str, config: TableConfig, fixed: bool, together: bool
    ) -> None:
        self.head, self.name, self.config, self.fixed, self.together = head, name, config, fixed, together
        std = getattr(config, "std", None)
        self.std_at = None if std is None else position(name, head, std)
        self.others = [at for at in head.used if at != self.std_at]
        self.profiles = {at: profile(sample[at]) for at in self.others}
        self.index = None if config.index is None else [position(name, head, column) for column in config.index]

    def layout(self) -> ColumnLayout:
        if len(self.others) < 2:
            raise self._too_few()
        if self.config.variables is not None:
            values = [position(self.name, self.head, column) for column in self.config.variables]
            return self._across(values, "variable", [])
        if self.config.value is None and not self.fixed and self.config.wide is not False:
            values = self._columns_of_values()
            if values:
                return self._across(values, "column", [self._said_wide(values)])
        return self._long()

    # --- one column per index -----------------------------------------------------------------------------------------

    def _columns_of_values(self) -> list[int]:
        """The columns of a wide table; none if it has one row per entry."""
        free = [at for at in self.others if at not in (self.index or [])]
        numeric = [at for at in free if self.profiles[at].numeric]
        if self.config.wide or (self.index is not None and len(self.index) == 1):
            found = self._without_rows(numeric) if self.index is None else numeric
            if len(found) < 2:
                raise DataError(
                    f"{self.name} has too few columns of numbers for a wide table", got=len(found), allowed="2 or more"
                )
            return found
        named = [at for at in numeric if _is_index(self.head.names[at])] if self.head.named else []
        if len(named) > 1:
            return named
        numbered = self._numbered(numeric) if self.head.named else []
        if numbered:
            return numbered
        return [] if self.index is not None else self._unlabelled(numeric)

    def _numbered(self, numeric: Sequence[int]) -> list[int]:
        """Columns with names as item1, item2, ..., of which the last column is one."""
        matches = {at: match for at in numeric if (match := _NUMBERED.fullmatch(self.head.names[at]))}
        if not numeric or numeric[-1] not in matches:
            return []
        stem = matches[numeric[-1]][1]
        found = [at for at, match in matches.items() if match[1] == stem]
        return found if len(found) > 2 else []

    def _unlabelled(self, numeric: list[int]) -> list[int]:
        """Columns of values whose names say nothing, where one row per entry makes no sense."""
        texts = [at for at in self.others if at not in numeric]
        values = self._without_rows(numeric)
        keys = [at for at in self.others if at not in values]
        if len(values) < 2 or len(keys) > 1 or len(self.others) < 3:
            return []
        if keys and not self.profiles[keys[0]].unique:
            return []
        profiles = [self.profiles[at] for at in values]
        gaps = any(one.gaps for one in profiles[:-1])
        if profiles[0].rows > 2 and (all(one.measured for one in profiles) or gaps):
            return values
        alike = all(
            not one.fractions and one.low <= profiles[0].high and one.high >= profiles[0].low for one in profiles
        )
        if not texts or not self.profiles[texts[0]].unique or not alike:
            return []
        if self.together:
            return values
        if profiles[0].rows > FEW:
            raise ConfigError(
                f"{self.name}: one row per entry, or one column per index?",
                got=f"columns {self._listed(self.others)}",
                next_step="Say which with --long or --wide.",
            )
        return []

    def _without_rows(self, numeric: list[int]) -> list[int]:
        """Columns of numbers without one that numbers the rows or says when they were measured."""
        texts = [at for at in self.others if at not in numeric]
        if numeric and not texts:
            first = self.profiles[numeric[0]]
            if first.unique and not first.fractions and self.head.named and numeric[0] == self.others[0]:
                return numeric[1:]
        return [at for at in numeric if not self._is_row_number(at)]

    def _across(self, values: Sequence[int], across: str, remarks: list[str]) -> ColumnLayout:
        labels = [at for at in self.others if at not in values]
        if self.index is None:
            labels, dropped = self._without_extra(labels, least=1)
            remarks = remarks + dropped
        else:
            labels = [at for at in self.index if at not in values]
        while across in (self.head.names[at] for at in labels):
            across += "_"
        if len(values) < 2 or (not labels and across == "variable"):
            raise DataError(
                f"{self.name} has too few columns", got=len(self.others), allowed="2 columns of values and labels"
            )
        return ColumnLayout(tuple(labels), tuple(values), across, tuple(remarks), self.index is not None, self.std_at)

    def _said_wide(self, values: Sequence[int]) -> str:
        advice = "" if self.config.wide else " (--long if not)"
        return f"a wide table, with {len(values)} columns of values: {self._listed(values)}{advice}"

    # --- one row per entry --------------------------------------------------------------------------------------------

    def _long(self) -> ColumnLayout:
        config, remarks = self.config, list[str]()
        value = position(self.name, self.head, config.value) if config.value is not None else None
        if value is None:
            value = self.others[-1] if self.others else 0
        labels = [at for at in self.others if at != value]
        if self.index is not None:
            labels = self.index
            if value in labels:
                raise ConfigError(
                    "the last column is a mode, so it does not contain the values",
                    next_step="Name their column with --value.",
                )
        elif not self.fixed:
            labels, remarks = self._without_extra(labels, least=2)
            others = [at for at in self.others if at not in (*labels, value) and not self._is_row_number(at)]
            if others and self.head.named:
                together = sorted([*others, value])
                if self.together:
                    return self._across(together, "variable", [])
                names = ",".join(self.head.names[at] for at in together)
                remarks.append(
                    f"column {self.head.names[value]} is completed; --variables {names} completes these together"
                )
        if len(labels) < 2 and self.together:
            values = [at for at in self.others if self.profiles[at].numeric]
            if len(values) > 1:
                return self._across(values, "column", [])
        elif len(labels) < 2:
            raise self._too_few()
        return ColumnLayout(
            tuple(labels), (value,), "", tuple(remarks), self.index is not None or self.fixed, self.std_at
        )

    def _too_few(self) -> DataError:
        got, hint = len(self.head.used), ""
        if got == 1:
            hint = "What separates the fields? --delimiter."
        elif self.std_at is None and sum(one.numeric for one in self.profiles.values()) > 1:
            hint = "Is it one column per index? --wide."
        allowed = "2 indices or more and a value" + ("" if self.std_at is None else ", beside its standard deviation")
        return DataError(f"{self.name} has too few columns", got=got, allowed=allowed, next_step=hint)

    def _without_extra(self, labels: Sequence[int], least: int) -> tuple[list[int], list[str]]:
        """Columns of labels without row numbers and measurements, and remarks on these."""
        kept, remarks = list(labels), []
        for at in labels:
            if len(kept) > least and self._is_row_number(at):
                kept.remove(at)
                shown = self.head.names[at] or "without a name"
                remarks.append(f"column {shown} numbers the rows and is left out")
        for at in labels:
            one = self.profiles[at]
            gaps = one.numeric and one.gaps and (one.fractions or self.together)
            if at in kept and len(kept) > least and (gaps or (one.rows > FEW and one.measured)):
                kept.remove(at)
                remarks.append(f"column {self.head.names[at]} holds measurements and is no mode; --index decides")
        return kept, remarks

    def _is_row_number(self, at: int) -> bool:
        one = self.profiles[at]
        return (
            self.head.named
            and bool(_UNNAMED.fullmatch(self.head.names[at]))
            and one.numeric
            and one.unique
            and not one.fractions
        )

    def _listed(self, places: Sequence[int]) -> str:
        names = [self.head.names[at] for at in places]
        return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])}, ..., {names[-1]}"


def profile(column: pd.Series) -> Profile:
    """What a column looks like in the first rows."""
    rows = len(column)
    if column.dtype == "float64":
        known = column.dropna()
        fractions = bool((known % 1 != 0).any())
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
        return Profile(True, fractions, len(known) < rows, int(known.nunique()), rows, low, high)
    return Profile(False, False, bool(column.isna().any()), int(column.nunique()), rows, 0.0, 0.0)


def position(name: str, head: Head, column: str) -> int:
    """The place of the column of this name.

    Raises:
        ConfigError: if there is none.
    """
    names = [head.names[at] for at in head.used]
    if column in names:
        return names.index(column)
    guess = did_you_mean(column, names)
    raise ConfigError(f"{name} has no such column", got=column, allowed=some(names, len(names)), next_step=guess)


def some(names: Sequence[str], count: int) -> str:
    """The first names, and the number of all if there are more."""
    shown = ", ".join(names[:_SHOWN])
    return shown if count <= len(names[:_SHOWN]) else f"{shown}, ... ({count} in all)"


def _is_index(name: str) -> bool:
    return as_number(name) is not None or (bool(name) and as_days([name]) is not None)
