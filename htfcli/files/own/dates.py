"""Dates and times of day as positions on a line, so that gaps between labels count by their true distance."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_QUARTER = re.compile(r"(\d{4})[- ]?Q([1-4])", re.IGNORECASE)
_PATTERNS = ("%Y-%m", "%Y/%m/%d", "%Y/%m", "%d.%m.%Y", "%b %Y", "%B %Y", "%d %b %Y", "%d-%b-%Y", "%H:%M", "%H:%M:%S")


def as_days(labels: Sequence[str]) -> list[float] | None:
    """Days since 1970 of labels that are all dates, or times of day, in one notation; None where they are not.

    Read are ISO 8601 (`2024-01-31`, `2024-01-31T06:00`, `2024-W05`), `2024-01`, `2024Q1`, `2024/01/31`, `31.01.2024`,
    `Jan 2024`, `31 Jan 2024`, `06:00`, and `31/01/2024` or `01/31/2024` where only one of these two fits all labels.
    """
    if not labels:
        return None
    for parse in (_iso, _quarter, *map(_pattern, _PATTERNS)):
        if (days := _all(parse, labels)) is not None:
            return days
    day_first, month_first = _all(_pattern("%d/%m/%Y"), labels), _all(_pattern("%m/%d/%Y"), labels)
    return None if day_first and month_first and day_first != month_first else day_first or month_first


def _all(parse: Callable[[str], datetime], labels: Sequence[str]) -> list[float] | None:
    try:
        moments = [parse(label) for label in labels]
    except ValueError:
        return None
    aware = [moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC) for moment in moments]
    return [(moment - _EPOCH) / timedelta(days=1) for moment in aware]


def _iso(label: str) -> datetime:
    if not label[:1].isdigit() or "-" not in label:
        raise ValueError
    return datetime.fromisoformat(label)


def _quarter(label: str) -> datetime:
    found = _QUARTER.fullmatch(label)
    if found is None:
        raise ValueError
    return datetime(int(found[1]), 3 * int(found[2]) - 2, 1)


def _pattern(pattern: str) -> Callable[[str], datetime]:
    return lambda label: datetime.strptime(label, pattern)
