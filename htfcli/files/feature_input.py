"""Inputs as samples of features: tables with a label column, arrays, image data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from htfcli.config.tables import TableConfig
from htfcli.engine.entanglement.features import FeatureData
from htfcli.engine.runtime.memory import refuse_unless_fits
from htfcli.engine.vision.datasets.image_set import ImageData, ImageSet
from htfcli.errors import ConfigError, DataError, did_you_mean
from htfcli.files.foreign.column_layout import some
from htfcli.files.foreign.readers import READERS, Dense, read_foreign
from htfcli.files.image_files import is_image_folder, load_image_folder, to_image_data
from htfcli.files.locating import Located, locate
from htfcli.files.own import container
from htfcli.files.own.container import Artefact
from htfcli.files.tables.formats import TABLES, open_table
from htfcli.files.tables.table_file import TableFile

_ALLOWED = "tables, arrays (samples first), image data sets"
_MANY_CHANNELS = 4  # an array (M, c, h, w) has at most red, green, blue and opacity: the second axis is channels


@dataclass(frozen=True)
class TableSource:
    """A table of features: its columns `features_at`, and that of the label, if any."""

    file: TableFile
    features_at: tuple[int, ...]
    label_at: int | None


Source = TableSource | Dense | ImageData


@dataclass(frozen=True)
class FeatureInput:
    """Features and the input that they were read from."""

    data: FeatureData
    source: Source


def open_features(argument: str) -> TableFile | Dense | ImageData | Artefact:
    """An input that may hold features; what it is decides how it is read. A container that is no data set is returned.

    Args:
        argument: as for `locate`, or a folder of images.
    Raises:
        DataError: if it does not exist, cannot be read or is something else.
    """
    if is_image_folder(argument):
        return load_image_folder(argument)
    located = locate(argument)
    if located.is_container:
        artefact = container.read(located.path, located.name)
        return to_image_data(artefact) if artefact.kind == "images" else artefact
    if located.suffix in TABLES:
        return open_table(located.paths, located.name, TableConfig())
    return _array_of(located)


def _array_of(located: Located) -> Dense:
    if located.suffix not in READERS or located.more:
        raise DataError(f"{located.name} holds no features", got=located.suffix or "no suffix", allowed=_ALLOWED)
    return read_foreign(located.path, located.name, located.key)


def read_features(
    opened: TableFile | Dense | ImageData,
    name: str,
    label: str | None = None,
    grid: Sequence[int] | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> FeatureInput:
    """Features of what `open_features` has opened.

    Args:
        name: for messages. label: column of a table, or array of a file with several. grid: (h, w) of the features of a
            table or of rows of an array. samples: drawn at random from more; None for all. seed: of the draw.
    Raises:
        ConfigError: if `label` or `grid` does not fit. DataError: if values are missing or no numbers.
    """
    source: Source
    if isinstance(opened, ImageData):
        if label is not None or grid is not None:
            given = "--label" if label is not None else "--grid"
            raise ConfigError(f"{given}: image data sets have their own", got=name)
        return FeatureInput(_of_images(opened, name, samples, seed), opened)
    if isinstance(opened, Dense):
        source, data = opened, _of_array(opened, name, label)
    else:
        source = _layout(opened, label)
        data = _of_table(source, name)
    if grid is not None:
        data = _on_grid(data, grid)
    if data.features < 2:
        raise DataError(f"{name} has too few features", got=data.features, allowed="2 or more")
    if len(data) < 2:
        raise DataError(f"{name} has too few samples", got=len(data), allowed="2 or more")
    return FeatureInput(data.drawn(samples, seed), source)


def _layout(file: TableFile, label: str | None) -> TableSource:
    names = [file.head.names[at] for at in file.head.used]
    if label is not None and label not in names:
        guess = did_you_mean(label, names)
        raise ConfigError(
            f"{file.name} has no such column", got=label, allowed=some(names, len(names)), next_step=guess
        )
    label_at = None if label is None else names.index(label)
    features = tuple(at for at in file.head.used if at != label_at)
    sample = file.sample()
    for at in features:
        if file.head.named and not names[at].strip():
            raise DataError(
                f"{file.name}: a column has no name, and may number the rows instead of being a feature",
                got=f"column {at + 1}",
                next_step="Name it, or leave it out (to_csv(index=False)).",
            )
        if sample[at].dtype.kind not in "biuf":
            raise DataError(
                f"{file.name}: column {names[at]} is not numbers",
                got=repr(next(value for value in sample[at] if value is not None)),
                next_step="Is it the label? --label. Else write it as numbers, or leave it out.",
            )
    return TableSource(file, features, label_at)


def _of_table(source: TableSource, name: str) -> FeatureData:
    labels_at = [] if source.label_at is None else [source.label_at]
    frame = source.file.read(labels_at, source.features_at)
    names = source.file.head.names
    values = np.column_stack([frame[at].to_numpy() for at in source.features_at])
    missing = np.isnan(values)
    if missing.any():
        row, at = np.argwhere(missing)[0]
        raise DataError(
            f"{name} line {source.file.line_of(int(row))}: column {names[source.features_at[at]]} has no value",
            got=f"{int(missing.sum()):,} missing",
            next_step=f"Fill them first: htf complete {name} --wide -o filled.csv",
        )
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    if source.label_at is not None:
        column = frame[source.label_at]
        empty = column.isna() | (column.astype(str).str.strip() == "")
        if empty.any():
            line = source.file.line_of(int(empty.to_numpy().argmax()))
            got = f"{int(empty.sum()):,} rows without"
            raise DataError(f"{name} line {line} has no label", got=got, next_step="Leave these rows out.")
        labels, classes = _classes(column.astype(str).to_numpy())
    features = tuple(names[at] for at in source.features_at)
    return FeatureData(name, torch.from_numpy(values)[:, :, None], (len(features),), labels, classes, features)


def _of_array(dense: Dense, name: str, label: str | None) -> FeatureData:
    if dense.missing:
        got = f"{dense.missing:,} of {dense.array.size:,}"
        step = f"Fill them first: htf complete {name} -o filled.npy"
        raise DataError(f"{name} has missing values", got=got, next_step=step)
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    if label is not None:
        if label not in dense.others:
            allowed = some(list(dense.others), len(dense.others)) or "none: the file has one array"
            raise ConfigError(f"{name} has no such array of labels", got=label, allowed=allowed)
        found = np.asarray(dense.others[label]).reshape(-1)
        if len(found) != len(dense.array):
            raise DataError(f"{name}: {label} has another length", got=len(found), allowed=len(dense.array))
        if found.dtype.kind == "f" and np.isnan(found).any():
            got = f"{int(np.isnan(found).sum()):,} of {len(found):,}"
            raise DataError(f"{name}: {label} has missing labels", got=got, next_step="Leave these samples out.")
        labels, classes = _classes(found)
    values = dense.values
    dims = tuple(values.shape)
    if len(dims) == 4 and dims[1] <= _MANY_CHANNELS:
        values = values.flatten(2).transpose(1, 2)
        return FeatureData(name, values, dims[2:], labels, classes, common_scale=True)
    if len(dims) not in (2, 3):
        allowed = "(samples, features), (samples, height, width) or (samples, channels, height, width)"
        raise DataError(f"{name} has another shape than features", got=" x ".join(map(str, dims)), allowed=allowed)
    return FeatureData(name, values.flatten(1)[:, :, None], dims[1:], labels, classes, common_scale=len(dims) == 3)


def _of_images(images: ImageData, name: str, samples: int | None, seed: int) -> FeatureData:
    part: ImageSet = images.train
    channels, height, width = part.shape
    rows = torch.arange(len(part))
    if samples is not None and samples < len(part):
        rows = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:samples].sort().values
    shape = f"{len(rows):,} images of {height} x {width}"
    refuse_unless_fits(name, 16 * len(rows) * channels * height * width, shape, "Measure fewer: --samples.")
    values = part.images(rows).double().flatten(2).transpose(1, 2)
    return FeatureData(name, values, (height, width), part.labels[rows], images.classes, common_scale=True)


def _classes(found: np.ndarray[Any, Any]) -> tuple[Tensor, tuple[str, ...]]:
    names, index = np.unique(found, return_inverse=True)
    return torch.from_numpy(index.astype(np.int64)), tuple(str(name) for name in names)


def _on_grid(data: FeatureData, grid: Sequence[int]) -> FeatureData:
    if len(data.shape) != 1 or len(grid) != 2 or math.prod(grid) != data.features:
        own = " x ".join(map(str, data.shape))
        got = f"{' x '.join(map(str, grid))} = {math.prod(grid)} places"
        raise ConfigError("--grid does not fit the features", got=got, allowed=f"height,width of {own} features")
    return FeatureData(
        data.name, data.values, tuple(grid), data.labels, data.classes, data.names, common_scale=data.common_scale
    )
