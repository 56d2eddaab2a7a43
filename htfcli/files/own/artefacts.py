"""Factorizations and observations in our container; what is read is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.factorizations.registry import MODELS
from htfcli.engine.observations.observations import Observations, checked_entries, first_duplicate
from htfcli.engine.samples import Entries, MatrixMeasurements, RankOneMeasurements, Sample
from htfcli.errors import ConfigError, DataError
from htfcli.files.own import container
from htfcli.files.own.container import Artefact


class _Description(BaseModel):
    """Output of `Factorization.describe`, validated."""

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: str
    dims: list[int]
    children: list[list[int]]
    widths: list[int]


def save_factorization(destination: str | Path, model: Factorization, config: Mapping[str, Any] | None = None) -> None:
    """Write a factorization and the configuration it was fitted with to a file, or to stdout for `-`."""
    container.save(destination, "factorization", model.weights, model.describe(), config)


def to_factorization(artefact: Artefact) -> Factorization:
    """The factorization in a container of that kind.

    Raises:
        DataError: if the description is malformed or does not fit the weights.
    """
    return rebuild(artefact.expect("factorization"), artefact.content, artefact.tensors())


def rebuild(artefact: Artefact, description: object, weights: dict[str, Tensor]) -> Factorization:
    """A factorization from its description and its weights.

    Args:
        artefact: where both are from. description: output of `Factorization.describe`. weights: by name.
    Raises:
        DataError: if the description is malformed or does not fit the weights.
    """
    try:
        described = _Description.model_validate(description)
        cls = MODELS[described.kind]
        nested: list[Any] = list(range(len(described.dims)))
        for children in described.children:
            nested.append([nested[c] for c in children])
        tree = ModeTree.from_nested(nested[-1])
        if [list(tree.children[v]) for v in tree.interior] != described.children or tree.order != len(described.dims):
            raise ValueError
        widths = dict(zip(cls.sized(tree), described.widths, strict=True))
    except (ValidationError, KeyError, IndexError, ValueError, ConfigError):
        raise DataError(f"{artefact.name} is damaged: its description of the factorization is malformed") from None
    stored = sum(w.numel() for w in weights.values())
    claimed = sum(r * c for r, c in cls.matrix_shapes(described.dims, tree, widths))
    if stored != claimed or any(not w.is_floating_point() for w in weights.values()):
        raise DataError(f"{artefact.name} is damaged: its weights do not fit", got=stored, allowed=f"{claimed} numbers")
    dtype = torch.float32 if all(w.dtype == torch.float32 for w in weights.values()) else torch.float64
    return cls.blank(described.dims, tree, widths, dtype).load(weights)


class _Content(BaseModel):
    """Content of an observations file, validated."""

    model_config = ConfigDict(extra="forbid", strict=True)
    dims: Annotated[list[PositiveInt], Field(min_length=2)]
    task: Literal["completion", "rank-one sensing", "matrix sensing"]
    target: dict[str, Any] | None = None


def save_observations(
    destination: str | Path, observations: Observations, config: Mapping[str, Any] | None = None
) -> None:
    """Write observations, their target if known, and the configuration they were made with, to a file, or `-`."""
    tensors: dict[str, Tensor] = {}
    for part, sample in (("train", observations.train), ("test", observations.test)):
        if sample is not None:
            tensors |= {f"{part}/{name}": tensor for name, tensor in _sample_tensors(sample).items()}
    target = observations.target
    if target is not None:
        tensors |= {f"target/{name}": weight for name, weight in target.weights.items()}
    content = {
        "dims": list(observations.dims),
        "task": task_of(observations.train),
        "target": None if target is None else target.describe(),
    }
    container.save(destination, "observations", tensors, content, config)


def task_of(sample: Sample) -> str:
    """The task of a sample: completion, rank-one sensing or matrix sensing."""
    names = {Entries: "completion", RankOneMeasurements: "rank-one sensing", MatrixMeasurements: "matrix sensing"}
    return names[type(sample)]


def _sample_tensors(sample: Sample) -> dict[str, Tensor]:
    if isinstance(sample, Entries):
        return {
            "index": sample.index.to(torch.int32 if _fits_int32(sample.index) else torch.int64),
            "value": sample.value,
        }
    if isinstance(sample, MatrixMeasurements):
        return {"matrices": sample.matrices, "value": sample.value}
    return {f"vector{k}": v for k, v in enumerate(sample.vectors)} | {"value": sample.value}


def _fits_int32(index: Tensor) -> bool:
    return index.numel() == 0 or int(index.max()) < 2**31


def to_observations(artefact: Artefact, shard: tuple[int, int] | None = None, *, mapped: bool = False) -> Observations:
    """The observations in a container of that kind, checked: ranges, duplicates, finite values.

    Args:
        shard: (number, count): read one of `count` parts of each sample, all of a sample with fewer rows.
        mapped: keep int32 indices mapped from the file instead of copying them to int64.
    Raises:
        DataError: for the first problem found.
    """
    content = artefact.expect("observations").content_as(_Content)
    dims = tuple(content.dims)
    shapes = artefact.shapes()
    counts = {part: math.prod(shapes.get(f"{part}/value", ("", (0,)))[1]) for part in ("train", "test")}
    rows = {part: None if shard is None else rows_of(count, *shard) for part, count in counts.items()}
    train = _to_sample(artefact, "train", content.task, dims, rows["train"], mapped)
    has_test = any(name.startswith("test/") for name in shapes)
    test = _to_sample(artefact, "test", content.task, dims, rows["test"], mapped) if has_test else None
    if isinstance(train, Entries) and isinstance(test, Entries):
        repeat = first_duplicate(torch.cat([train.index, test.index]), dims)
        if repeat is not None:
            got = train.index[repeat[0]].tolist()
            raise DataError(f"{artefact.name} has an entry in both its train and its test observations", got=got)
    target = None if content.target is None else rebuild(artefact, content.target, artefact.tensors("target/"))
    whole = None if shard is None else (counts["train"], counts["test"])
    return Observations(dims, train, test, target, whole)


def rows_of(count: int, number: int, parts: int) -> tuple[int, int] | None:
    """First row and end of one part, as split by `Tensor.tensor_split`; None if there are fewer rows than parts."""
    size, more = divmod(count, parts)
    first = number * size + min(number, more)
    return (first, first + size + (number < more)) if size else None


def _to_sample(
    artefact: Artefact, part: str, task: str, dims: tuple[int, ...], rows: tuple[int, int] | None, mapped: bool
) -> Sample:
    tensors = artefact.tensors(f"{part}/", rows)
    count = len(tensors["value"]) if "value" in tensors and tensors["value"].dim() == 1 else -1
    wanted: dict[str, tuple[int, ...]] = {"value": (count,)}
    if task == "completion":
        wanted["index"] = (count, len(dims))
    elif task == "matrix sensing":
        wanted["matrices"] = (count, *dims)
    else:
        wanted |= {f"vector{k}": (count, d) for k, d in enumerate(dims)}
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != wanted:
        raise DataError(f"{artefact.name} is damaged: its {part} observations have the wrong shapes")
    if count == 0:
        raise DataError(f"{artefact.name} has no {part} observations")
    value = tensors["value"].double()
    if task == "matrix sensing":
        sample: Sample = MatrixMeasurements(tensors["matrices"].double(), value)
    elif task == "completion":
        place = "" if rows is None or rows[0] == 0 else f" {rows[0]} +"
        index = tensors["index"] if mapped and tensors["index"].dtype == torch.int32 else tensors["index"].long()
        sample = checked_entries(index, value, dims, f"{artefact.name}: {part} observation{place}")
    else:
        sample = RankOneMeasurements(tuple(tensors[f"vector{k}"].double() for k in range(len(dims))), value)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(f"{artefact.name}: a {part} {name} is NaN or infinite")
    return sample
