"""Inputs of `htf complete`: data to complete in any format, a fitted completion, a table of entries to predict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.engine.factorizations.factorization import DENSE_LIMIT
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.files.foreign.dense_tensor import WRITERS, DenseTensor
from htfcli.files.foreign.labelled_table import TABLES, Table, read_queries, read_table
from htfcli.files.foreign.readers import Dense, holes_at, read_foreign, read_mask, refuse_special, suffix_of
from htfcli.files.inputs import Located, locate
from htfcli.files.own import container
from htfcli.files.own.artefacts import task_of, to_observations
from htfcli.files.own.axes import Axis
from htfcli.files.own.completion import SavedCompletion, to_completion
from htfcli.files.own.container import Artefact
from htfcli.files.stored_entries import StoredEntries

Data = Table | DenseTensor | StoredEntries


_LEAST_REPEATED = 3  # times that a value far from all others occurs, from which it may stand for "missing"


def load_data(
    argument: str, config: CompletionRunConfig, on_remark: Callable[[str], None] = lambda text: None
) -> Data | SavedCompletion:
    """Data with holes, or a completion that was fitted before.

    Args:
        argument: as for `inputs.locate`. config: what is an index, a value and a hole.
        on_remark: called with what may be a mistake about missing values.
    Raises:
        DataError: if it cannot be read. ConfigError: if the configuration speaks of what this input does not have.
    """
    located = locate(argument)
    suffix = suffix_of(located.path)
    if located.is_container:
        artefact = container.read(located.path, located.name).expect("completion", "observations")
        if artefact.kind == "completion":
            return to_completion(artefact)
        return _observed(artefact, config, on_remark)
    if suffix not in TABLES:
        dense = read_foreign(located.path, located.name, located.key)
        assert isinstance(dense, Dense)  # every other format that is read is a table
        return _dense(dense, suffix, config, on_remark)
    return _table(located, suffix, config, on_remark)


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


def _table(located: Located, suffix: str, config: CompletionRunConfig, on_remark: Callable[[str], None]) -> Table:
    if config.mask is not None:
        raise ConfigError("--mask is for dense tensors; leave the value of a row empty", got=config.mask)
    table = read_table(
        located.path,
        located.name,
        suffix,
        config.value,
        config.index,
        std=config.std,
        ordered=config.ordered or (),
    )
    if config.missing_value is None:
        _remark(missing_remark(table.value), on_remark)
    else:
        table = table.without(config.missing_value)
    if config.dims is None:
        return table
    if len(config.dims) != len(table.axes):
        got, allowed = f"{len(config.dims)} dimensions", len(table.axes)
        raise ConfigError(f"--dims does not match {located.name}", got=got, allowed=allowed)
    first = 1 if suffix.startswith(".tns") else 0
    return table.on([Axis(own.name, size, None, first) for own, size in zip(table.axes, config.dims, strict=True)])


def _remark(text: str | None, on_remark: Callable[[str], None]) -> None:
    if text is not None:
        on_remark(text)


def _dense(dense: Dense, suffix: str, config: CompletionRunConfig, on_remark: Callable[[str], None]) -> DenseTensor:
    if wrong := config.changed("value", "index", "duplicates", "dims", "all"):
        names = ", ".join(f"--{name}" for name in wrong)
        raise ConfigError(f"{names}: for tables; this input is a dense tensor", got=dense.name)
    tensor = DenseTensor(dense, suffix)
    if config.missing_value is None:
        _remark(missing_remark(dense.values), on_remark)
    else:
        tensor = tensor.without(config.missing_value)
    return tensor if config.mask is None else tensor.observed_at(read_mask(config.mask))


def observed(data: Data, config: CompletionRunConfig) -> tuple[Entries, Tensor | None]:
    """The entries that are known, and their standard deviations (n,), if these are.

    Raises:
        DataError: if rows disagree, or a deviation is not above zero. ConfigError: if there is no place for deviations.
    """
    if isinstance(data, Table):
        return data.observed(average=config.duplicates == "mean")
    if config.std is None:
        return data.entries(), None
    if isinstance(data, StoredEntries):
        raise ConfigError("--std is for tables and for tensors that can be dense", got=data.name)
    if suffix_of(Path(config.std)) in TABLES:
        raise ConfigError("--std of a dense tensor is a dense array of its shape", got=config.std, allowed=".npy")
    refuse_special(Path(config.std))
    std = read_foreign(Path(config.std), config.std)
    assert isinstance(std, Dense)  # every other format that is read is a table
    return data.entries(), data.std_from(std.values, config.std)


def order_of_modes(data: Data, ordered: Sequence[str]) -> tuple[list[Tensor | None], list[int]]:
    """Per mode rising positions (d,) or None, and the modes whose order means nothing.

    Modes in neither are plain indices, whose order may mean something.

    Args:
        ordered: names of modes that are in order.
    Raises:
        ConfigError: if a name is not one of a mode.
    """
    names = [axis.name for axis in data.axes]
    if wrong := [name for name in ordered if name not in names]:
        allowed = ", ".join(names[:20]) + ("" if len(names) <= 20 else ", ...")
        guess = did_you_mean(wrong[0], names)
        raise ConfigError("--ordered: no such mode", got=wrong[0], allowed=allowed, next_step=guess)
    found: list[Tensor | None] = []
    unordered = []
    for mode, axis in enumerate(data.axes):
        positions = axis.positions() if isinstance(data, Table) or axis.name in ordered else None
        if positions is None and axis.name in ordered:
            positions = list(map(float, range(axis.size)))
        elif positions is None and axis.labels is not None:
            unordered.append(mode)
        found.append(None if positions is None else torch.tensor(positions, dtype=torch.float64))
    return found, unordered


def _observed(
    artefact: Artefact, config: CompletionRunConfig, on_remark: Callable[[str], None]
) -> DenseTensor | StoredEntries:
    """The train entries of our own observations, as a dense tensor that is NaN elsewhere if that is not too large."""
    observations = to_observations(artefact, mapped=True)
    train = observations.train
    if not isinstance(train, Entries):
        got = task_of(train)
        raise DataError(f"{artefact.name} does not hold entries to complete", got=got, allowed="completion")
    if math.prod(observations.dims) > DENSE_LIMIT:
        if config.mask is not None:
            raise ConfigError("--mask is for dense tensors", got=config.mask)
        if config.missing_value is None:
            _remark(missing_remark(train.value), on_remark)
        else:
            value = holes_at(train.value, config.missing_value, artefact.name)
            train = train.select(torch.nonzero(~torch.isnan(value)).flatten())
        return StoredEntries(artefact.name, observations.dims, train)
    values = torch.full(observations.dims, math.nan, dtype=torch.float64)
    values[train.index.unbind(1)] = train.value
    return _dense(Dense(artefact.name, values), ".npy", config, on_remark)


def load_queries(argument: str, axes: Sequence[Axis], value_name: str) -> Table:
    """A table of entries that are asked for.

    Raises:
        DataError: if it is not a table, or one that does not fit the axes.
    """
    located = locate(argument)
    suffix = suffix_of(located.path)
    if suffix not in TABLES:
        got = suffix or "no suffix"
        raise DataError(f"{located.name} is not a table of entries", got=got, allowed=", ".join(TABLES))
    return read_queries(located.path, located.name, suffix, axes, value_name)


def refuse_other_format(destination: str, data: Data) -> None:
    """Raise ConfigError if a file's name says another format than the data have."""
    asked, own = suffix_of(Path(destination)), data.suffix
    if destination != "-" and asked != own and (asked in TABLES or asked in WRITERS):
        raise ConfigError(f"{destination} is not in the format of {data.name}", got=asked, allowed=own)
