"""Which columns of a pandas DataFrame are modes and which contain values.

A *long* frame has one row per entry and one column of values. In a *wide* frame the columns of values are the indices
of a further mode (years, items, sensors, variables); it has one row per entity, or per combination of several modes.
Levels of the index that have a name, or labels other than row numbers, are modes as columns are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from htfcli.config.tables import TableConfig
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.files.foreign.column_layout import Head, choose_columns
from htfcli.files.own.axes import as_number
from htfcli.files.own.dates import as_days

if TYPE_CHECKING:
    import pandas as pd

_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")  # kinds of objects that are values
_SAMPLE = 1000  # rows from which the layout is found
_SHOWN = 6  # names listed in a message


@dataclass(frozen=True)
class Layout:
    """Parts of a data frame.

    Args:
        levels: of the index, and columns: positions of columns, that are modes. values: positions of those with values.
        wide: whether the columns of values are the indices of further modes, one for each level of their names.
        variables: whether these are different quantities. std: position of the column of standard deviations.
        remarks: what was found out and may be a mistake.
    """

    levels: tuple[int, ...]
    columns: tuple[int, ...]
    values: tuple[int, ...]
    wide: bool
    variables: bool = False
    std: int | None = None
    remarks: tuple[str, ...] = ()


def find_layout(
    frame: pd.DataFrame,
    name: str,
    *,
    modes: Sequence[Any] | None = None,
    value: Any = None,
    std: Any = None,
    wide: bool | None = None,
) -> Layout:
    """The layout that was asked for, completed from the types and the labels of the columns.

    Args:
        frame: the data. name: what to call them in messages. modes: names of columns, or of levels of the index, that
            are modes. value: name of the column of values, or a list of several. std: name of a column.
            wide: whether columns are indices of a mode; None to find out.
    Raises:
        ConfigError: if there is no such column. DataError: if there are no values, or fewer than two modes.
    """
    return _Finding(frame, name, modes, value, std, wide).layout()


class _Finding:
    def __init__(
        self, frame: pd.DataFrame, name: str, modes: Sequence[Any] | None, value: Any, std: Any, wide: bool | None
    ) -> None:
        self._frame, self._name, self._modes, self._wide = frame, name, modes, wide
        self._names: list[Any] = list(frame.columns)
        levels = [] if _row_numbers(frame.index) else list(range(frame.index.nlevels))
        self._levels = [k for k in levels if frame.index.names[k] is None or frame.index.names[k] not in self._names]
        self._std = None if std is None else self._column(std)
        several = isinstance(value, list) or (isinstance(value, tuple) and value not in self._names)
        self._values = None if value is None else [self._column(v) for v in (value if several else [value])]
        self._remarks: list[str] = []

    def layout(self) -> Layout:
        levels, columns = (None, None) if self._modes is None else self._asked_modes(self._modes)
        free = [at for at in range(len(self._names)) if at != self._std]
        if columns is not None and levels is not None:
            values = self._values or [at for at in free if at not in columns and _is_numeric(self._frame.iloc[:, at])]
        elif self._values is not None:
            values = self._values
            levels, columns = self._levels, self._telling([at for at in free if at not in values], len(self._levels))
        else:
            levels, columns, values = self._found(free)
        wide = self._wide if self._wide is not None else len(values) > 1 or self._frame.columns.nlevels > 1
        if not wide and len(values) > 1:
            values = values[-1:]
        self._refuse(levels, columns, values, wide)
        if wide and self._wide is None and self._values is None and not all(map(self._is_header, values)):
            shown = ", ".join(str(self._names[at]) for at in values[:_SHOWN]) + (
                ", ..." if len(values) > _SHOWN else ""
            )
            self._remarks.append(f"columns {shown} are read as the indices of a mode; name the value column if not")
        rows = len(levels) + len(columns)
        variables = wide and (self._values is not None or (rows > 1 and not all(map(self._is_header, values))))
        remarks = tuple(self._remarks)
        return Layout(tuple(levels), tuple(columns), tuple(values), wide, variables, self._std, remarks)

    def _refuse(self, levels: Sequence[int], columns: Sequence[int], values: Sequence[int], wide: bool) -> None:
        if not values:
            got = ", ".join(map(str, self._names[:_SHOWN])) or "no column"
            raise DataError(f"{self._name} has no column of numbers", got=got, next_step="Name it with value.")
        rows = len(levels) + len(columns)
        if not wide and rows < 2:
            got, allowed = f"{rows} beside the values in {self._names[values[0]]}", "2 or more"
            raise DataError(f"{self._name} has too few modes", got=got, allowed=allowed)
        if wide and len(values) < 2 and rows < 2:
            raise DataError(f"{self._name} has too few columns", got=len(values), allowed="2 or more columns of values")

    def _asked_modes(self, modes: Sequence[Any]) -> tuple[list[int], list[int]]:
        own = list(self._frame.index.names)
        levels = [own.index(mode) for mode in modes if mode not in self._names and mode in own]
        columns = [self._column(mode) for mode in modes if mode in self._names or mode not in own]
        if wrong := [at for at in columns if at == self._std or (self._values and at in self._values)]:
            raise ConfigError("a column can be one mode, the value or its error", got=f"{self._names[wrong[0]]} twice")
        return levels, columns

    def _found(self, free: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
        """Levels, columns and values where nothing was said of them."""
        frame = self._frame
        numbers = [at for at in free if _is_numeric(frame.iloc[:, at])]
        if free and free[-1] not in numbers:
            self._refuse_numbers_as_text(free[-1])
            last = frame.iloc[:, free[-1]]
            if _is_bool(last) and (not numbers or bool(last.isna().any())):  # labels are in every row
                numbers.append(free[-1])
        labels = [at for at in free if at not in numbers]
        if self._wide is False:
            return self._levels, self._telling([at for at in free if at not in numbers[-1:]], 0), numbers[-1:]
        if frame.columns.nlevels > 1 or self._wide:
            return self._levels, self._entities(labels), numbers
        if len(free) + len(self._levels) < 3:
            return self._levels, self._entities(labels), numbers
        return self._chosen(free)

    def _chosen(self, free: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
        """Levels, columns and values as the command line finds them."""
        import pandas as pd

        frame = self._frame.iloc[:_SAMPLE]
        parts = [frame.index.get_level_values(k).to_series() for k in self._levels]
        parts += [frame.iloc[:, at] for at in free]
        names = ["" if k is None else str(k) for k in (frame.index.names[k] for k in self._levels)]
        names += [str(self._names[at]) for at in free]
        sample = pd.DataFrame({at: _sampled(part) for at, part in enumerate(parts)})
        found = choose_columns(sample, Head(names, True), self._name, TableConfig(), together=True)
        count = len(self._levels)
        columns = [free[at - count] for at in found.labels_at if at >= count]
        values = [free[at - count] for at in found.values_at]
        if any(pd.isna(self._names[at]) for at in columns if not isinstance(self._names[at], tuple)):
            raise DataError(f"{self._name} has a column without a name", next_step="Name it, or leave it out.")
        if found.across:
            others = [at for at in free if at not in values]
            return self._levels, self._entities(columns) if len(columns) == len(others) else columns, values
        return self._levels, self._telling(columns, count), values

    def _refuse_numbers_as_text(self, at: int) -> None:
        """Raise DataError for a last column that cannot be labels, but text that should be values."""
        texts = self._frame.iloc[:, at].dropna()
        if len(texts) == 0 or not all(isinstance(text, str) and as_number(text) is not None for text in texts):
            return
        if len(texts) < len(self._frame) or not all(isinstance(as_number(text), int) for text in texts):
            got = repr(texts.iloc[0])
            advice = "Convert it: pandas.to_numeric(frame[column])."
            raise DataError(
                f"{self._name}: column {self._names[at]} has numbers that are text", got=got, next_step=advice
            )

    def _entities(self, candidates: Sequence[int]) -> list[int]:
        """The columns that say which entity a row is about: the first ones that no two rows agree in."""
        if self._levels and self._identify([], self._levels):
            return []
        for count in range(1, len(candidates) + 1):
            if self._identify(candidates[:count], self._levels):
                return (
                    [candidates[count - 1]] if self._identify(candidates[count - 1 : count]) else [*candidates[:count]]
                )
        return list(candidates)

    def _telling(self, candidates: Sequence[int], others: int) -> list[int]:
        """The columns without those that number the rows or comment on them, and without second names of another."""
        frame, found = self._frame, list[int]()
        rows = len(frame)
        unique = {at: frame.iloc[:, at].nunique() for at in candidates}
        for at in candidates:
            if unique[at] == rows > 9 and len(candidates) + others > 2:
                self._remarks.append(f"column {self._names[at]} has a different value in every row and is left out")
            elif twin := [b for b in found if unique[b] == unique[at] > 1 and self._same(at, b, unique[at])]:
                text = f"column {self._names[at]} names the same as {self._names[twin[0]]} and is left out"
                self._remarks.append(text)
            else:
                found.append(at)
        if len(found) + others >= 2:
            return found
        self._remarks.clear()
        return list(candidates)

    def _same(self, one: int, other: int, count: int) -> bool:
        return count < len(self._frame) and len(self._frame.iloc[:, [one, other]].drop_duplicates()) == count

    def _identify(self, columns: Sequence[int], levels: Sequence[int] = ()) -> bool:
        """Whether no two rows agree in these columns and levels."""
        frame = self._frame.iloc[:, list(columns)]
        if levels:
            frame = frame.set_axis([f"column {n}" for n in range(len(columns))], axis=1)
            for level in levels:
                frame = frame.assign(**{f"level {level}": self._frame.index.get_level_values(level)})
        return frame.shape[1] > 0 and not bool(frame.duplicated().any())

    def _is_header(self, at: int) -> bool:
        """Whether a column is named by a number or a date, as those of a table with one column per year."""
        label = self._names[at]
        return isinstance(label, int | float) or as_number(str(label)) is not None or as_days([str(label)]) is not None

    def _column(self, column: Any) -> int:
        if column in self._names:
            return self._names.index(column)
        names = list(map(str, self._names))
        shown = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
        guess = did_you_mean(str(column), names)
        raise ConfigError(f"{self._name} has no such column", got=column, allowed=shown, next_step=guess)


def _row_numbers(index: pd.Index[Any]) -> bool:
    """Whether an index is none: row numbers, perhaps of rows that were picked from more."""
    import pandas as pd

    return index.nlevels == 1 and index.name is None and pd.api.types.is_integer_dtype(index.dtype)


def _is_bool(column: pd.Series[Any]) -> bool:
    import pandas as pd

    return pd.api.types.is_bool_dtype(column.dtype)


def _is_numeric(column: pd.Series[Any]) -> bool:
    import pandas as pd

    if column.dtype == object:
        return pd.api.types.infer_dtype(column, skipna=True) in _NUMBERS
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def _sampled(column: pd.Series[Any]) -> Any:
    """A column as `choose_columns` looks at it: numbers as float64, anything else as text."""
    import pandas as pd

    if _is_numeric(column):
        return pd.to_numeric(column.astype(object), errors="coerce").to_numpy(dtype=float)
    return [None if absent else str(cell) for cell, absent in zip(column, column.isna(), strict=True)]
