"""Whether the first row of a text table names its columns."""

from __future__ import annotations

from collections.abc import Sequence

from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.column_layout import Head
from htfcli.files.tables.numbers import Notation


def find_head(rows: Sequence[Sequence[str]], name: str, notation: Notation, given: bool | None) -> Head:
    """The columns of a table from its first rows.

    The first row names them if none of its fields is a number and its last one is not missing. Where it has numbers,
    it names them if these cannot be values: a rising sequence (years), or whole numbers above columns of fractions, or
    beside names that stand in no other row.

    Args:
        rows: the first rows, of which at least one. name: for messages. given: whether it does, if that is known.
    Raises:
        ConfigError: if it cannot be decided. DataError: if two columns have one name.
    """
    first = [field.strip() for field in rows[0]]
    below = [[field.strip() for field in row] for row in rows[1:]]
    named = first.copy()
    while named and not named[-1]:
        named.pop()
    width = max((len(row) for row in below), default=len(first))
    same = [row for row in below if len(row) == len(first)]
    empty_after = all(not field for row in same for field in row[len(named) :])
    if given is None:
        given = bool(named) and empty_after and _names_columns(named, same, below, name, notation)
    if not given:
        return Head.numbered(len(first))
    twice = [field for field in named if field and named.count(field) > 1]
    if twice:
        raise DataError(f"{name} has two columns of the same name", got=twice[0])
    padding, extra = len(first) - len(named), 0
    if below and all(len(row) == width for row in below) and width == len(first) + 1:
        if not any(row[-1] for row in below):  # a delimiter ends every line but that of the names
            return Head([*first, ""], True, padding + 1)
        extra = 1
    return Head(["", *first] if extra else first, True, padding, extra)


def _names_columns(
    named: Sequence[str], same: Sequence[Sequence[str]], below: Sequence[Sequence[str]], name: str, notation: Notation
) -> bool:
    numbers = {at: number for at, field in enumerate(named) if (number := notation.number(field)) is not None}
    if not numbers:
        return not notation.is_missing(named[-1])
    columns = {at: [row[at] for row in same] for at in range(len(named))}
    values = {
        at: [
            value
            for field in columns[at]
            if (value := notation.number(field)) is not None and not notation.is_missing(field)
        ]
        for at in numbers
    }
    whole = all(isinstance(number, int) for number in numbers.values()) and len(set(numbers.values())) == len(numbers)
    if not same or not whole or not all(values.values()):
        return False
    fractions = [at for at in numbers if 2 * sum(isinstance(value, float) for value in values[at]) > len(values[at])]
    unlike = [
        at for at, number in numbers.items() if at in fractions or not min(values[at]) <= number <= max(values[at])
    ]
    texts = [at for at in range(len(named)) if at not in numbers]
    if any(named[at] in columns[at] for at in texts):
        return False
    if not texts:  # numbers only: those of columns counted from 0 or 1
        counted = list(numbers.values()) in ([*range(len(named))], [*range(1, len(named) + 1)])
        return counted and len(named) > 2 and len(fractions) == len(numbers)
    if len(numbers) == 1:
        recur = all(len(set(columns[at])) < len(columns[at]) for at in texts)
        return recur and len(unlike) == 1
    steps = {b - a for a, b in zip([*numbers.values()][:-1], [*numbers.values()][1:], strict=True)}
    if 2 * len(unlike) > len(numbers):
        return True
    if len(steps) == 1 and len(numbers) > 2:
        raise ConfigError(
            f"{name}: does the first row name the columns?",
            got=", ".join(named[:6]),
            next_step="Say so with --header, or --no-header.",
        )
    return False
