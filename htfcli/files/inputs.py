"""Inputs of commands as tensors: a file of any format, a run folder, or `-` for stdin."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from htfcli.config.tables import TableConfig
from htfcli.engine.factorizations.factorization import DENSE_LIMIT, Factorization
from htfcli.engine.observations.observations import Observations
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.datasets import DatasetTensor, read_dataset
from htfcli.files.foreign.readers import Dense
from htfcli.files.locating import locate
from htfcli.files.own import container
from htfcli.files.own.artefacts import to_factorization, to_observations
from htfcli.files.own.axes import Axis
from htfcli.files.own.completion import strongest_in
from htfcli.files.own.records import Records, load_records
from htfcli.files.tables.labelled import Labelled
from htfcli.files.tables.table import Table
from htfcli.files.understanding import is_records, understand

Opened = container.Artefact | Dense | DatasetTensor | Table | Records
_LEAST_REPEATED = 3  # times that a value far from all others occurs, from which it may stand for "missing"


def open_input(
    argument: str,
    config: TableConfig | None = None,
    dims: tuple[int, ...] | None = None,
    on_remark: Callable[[str], None] = lambda text: None,
) -> Opened:
    """Read an input.

    Args:
        argument: as for `locate`. config: how tables are read. dims: dimensions of a table, if they are given.
        on_remark: called with what was found out about a table, or may be a mistake in it.
    Raises:
        DataError: if it does not exist or cannot be read. ConfigError: if settings do not fit it.
    """
    located = locate(argument)
    if is_records(located):
        return load_records(str(located.path))
    if located.is_container:
        return container.read(located.path, located.name)
    understood = understand(located, config, dims)
    if understood is None:
        return _completable(read_dataset(located.path, located.name, located.key), config, on_remark)
    if isinstance(understood, Dense):
        return understood
    return table_of(understood, config, dims, on_remark)


def table_of(
    source: Labelled,
    config: TableConfig | None,
    dims: tuple[int, ...] | None,
    on_remark: Callable[[str], None] = lambda text: None,
    on_note: Callable[[str], None] | None = None,
) -> Table:
    """A table as every command sees it: with its holes, and on the dimensions that are given.

    Args:
        source: what was read. config: what counts as missing, and what rows that are absent mean.
        dims: of the tensor; None for its labels. on_remark: called with what may be a mistake. on_note: called with how
            the table was read (`on_remark`).
    Raises:
        ConfigError: if a setting does not fit the table. DataError: if an index is beyond the dimensions.
    """
    config = config or TableConfig()
    for text in source.notes:
        (on_note or on_remark)(text)
    for text in source.warnings:
        on_remark(text)
    table = Table.of(source, config.absent_is_zero)
    if config.missing_value is not None:
        table = table.without(config.missing_value)
    elif remark := missing_remark(table.value):
        on_remark(remark)
    if dims is None:
        return table
    if len(dims) != len(table.axes):
        got, allowed = f"{len(dims)} dimensions", len(table.axes)
        raise ConfigError(f"--dims does not match {table.name}", got=got, allowed=allowed)
    first = 1 if table.suffix.startswith(".tns") else 0
    return table.on([Axis(own.name, size, None, first) for own, size in zip(table.axes, dims, strict=True)])


def missing_remark(value: Tensor) -> str | None:
    """A repeated number far from all others, which may stand for missing values.

    Args:
        value: as read, of any shape, NaN where nothing is.
    """
    known = value[~torch.isnan(value)]
    if len(known) == 0:
        return None
    lowest, highest = known.min(), known.max()
    for end in (lowest, highest):
        others = known[known != end]
        if len(others) == 0 or len(known) - len(others) < _LEAST_REPEATED:
            continue
        least, most = others.min(), others.max()
        if float(torch.minimum((end - least).abs(), (end - most).abs())) > float(most - least) > 0:
            count, number = len(known) - len(others), f"{float(end):g}"
            advice = f"if that means missing, say so: --missing-value {number}"
            return f"{count:,} values are {number}, farther from all others than these are from each other; {advice}"
    return None


def open_artefact(argument: str, *kinds: str) -> container.Artefact:
    """An input that is a container of one of these kinds.

    Args:
        argument: as for `locate`.
    Raises:
        DataError: if it does not exist or holds something else.
    """
    return _artefact(open_input(argument), *kinds)


def load_observations(
    argument: str,
    dims: tuple[int, ...] | None = None,
    config: TableConfig | None = None,
    on_remark: Callable[[str], None] = lambda text: None,
) -> Observations:
    """Observations from any input; the observed entries of a dense tensor are those that are not NaN.

    Args:
        argument: as for `locate`. dims: dimensions of a table, whose last indices may be unobserved. config: how tables
            are read. on_remark: called with what was found out about a table, or may be a mistake in it.
    Raises:
        DataError: if the input holds something else. ConfigError: if `dims` is given for data with dimensions.
    """
    opened = open_input(argument, config, dims, on_remark)
    _refuse_dims(opened, dims)
    if isinstance(opened, Table):
        average = config is not None and config.duplicates == "mean"
        entries = opened.entries(average)
        return Observations(opened.dims, Entries(entries.index.long(), entries.value))
    if isinstance(opened, DatasetTensor):
        return Observations(opened.dims, opened.entries())
    if isinstance(opened, Dense):
        found, entries = opened.entries()
        return Observations(found, entries)
    return to_observations(_artefact(opened, "observations"))


def load_tensor(
    argument: str,
    dims: tuple[int, ...] | None = None,
    on_remark: Callable[[str], None] = lambda text: None,
    config: TableConfig | None = None,
) -> Factorization | Tensor:
    """A factorization, or a dense tensor without missing entries, from any input.

    Args:
        argument: as for `locate`. dims: dimensions of a table. on_remark: called with what was found out, and with what
            is left out. config: how tables are read.
    Raises:
        DataError: if entries are missing, with their number. ConfigError: if `dims` is given for other data.
    """
    opened = open_input(argument, config, dims, on_remark)
    _refuse_dims(opened, dims)
    if isinstance(opened, Table | DatasetTensor):
        average = config is not None and config.duplicates == "mean"
        entries = opened.entries(average) if isinstance(opened, Table) else opened.entries()
        return _whole(Observations(opened.dims, entries), opened.name)
    if not isinstance(opened, Dense):
        artefact = _artefact(opened, "factorization", "completion", "observations")
        if artefact.kind == "completion":
            model, remark = strongest_in(artefact)
            on_remark(remark)
            return model
        return to_factorization(artefact) if artefact.kind == "factorization" else to_observations(artefact).to_dense()
    if opened.missing:
        raise _not_whole(opened.name, opened.missing, opened.array.size)
    return opened.values


def _whole(observations: Observations, name: str) -> Tensor:
    total = math.prod(observations.dims)
    if len(observations.train) < total:
        raise _not_whole(name, total - len(observations.train), total)
    if total > DENSE_LIMIT:
        raise DataError(f"{name} is too large a tensor", got=f"{total:.3g} entries", allowed=f"{DENSE_LIMIT:.2g}")
    return observations.to_dense()


def _not_whole(name: str, missing: int, total: int) -> DataError:
    shown = f"{missing} of {total}" if total < 10**15 else "nearly all"
    return DataError(f"{name} has missing entries", got=shown, next_step="Fit a factorization to it first: htf fit.")


def _completable(data: DatasetTensor, config: TableConfig | None, on_remark: Callable[[str], None]) -> DatasetTensor:
    for text in data.remarks:
        on_remark(text)
    if config is not None and config.missing_value is not None:
        return data.without(config.missing_value)
    return data


def _artefact(opened: Opened, *kinds: str) -> container.Artefact:
    """What was opened, if it is a container of one of these kinds."""
    if isinstance(opened, container.Artefact):
        return opened.expect(*kinds)
    got = "records" if isinstance(opened, Records) else "a tensor"
    raise DataError(f"{opened.name} holds something else", got=got, allowed=" or ".join(kinds))


def _refuse_dims(opened: Opened, dims: tuple[int, ...] | None) -> None:
    if dims is not None and not isinstance(opened, Table):
        raise ConfigError("--dims is for tables; this input has its own dimensions", got=list(dims))
