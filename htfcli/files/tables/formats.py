"""Formats of tables, and a table from a file of any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from htfcli.config.tables import TableConfig
from htfcli.errors import DataError
from htfcli.files.foreign.column_layout import ColumnLayout, Head
from htfcli.files.tables.labelled import Labelled, read_labelled
from htfcli.files.tables.numbers import Notation
from htfcli.files.tables.table_file import TableFile, format_of
from htfcli.files.tables.text import FIXED, USUAL, TextFile, open_text_table

Opener = Callable[[Sequence[Path], str, TableConfig], TableFile]
TEXT = (*USUAL, *FIXED)


def _arrow(paths: Sequence[Path], name: str, config: TableConfig) -> TableFile:
    from htfcli.files.tables.arrow import open_arrow_table

    return open_arrow_table(paths, name)


def _excel(paths: Sequence[Path], name: str, config: TableConfig) -> TableFile:
    from htfcli.files.tables.excel import open_sheet

    return open_sheet(paths, name, config)


def _json(paths: Sequence[Path], name: str, config: TableConfig) -> TableFile:
    from htfcli.files.tables.json_lines import open_json_table

    return open_json_table(paths, name, config)


TABLES: dict[str, Opener] = {
    **dict.fromkeys(TEXT, open_text_table),
    ".parquet": _arrow,
    ".feather": _arrow,
    ".xlsx": _excel,
    ".jsonl": _json,
    ".ndjson": _json,
}


def open_table(paths: Sequence[Path], name: str, config: TableConfig) -> TableFile:
    """Open a table, in one file or in several that continue each other.

    Args:
        paths: the files. name: in messages. config: what is said about how they are written.
    Raises:
        DataError: if it cannot be read. ConfigError: if something cannot be decided.
    """
    suffixes = sorted({format_of(path) for path in paths})
    if len(suffixes) > 1:
        raise DataError(f"{name}: the files are not of one format", got=", ".join(suffixes))
    return TABLES[suffixes[0]](paths, name, config)


def read_table(
    paths: Sequence[Path], name: str, config: TableConfig | None = None, *, dims: Sequence[int] | None = None
) -> Labelled:
    """Read a table as a tensor.

    Args:
        paths: the files. name: in messages. config: what is said about it. dims: dimensions, if they are given.
    Raises:
        ConfigError: if a column does not exist, or something cannot be decided. DataError: if a row cannot be used.
    """
    config = config or TableConfig()
    file = open_table(paths, name, config)
    fixed = file.suffix in FIXED or dims is not None
    return read_labelled(file, config, notation_of(file, config), fixed=fixed)


def notation_of(file: TableFile, config: TableConfig) -> Notation:
    """How the numbers of a table are written."""
    if isinstance(file, TextFile):
        return file.dialect.notation
    return Notation(missing=frozenset(text.strip().lower() for text in config.na or ()))


def read_queries(
    paths: Sequence[Path], name: str, wanted: Sequence[str], value_name: str, config: TableConfig
) -> Labelled:
    """Read a table of entries to predict; its columns have the names of the modes, or their order.

    Args:
        paths, name: as for `read_table`. wanted: the names of the modes. value_name: of the values. config: how text is
            written.
    Raises:
        DataError: if a column is missing.
    """
    bare = TableConfig(**{k: v for k, v in config.model_dump().items() if k in _WRITTEN})
    file = open_table(paths, name, bare)
    head = file.head
    if head.padding and not set(wanted) <= set(head.names) and isinstance(file, TextFile):
        head = Head.numbered(len(head.names))  # all values are asked for: the first row may be one
        file = replace(file, head=head)
    if head.named and set(wanted) <= set(head.names):
        labels = [head.names.index(column) for column in wanted]
    elif (head.named and not all(column.isdigit() for column in wanted)) or len(head.names) < len(wanted):
        missing = [column for column in wanted if column not in head.names]
        raise DataError(f"{name} lacks columns", got=", ".join(head.names), allowed=", ".join(missing or wanted))
    else:
        labels = list(range(len(wanted)))
    value = head.names.index(value_name) if head.named and value_name in head.names else None
    if not head.named and len(head.names) > len(wanted):
        value = len(head.names) - 1
    layout = ColumnLayout(tuple(labels), () if value is None else (value,), chosen=True)
    source = read_labelled(file, bare, notation_of(file, bare), layout=layout)
    return replace(source, name=value_name)


_WRITTEN = ("delimiter", "decimal", "thousands", "encoding", "header", "sheet", "na")
