"""Features in another order: the input written back with its columns or pixels rearranged, and the order itself."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from htfcli.engine.vision.datasets.image_set import ImageData, ImageSet, StoredImages
from htfcli.errors import ConfigError, DataError
from htfcli.files.feature_input import Source, TableSource
from htfcli.files.foreign.column_layout import some
from htfcli.files.foreign.dense_tensor import WRITERS
from htfcli.files.foreign.readers import Dense, suffix_of
from htfcli.files.image_files import save_image_data
from htfcli.files.own.container import binary_destination, text_destination, write_text
from htfcli.files.tables.arrow import ArrowFile
from htfcli.files.tables.dialect import records
from htfcli.files.tables.encoding import open_text, readable
from htfcli.files.tables.table_file import TableFile
from htfcli.files.tables.text import TextFile

SUFFIX = ".order.json"  # of the file beside the rearranged data
_MOST_BYTES = 2**27  # of such a file: millions of features


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["order of features"]
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=2)]
    order: list[Annotated[int, Field(ge=0)]]
    names: list[str] | None = None


@dataclass(frozen=True)
class Order:
    """An order of features.

    Args:
        order: (N,) int64: place n has feature `order[n]`. shape: (N,) or (h, w) of the places, row by row. names: of
            the features, by their old numbers, if they have any.
    """

    order: Tensor
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None


def save_order(path: Path, order: Order) -> None:
    """Write an order as JSON."""
    names = None if order.names is None else list(order.names)
    content = _Stored(kind="order of features", shape=list(order.shape), order=order.order.tolist(), names=names)
    write_text(path, content.model_dump_json(exclude_none=True) + "\n")


def load_order(path: str) -> Order:
    """Read an order that `save_order` wrote.

    Raises:
        DataError: if it does not exist or is something else.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{path} does not exist" if not file.exists() else f"{path} is not a file")
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError
        stored = _Stored.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, ValidationError, RecursionError):
        raise DataError(f"{path} is not an order of features", allowed=f"a {SUFFIX} file of htf rearrange") from None
    size = math.prod(stored.shape)
    if len(stored.order) != size or set(stored.order) != set(range(len(stored.order))):
        got, allowed = f"{len(stored.order)} numbers", f"0 to {size - 1}, each once"
        raise DataError(f"{path} is damaged: it is no permutation", got=got, allowed=allowed)
    order = torch.tensor(stored.order, dtype=torch.int64)
    if stored.names is not None and len(set(stored.names)) != size:
        raise DataError(f"{path} is damaged: it does not name every feature once", got=len(set(stored.names)))
    return Order(order, tuple(stored.shape), None if stored.names is None else tuple(stored.names))


def refuse_unwritable(opened: TableFile | Dense | ImageData, destination: str) -> None:
    """Raise ConfigError, before any work, if rearranged data cannot be written to a destination."""
    if destination == "-":
        return
    suffix = suffix_of(Path(destination))
    if isinstance(opened, Dense):
        own = suffix_of(Path(opened.name.partition("#")[0]))
        allowed = [own] if own in WRITERS else list(WRITERS)
    elif isinstance(opened, ImageData):
        allowed = [".safetensors"]
    elif isinstance(opened, TextFile | ArrowFile):
        allowed = [opened.suffix]
    else:
        raise ConfigError(
            "only text tables, .parquet and .feather can be rearranged",
            got=opened.suffix,
            next_step="Save it as .csv first.",
        )
    if suffix not in allowed:
        raise ConfigError("the output has the format of the input", got=suffix or "no suffix", allowed=allowed[0])


def write_rearranged(source: Source, order: Order, destination: str) -> None:
    """Write an input with its features in another order; all else stays as it is.

    Args:
        source: whose features are in the order of `order.names` or numbers. destination: a file, or `-`.
    Raises:
        ConfigError: if the order has other features. DataError: if it cannot be written.
    """
    if isinstance(source, Dense):
        _write_array(source, order, destination)
    elif isinstance(source, ImageData):
        _write_images(source, order, destination)
    else:
        _write_table(source, order, destination)


def features_for(file: TableFile, order: Order) -> TableSource:
    """The columns of a table that an order is about, by their names.

    Raises:
        ConfigError: if one of them is missing.
    """
    names = [file.head.names[at] for at in file.head.used]
    wanted = order.names or tuple(names)
    if order.names is None and len(names) != len(order.order):
        raise ConfigError(f"the order is of other features than {file.name}", got=len(names), allowed=len(order.order))
    if missing := [name for name in wanted if name not in names]:
        got = some(missing, len(missing))
        raise ConfigError(f"{file.name} lacks columns of the order", got=f"no {got}", allowed=some(wanted, len(wanted)))
    return TableSource(file, tuple(names.index(name) for name in wanted), None)


def _write_table(source: TableSource, order: Order, destination: str) -> None:
    """Features change places among the columns that they have; other columns keep theirs."""
    file = source.file
    columns = list(range(len(file.head.names)))
    moved = [source.features_at[n] for n in order.order.tolist()]
    for place, at in zip(sorted(source.features_at), moved, strict=True):
        columns[place] = at
    if isinstance(file, TextFile):
        _write_text(file, columns, destination)
        return
    assert isinstance(file, ArrowFile)
    table = file.table
    places = list(range(table.num_columns))
    for own, at in zip(file.places, columns, strict=True):
        places[own] = file.places[at]
    with binary_destination(destination) as path:
        if file.suffix == ".feather":
            from pyarrow import feather

            feather.write_feather(table.select(places), path)
        else:
            import pyarrow.parquet as pq

            pq.write_table(table.select(places), path)


def _write_text(file: TextFile, columns: Sequence[int], destination: str) -> None:
    """Cells as they stand, comments left out."""
    compressed, encoding = destination.lower().endswith(".gz"), file.dialect.encoding
    sign = file.dialect.delimiter or " "
    with readable(file.name), text_destination(destination, compressed, encoding.codec) as out:
        out.write("\ufeff" if encoding.mark else "")
        writer = csv.writer(out, delimiter=sign, lineterminator=file.line_end)
        for part, path in enumerate(file.paths):
            with open_text(path, file.name, file.scans[0].encoding) as rows:
                for number, fields in enumerate(records(rows, file.dialect.delimiter)):
                    if number > 0 or part == 0 or not file.head.named:
                        writer.writerow([fields[at] for at in columns])


def _write_array(dense: Dense, order: Order, destination: str) -> None:
    suffix = suffix_of(Path(destination)) if destination != "-" else ".npy"
    tensor = dense.values.to(getattr(torch, dense.dtype)) if dense.stored is None else torch.from_numpy(dense.stored)
    grid = tensor.dim() - 2 if tensor.dim() > 2 else 0  # the last axes are the features
    lead = tensor.shape[: -grid or -1] if tensor.dim() == 4 else tensor.shape[:1]
    flat = tensor.reshape(*lead, -1)
    if flat.shape[-1] != len(order.order):
        raise _other_features(dense.name, flat.shape[-1], order)
    with binary_destination(destination) as path:
        WRITERS[suffix](path, flat[..., order.order].reshape(tensor.shape).contiguous(), dense)


def _write_images(images: ImageData, order: Order, destination: str) -> None:
    parts = [_rearranged(part, order) for part in (images.train, images.test)]
    about: dict[str, object] = {**images.about, "rearranged": True}
    save_image_data(destination, replace(images, train=parts[0], test=parts[1], about=about))


def _rearranged(images: ImageSet, order: Order) -> StoredImages:
    if not isinstance(images, StoredImages):
        raise ConfigError(
            "pairs of is-same-class are put together when they are used, and cannot be rearranged",
            next_step="Write them out first: htf export.",
        )
    if images.shape[1] * images.shape[2] != len(order.order):
        raise _other_features("the data set", images.shape[1] * images.shape[2], order)

    def moved(pixels: Tensor) -> Tensor:
        return pixels.flatten(-2)[..., order.order].view(pixels.shape)

    masks = None if images.masks is None else moved(images.masks)
    return replace(images, pixels=moved(images.pixels), masks=masks)


def _other_features(name: str, got: Any, order: Order) -> ConfigError:
    return ConfigError(f"the order is of other features than those of {name}", got=got, allowed=len(order.order))
