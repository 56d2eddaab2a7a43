"""Numbers of any type of column as float64, and predictions in the type of a column."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from htfcli.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def as_floats(column: pd.Series[Any], name: str) -> np.ndarray:
    """A column as (n,) float64, NaN where nothing is.

    Args:
        column: of any type of number, or objects that are numbers. name: of the data, for messages.
    Raises:
        DataError: for the first cell that is not a number.
    """
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.dtype.categories.dtype)
    numeric = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype)
    if numeric and column.dtype != object:
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    found = np.empty(len(column))
    for row, (cell, absent) in enumerate(zip(column, column.isna(), strict=True)):
        try:
            if isinstance(cell, str):  # that could be read as a number is for readers of text to say
                raise TypeError
            found[row] = np.nan if absent else float(cell)
        except (TypeError, ValueError):
            where = f"{name} row {row}: column {column.name} has a value that is not a number"
            raise DataError(where, got=repr(cell)) from None
    return found


def in_type(column: pd.Series[Any], where: np.ndarray, values: np.ndarray, like: Any = None) -> Any:
    """A column with predictions in some of its cells, in its own type, or that of another column.

    Whole numbers are rounded and held inside their type, truth values are true from 0.5, decimals have the digits of
    their type.

    Args:
        column: the cells. where: (n,) bool, values: (m,) float64 of those that are true. like: the other column.
    Returns: an array of the column's type.
    """
    import pandas as pd

    kind = column if like is None else like
    dtype = kind.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        raise DataError(f"column {kind.name} has categories, which cannot be predicted", next_step="Give numbers.")
    new: Any = _converted(values, kind)
    if where.all():
        return new if isinstance(new, np.ndarray) else pd.array(new, dtype=dtype)
    cells: Any = column.to_numpy(copy=True) if isinstance(dtype, np.dtype) else column.array.copy()
    cells[where] = new
    return cells


def clipped(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Predictions (n,) in a numpy type of numbers: whole ones rounded, all held inside the type.

    Args:
        values: float64.
    """
    if dtype.kind == "b":
        return np.asarray(values >= 0.5)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        whole = np.rint(values)
        found = np.clip(whole, float(limits.min), float(limits.max)).astype(np.float64)
        over, under = found >= float(limits.max), found <= float(limits.min)  # 2^63 is a double, 2^63 - 1 is none
        inside = np.where(over | under, 0.0, found).astype(dtype)
        inside[over], inside[under] = limits.max, limits.min
        return inside
    limit = np.finfo(dtype).max  # a prediction beyond it would become infinite
    return np.asarray(np.clip(values, -float(limit), float(limit)).astype(dtype))


def _converted(values: np.ndarray, column: pd.Series[Any]) -> Any:
    import pandas as pd

    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iufb":
        return clipped(values, dtype)
    plain = getattr(dtype, "numpy_dtype", None)  # of nullable and arrow types
    if plain is not None and plain.kind in "iufb":
        return pd.array(clipped(values, plain), dtype=dtype)
    decimal = _digits(column)
    if decimal is not None:
        return [Decimal(repr(float(value))).quantize(decimal, ROUND_HALF_EVEN) for value in values]
    return values.tolist()


def _digits(column: pd.Series[Any]) -> Decimal | None:
    """The least step of a column of decimals; None for any other."""
    scale = getattr(getattr(column.dtype, "pyarrow_dtype", None), "scale", None)
    if scale is not None:
        return Decimal(1).scaleb(-scale)
    known = column.dropna() if column.dtype == object else column[:0]
    exponents = [cell.as_tuple().exponent for cell in known if isinstance(cell, Decimal)]
    finite = [exponent for exponent in exponents if isinstance(exponent, int)]
    return Decimal(1).scaleb(min(finite)) if finite and len(finite) == len(known) else None
