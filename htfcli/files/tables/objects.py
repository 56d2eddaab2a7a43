"""Tables whose cells are Python objects: those of spreadsheets and of JSON Lines."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from htfcli.errors import DataError
from htfcli.files.tables.numbers import Floats, NotANumberError, Notation
from htfcli.files.tables.table_file import SAMPLE

if TYPE_CHECKING:
    import pandas as pd

Row = Sequence[Any]


def sample_of(rows: Sequence[Row], width: int, notation: Notation) -> pd.DataFrame:
    """The first rows, as `TableFile.sample` returns them."""
    import pandas as pd

    found: dict[int, Any] = {}
    for at in range(width):
        cells = [row[at] for row in rows[:SAMPLE]]
        try:
            found[at] = numbers_of(cells, notation)
        except NotANumberError:
            found[at] = pd.Series([None if cell is None or cell == "" else str(cell) for cell in cells], dtype=object)
    return pd.DataFrame(found)


def frame_of(
    rows: Sequence[Row],
    labels: Sequence[int],
    numbers: Sequence[int],
    notation: Notation,
    name: str,
    line_of: Callable[[int], int],
) -> pd.DataFrame:
    """Columns of labels and of numbers, as `TableFile.read` returns them.

    Args:
        rows: of cells. labels, numbers: places of columns. notation: of numbers that are text. name: for messages.
        line_of: the line of a row.
    Raises:
        DataError: for a value that is not a finite number, with its line.
    """
    import pandas as pd

    if not rows:
        raise DataError(f"{name} has no entries")
    found: dict[int, Any] = {at: _labels([row[at] for row in rows], notation) for at in labels}
    for at in numbers:
        try:
            found[at] = numbers_of([row[at] for row in rows], notation)
        except NotANumberError as error:
            raise DataError(f"{name} line {line_of(error.row)} {error.problem}") from None
    return pd.DataFrame(found)


def numbers_of(cells: Sequence[Any], notation: Notation) -> Floats:
    """Cells (n,) as numbers, NaN where there is none.

    Raises:
        NotANumberError: for the first one that is neither a number nor missing.
    """
    found = np.empty(len(cells))
    for row, cell in enumerate(cells):
        if cell is None:
            found[row] = math.nan
        elif isinstance(cell, bool | int | float):
            try:
                found[row] = float(cell)
            except OverflowError:
                found[row] = math.inf
            if math.isinf(found[row]):
                raise NotANumberError(row, f"has no finite value (got {str(cell)[:40]})")
        else:
            try:
                found[row] = notation.values([str(cell)])[0]
            except NotANumberError as error:
                raise NotANumberError(row, error.problem) from None
    return found


def _labels(cells: Sequence[Any], notation: Notation) -> Any:
    """Labels in their types if all cells have one type, else as text."""
    import pandas as pd

    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds <= {int, float} or kinds <= {bool} or kinds <= {datetime.datetime}:
        return pd.Series(list(cells))
    texts = ["" if cell is None else str(cell).strip() for cell in cells]
    return pd.Series(texts).astype("category")
