"""What an input is, before torch is imported: tables and arrays are read here, so that they are refused at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from htfcli.config.tables import TableConfig
from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.readers import READERS, Dense, read_foreign
from htfcli.files.locating import DATASETS, Located
from htfcli.files.own.records import KINDS, read_lines
from htfcli.files.tables.formats import TABLES, read_table
from htfcli.files.tables.labelled import Labelled

READ = (".safetensors", *READERS, *TABLES, *DATASETS)  # suffixes of all that is read


def understand(
    located: Located, config: TableConfig | None = None, dims: Sequence[int] | None = None
) -> Labelled | Dense | None:
    """A table or an array; None for containers of ours, records and data sets of xarray.

    Args:
        located: the input. config: how tables are read. dims: dimensions of a table, if they are given.
    Raises:
        DataError: if it cannot be read. ConfigError: if settings do not fit it.
    """
    suffix = located.suffix
    if located.is_container or suffix in DATASETS or is_records(located):
        return None
    if suffix not in TABLES:
        if located.more:
            raise DataError(f"{located.name}: only tables can be in several files", got=suffix or "no suffix")
        if suffix not in READERS:
            got, allowed = suffix or "no suffix", ", ".join(READ)
            raise DataError(f"{located.name} has a format that htf does not read", got=got, allowed=allowed)
        dense = read_foreign(located.path, located.name, located.key)
        refuse_table_settings(config, located.name)
        return dense
    return read_table(located.paths, located.name, config, dims=dims)


def refuse_table_settings(config: TableConfig | None, name: str) -> None:
    """Raise ConfigError for settings of tables if the input is none."""
    if config is None:
        return
    of_tables = [key for key in TableConfig.model_fields if key != "missing_value"]
    asked = [key for key in (*of_tables, "dims", "all") if key in type(config).model_fields]
    if given := config.changed(*asked):
        raise ConfigError(
            f"{', '.join(f'--{key}' for key in given)}: for tables; this input is a dense tensor", got=name
        )


def is_records(located: Located) -> bool:
    """Whether a .jsonl file has records of a run, not rows of a table."""
    if located.suffix != ".jsonl":
        return False
    try:
        first = next((record for _, record in read_lines(Path(located.path))), {})
    except DataError:
        return False
    return str(first.get("kind")) in KINDS
