"""Labels of a column or index of a pandas DataFrame as a mode of a tensor, and labels back as they were."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from htfcli.errors import DataError
from htfcli.files.own.axes import Axis, axis_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

_DAY = 86_400 * 10**9  # nanoseconds


@dataclass(frozen=True)
class Mode:
    """A mode of labelled data.

    Args:
        axis: its name and its labels as text. labels: the same as they were (a pandas Index of their type), in the
            order of the axis.
        coordinates: rising positions of ordered labels: numbers, days of dates, ranks of ordered categories; None
            where the order means nothing, or nothing is known of it.
        numbered: whether its indices are row numbers that nobody has written down as labels.
    """

    axis: Axis
    labels: Any
    coordinates: tuple[float, ...] | None = None
    numbered: bool = False

    @property
    def unordered(self) -> bool:
        """Whether the order of its labels means nothing."""
        return self.coordinates is None and not self.numbered

    def find(self, labels: Any) -> np.ndarray:
        """Index (n,) int64 of every one of the given labels; -1 for those that the mode does not have.

        Numbers are compared by value, dates and times as moments, anything else as text.
        """
        import pandas as pd

        asked = pd.Index(labels)
        own = self.labels
        if isinstance(own, pd.DatetimeIndex | pd.PeriodIndex | pd.TimedeltaIndex):
            return np.asarray(own.get_indexer(_like(asked, own)), dtype=np.int64)
        number, unique = pd.factorize(np.array(_texts(asked), dtype=object))
        at = [-1 if (found := self.axis.find(text)) is None else found for text in unique]
        return np.asarray(np.array([*at, -1], dtype=np.int64)[number])


class OfModes:
    """What follows from the modes of labelled data; for a frozen dataclass with a field `modes`."""

    modes: tuple[Mode, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(mode.axis for mode in self.modes)

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(mode.axis.size for mode in self.modes)

    def coordinates(self) -> tuple[list[Tensor | None], list[int]]:
        """Per mode rising positions (d,) or None, and the modes whose order means nothing."""
        import torch  # not needed to read labels: a table can be refused without it

        known = [mode.coordinates for mode in self.modes]
        found = [None if places is None else torch.tensor(places, dtype=torch.float64) for places in known]
        return found, [number for number, mode in enumerate(self.modes) if mode.unordered]


def numbered_mode(name: str, index: Any) -> Mode:
    """Rows that have numbers only; `index`: what stands beside them, a pandas Index or a range."""
    return Mode(Axis(name, len(index)), index, numbered=True)


def mode_of(name: str, column: Any, *, as_met: bool = False, where: str = "row") -> tuple[Mode, np.ndarray]:
    """The mode whose labels stand in a column or index, and the index (n,) int64 of every row.

    Numbers, dates and durations stand in their order; ordered categories in theirs; text as in `axes.axis_of`.

    Args:
        name: of the mode. column: a Series or Index. as_met: text labels are in the order of the rows, which means
            something. where: what messages call a row.
    Raises:
        DataError: if a row has no label.
    """
    import pandas as pd

    labels = pd.Index(column)
    if labels.hasnans:
        at = int(np.argmax(np.asarray(labels.isna())))
        what = f"{where} {at} has no label in column {name}"
        raise DataError(what, next_step="Give it one, or leave the row out.")
    number, unique = pd.factorize(labels)
    unique = pd.Index(unique)
    number = np.asarray(number, dtype=np.int64)
    if isinstance(unique.dtype, pd.CategoricalDtype) and unique.dtype.ordered:
        order = np.argsort(np.asarray(pd.Categorical(unique).codes), kind="stable")
        own = unique.take(order)
        ranks = tuple(map(float, pd.Categorical(own).codes))
        return Mode(Axis(name, len(own), tuple(_texts(own))), own, ranks), _inverse(order)[number]
    plain = unique.astype(unique.dtype.categories.dtype) if isinstance(unique.dtype, pd.CategoricalDtype) else unique
    coordinates = _coordinates(plain)
    if coordinates is None:
        return _of_text(name, unique, number, as_met)
    order = np.argsort(coordinates, kind="stable")
    own, places = unique.take(order), coordinates[order].tolist()
    texts = _texts(plain.take(order))
    counted = texts == [str(index) for index in range(len(texts))]
    rising = tuple(places) if all(a < b for a, b in pairwise(places)) else None
    return Mode(Axis(name, len(own), None if counted else tuple(texts)), own, rising), _inverse(order)[number]


def _of_text(name: str, unique: pd.Index[Any], number: np.ndarray, as_met: bool) -> tuple[Mode, np.ndarray]:
    texts = _texts(unique)
    first: dict[str, int] = {}
    for at, text in enumerate(texts):
        first.setdefault(text, at)
    axis, position = axis_of(name, list(first), as_met)
    place = dict(zip(first, position, strict=True))
    at_label = {index: first[text] for text, index in reversed(place.items())}
    own = unique.take([at_label[index] for index in range(axis.size)])
    found = axis.positions()
    if found is None and as_met:
        found = list(map(float, range(axis.size)))
    mode = Mode(axis, own, None if found is None else tuple(found))
    return mode, np.array([place[text] for text in texts], dtype=np.int64)[number]


def _inverse(order: np.ndarray) -> np.ndarray:
    inverse = np.empty(len(order), dtype=np.int64)
    inverse[order] = np.arange(len(order))
    return inverse


def _coordinates(labels: pd.Index[Any]) -> np.ndarray | None:
    """Positions (d,) of numbers, and in days of dates and durations; None for any other labels."""
    import pandas as pd

    if isinstance(labels, pd.PeriodIndex):
        labels = labels.to_timestamp()
    if isinstance(labels, pd.DatetimeIndex):
        return (labels.tz_localize(None) if labels.tz is None else labels.tz_convert("UTC")).as_unit("ns").asi8 / _DAY
    if isinstance(labels, pd.TimedeltaIndex):
        return labels.as_unit("ns").asi8 / _DAY
    if pd.api.types.is_bool_dtype(labels.dtype) or not pd.api.types.is_numeric_dtype(labels.dtype):
        return None
    found = labels.to_numpy(dtype=np.float64)
    return found if bool(np.isfinite(found).all()) else None


def _texts(labels: pd.Index[Any]) -> list[str]:
    """Labels as text, in one normal form: whole numbers without a decimal point, midnights without a time."""
    import pandas as pd

    if isinstance(labels.dtype, pd.CategoricalDtype):
        labels = labels.astype(labels.dtype.categories.dtype)
    if isinstance(labels, pd.DatetimeIndex):
        days = bool((labels == labels.normalize()).all()) and labels.tz is None
        return [moment.date().isoformat() if days else moment.isoformat() for moment in labels]
    if pd.api.types.is_float_dtype(labels.dtype):
        return [str(int(x)) if float(x).is_integer() and abs(x) < 2**53 else repr(float(x)) for x in labels]
    return [unicodedata.normalize("NFC", str(label)).strip() for label in labels]


def _like(asked: Any, own: Any) -> Any:
    """Labels as moments, periods or durations like the own ones; NaT for what is none."""
    import pandas as pd

    if isinstance(own, pd.TimedeltaIndex):
        return pd.to_timedelta(asked, errors="coerce")
    if isinstance(own, pd.PeriodIndex):
        if isinstance(asked, pd.PeriodIndex):
            return asked
        return pd.DatetimeIndex(pd.to_datetime(asked.astype(str), errors="coerce")).to_period(own.freqstr)
    moments = pd.DatetimeIndex(pd.to_datetime(asked, errors="coerce", utc=own.tz is not None))
    return moments.tz_convert(own.tz) if own.tz is not None else moments


def taken(mode: Mode, index: np.ndarray) -> Any:
    """The labels (n,) of indices, in the type they had, as a pandas array."""
    return mode.labels.take(index).array


def names_of(labels: Sequence[Any], default: str) -> list[str]:
    """Names of levels, which may have none."""
    alone = len(labels) == 1
    return [
        (default if alone else f"{default}_{number}") if label is None else str(label)
        for number, label in enumerate(labels)
    ]
