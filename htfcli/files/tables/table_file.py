"""Files of tables: what is read from one of any format, and what is written back into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from htfcli.files.foreign.column_layout import Head
from htfcli.files.tables.numbers import Floats

if TYPE_CHECKING:
    import pandas as pd

Integers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Booleans = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
SAMPLE = 1000  # rows from which the columns are understood
BLOCK = 2**16  # rows filled in at a time: a few MiB of Python objects


@dataclass(frozen=True)
class Rows:
    """Rows that are filled in, or added.

    Args:
        replaced: (rows, values) which cells get a value. values: (rows, values). beside: (rows, columns) further
            numbers, NaN where there is none.
    """

    replaced: Booleans
    values: Floats
    beside: Floats


@dataclass(frozen=True)
class Added(Rows):
    """Rows that are added.

    Args:
        index: (rows, labels) numbers of their labels.
    """

    index: Integers


@dataclass(frozen=True)
class Filled:
    """Changes to a table.

    Args:
        labels_at: columns of labels. values_at: columns of values; none if there is no value yet.
        value_name: of the column that is added then. fill: rows start..stop as they become; it is called block by
            block. added: rows added at the end; their other columns are empty. like: for each column of labels, a row
            that has the label of each number. beside: names of columns of further numbers that are added at the end.
        own_type: whether values have the type of their column.
    """

    labels_at: Sequence[int]
    values_at: Sequence[int]
    value_name: str
    fill: Callable[[int, int], Rows]
    added: Iterator[Added]
    like: Sequence[Integers] = ()
    beside: tuple[str, ...] = ()
    own_type: bool = True


class TableFile(Protocol):
    """A table in a file, whose columns are numbered from 0.

    Attributes:
        name: for messages. suffix: of its format. head: its columns.
    """

    @property
    def name(self) -> str: ...

    @property
    def suffix(self) -> str: ...

    @property
    def head(self) -> Head: ...

    def remark(self) -> str:
        """How it was read, where that is not as one expects."""

    def sample(self) -> pd.DataFrame:
        """The first `SAMPLE` rows: text as it stands, or values of the types that the file has."""

    def read(self, labels: Sequence[int], numbers: Sequence[int]) -> pd.DataFrame:
        """The columns at these places, as categories and as float64.

        Raises:
            DataError: for a row of the wrong length, or a value that is not a finite number, with its line.
        """

    def line_of(self, row: int) -> int:
        """The line on which a row ends, counted from 1."""

    def write(self, destination: str, new: Filled) -> None:
        """Write the table with changes to a file, whole or not at all, or to stdout for `-`."""


def format_of(path: Path) -> str:
    """The suffix that determines the format of a file, with that before .gz."""
    return ("".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix).lower()
