"""The table of a reproduction: published numbers beside ours, and how numbers over several seeds are stated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """One row of the table: a published number, empty if there is none, and ours."""

    kind: ClassVar[str] = "comparison"
    case: str
    quantity: str
    published: str
    ours: str
    seeds: int


def quartiles(values: Sequence[float]) -> str:
    """The median of numbers and, in parentheses, their quartiles; integers are written without decimals."""
    low, middle, high = np.quantile(np.array(values, dtype=float), [0.25, 0.5, 0.75])
    return f"{_number(middle)} ({_number(low)} to {_number(high)})"


def mean_and_error(values: Sequence[float], digits: int = 2) -> str:
    """The mean of numbers and, if there are several, its standard error."""
    error = f" ± {stdev(values) / math.sqrt(len(values)):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{error}"


def share(held: Sequence[bool]) -> str:
    """How many of the seeds show something."""
    return f"{sum(held)} of {len(held)}"


def _number(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2g}"
