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
from htfcli.files.foreign.datasets import DatasetTensor, read_dataset
from htfcli.files.foreign.dense_tensor import DenseTensor
from htfcli.files.foreign.frame_labels import Mode
from htfcli.files.foreign.readers import Dense, read_foreign, read_mask, refuse_absent, refuse_special, suffix_of
from htfcli.files.inputs import missing_remark, table_of
from htfcli.files.locating import Located, locate
from htfcli.files.own import container
from htfcli.files.own.artefacts import task_of, to_observations
from htfcli.files.own.axes import Axis
from htfcli.files.own.completion import SavedCompletion, to_completion
from htfcli.files.own.container import Artefact
from htfcli.files.stored_entries import StoredEntries
from htfcli.files.tables.formats import TABLES, read_queries
from htfcli.files.tables.labelled import Labelled
from htfcli.files.tables.table import Table
from htfcli.files.understanding import understand

Cube = DenseTensor | DatasetTensor
Data = Table | Cube | StoredEntries


def load_data(
    located: Located,
    config: CompletionRunConfig,
    on_remark: Callable[[str], None] = lambda text: None,
    understood: Labelled | Dense | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Data | SavedCompletion:
    """Data with holes, or a completion that was fitted before.

    Args:
        located: the input. config: what is an index, a value and a hole. on_remark: called with what may be a mistake
            in the data. understood: the data, if they have been read. on_note: called with how they were read.
    Raises:
        DataError: if it cannot be read. ConfigError: if the configuration speaks of what this input does not have.
    """
    if located.is_container:
        artefact = container.read(located.path, located.name).expect("completion", "observations")
        if artefact.kind == "completion":
            return to_completion(artefact)
        return _observed(artefact, config, on_remark)
    understood = understood or understand(located, config, config.dims)
    if isinstance(understood, Labelled):
        if config.mask is not None:
            raise ConfigError("--mask is for dense tensors; leave the value of a row empty", got=config.mask)
        return table_of(understood, config, None if config.dims is None else tuple(config.dims), on_remark, on_note)
    if isinstance(understood, Dense):
        return _cube(DenseTensor(understood, located.suffix), understood.values, config, on_remark)
    if located.suffix == ".jsonl":
        raise DataError(f"{located.name} holds records of a run", allowed="data to complete")
    data = read_dataset(located.path, located.name, located.key, config.variables)
    for text in data.remarks:
        on_note(text)
    return _cube(data, data.values, config, on_remark)


def _cube(data: Cube, values: Tensor, config: CompletionRunConfig, on_remark: Callable[[str], None]) -> Cube:
    if config.missing_value is not None:
        data = data.without(config.missing_value)
    elif remark := missing_remark(values):
        on_remark(remark)
    return data if config.mask is None else data.observed_at(read_mask(config.mask))


def observed(data: Data, config: CompletionRunConfig) -> tuple[Entries, Tensor | None]:
    """The entries that are known, and their standard deviations (n,), if these are.

    Raises:
        DataError: if rows disagree, or a deviation is not above zero. ConfigError: if there is no place for deviations.
    """
    if isinstance(data, Table):
        return data.observed(average=config.duplicates == "mean")
    if config.std is None:
        return data.entries(), None
    if not isinstance(data, DenseTensor):
        raise ConfigError("--std is for tables and for tensors that can be dense", got=data.name)
    if suffix_of(Path(config.std)) in TABLES:
        raise ConfigError("--std of a dense tensor is a dense array of its shape", got=config.std, allowed=".npy")
    refuse_special(Path(config.std))
    return data.entries(), data.std_from(read_foreign(Path(config.std), config.std).values, config.std)


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
    modes: Sequence[Mode | None] = [None] * len(names)
    if isinstance(data, Table | DatasetTensor):
        modes = data.modes
    found: list[Tensor | None] = []
    unordered = []
    for number, (axis, mode) in enumerate(zip(data.axes, modes, strict=True)):
        positions: Sequence[float] | None = None
        if mode is not None and not mode.numbered:
            positions = mode.coordinates
        elif axis.name in ordered:
            positions = axis.positions()
        if positions is None and axis.name in ordered:
            positions = list(map(float, range(axis.size)))
        elif positions is None and axis.labels is not None:
            unordered.append(number)
        found.append(None if positions is None else torch.tensor(positions, dtype=torch.float64))
    return found, unordered


def _observed(
    artefact: Artefact, config: CompletionRunConfig, on_remark: Callable[[str], None]
) -> Cube | StoredEntries:
    """The train entries of our own observations, as a dense tensor that is NaN elsewhere if that is not too large."""
    observations = to_observations(artefact, mapped=True)
    train = observations.train
    if not isinstance(train, Entries):
        got = task_of(train)
        raise DataError(f"{artefact.name} does not hold entries to complete", got=got, allowed="completion")
    if math.prod(observations.dims) > DENSE_LIMIT:
        if config.mask is not None:
            raise ConfigError("--mask is for dense tensors", got=config.mask)
        if config.missing_value is not None:
            refuse_absent(train.value.numpy(), config.missing_value, artefact.name)
            train = train.select(torch.nonzero(train.value != config.missing_value).flatten())
        elif remark := missing_remark(train.value):
            on_remark(remark)
        return StoredEntries(artefact.name, observations.dims, train)
    values = torch.full(observations.dims, math.nan, dtype=torch.float64)
    values[train.index.unbind(1)] = train.value
    dense = Dense(artefact.name, values.numpy())
    return _cube(DenseTensor(dense, ".npy"), values, config, on_remark)


def load_queries(argument: str, axes: Sequence[Axis], value_name: str, config: CompletionRunConfig) -> Table:
    """A table of entries that are asked for.

    Raises:
        DataError: if it is not a table, or one that does not fit the axes.
    """
    located = locate(argument)
    if located.suffix not in TABLES:
        got = located.suffix or "no suffix"
        raise DataError(f"{located.name} is not a table of entries", got=got, allowed=", ".join(TABLES))
    source = read_queries(located.paths, located.name, [axis.name for axis in axes], value_name, config)
    return Table.of(source).on(axes, unknown_labels=True)


def refuse_other_format(destination: str, data: Data) -> None:
    """Raise ConfigError if a file's name says another format than the data have, or one that is not known."""
    asked, own = suffix_of(Path(destination)), data.suffix
    same = {".ndjson": ".jsonl", ".nc4": ".nc"}
    if destination != "-" and same.get(asked, asked).removesuffix(".gz") != same.get(own, own).removesuffix(".gz"):
        raise ConfigError(f"{destination} is not in the format of {data.name}", got=asked or "no ending", allowed=own)
