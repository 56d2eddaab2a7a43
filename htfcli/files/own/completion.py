"""Fitted completions in our container, with the names and labels of their modes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from htfcli.engine.completion.result import Completion
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.errors import DataError
from htfcli.files.own import container
from htfcli.files.own.axes import Axis
from htfcli.files.own.container import Artefact

_SLICES, _SLICE_SIDE = 3, 400  # kept for the picture
FORMAT = 3  # of a completion's content: 1 had one factorization and an ensemble, 2 named every part by itself


@dataclass(frozen=True)
class Slices:
    """Observed slices of a tensor of order 3, kept for its picture.

    Args:
        mode: the mode they are slices of. at: their indices in it. step: every so many-th row and column is kept.
        observed: (slices, rows, columns) float64, NaN at holes.
    """

    mode: int
    at: list[int]
    step: list[int]
    observed: Tensor


def slices_of(values: Tensor) -> Slices | None:
    """Slices of a dense tensor of order 3 across its shortest mode, thinned out to the size of a picture.

    Args:
        values: (d_0, ..., d_{N-1}), NaN at holes.
    """
    if values.dim() != 3:
        return None
    mode = min(range(3), key=lambda m: (values.shape[m], -m))
    values = values.movedim(mode, 0)
    count, *sides = values.shape
    at = sorted({round((count - 1) * (k + 1) / (_SLICES + 1)) for k in range(_SLICES)})
    rows, columns = (-(-side // _SLICE_SIDE) for side in sides)
    return Slices(mode, at, [rows, columns], values[at][:, ::rows, ::columns].clone())


@dataclass(frozen=True)
class SavedCompletion:
    """A completion with what its modes and values are called; `slices` if there is something to show."""

    completion: Completion
    axes: tuple[Axis, ...]
    value_name: str
    slices: Slices | None = None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Axis(_Strict):
    name: str
    size: PositiveInt
    first: int


class _Slices(_Strict):
    mode: NonNegativeInt
    at: list[NonNegativeInt]
    step: list[PositiveInt]


class _Content(_Strict):
    format: int
    value: str
    axes: list[_Axis]
    completion: dict[str, Any]
    slices: _Slices | None


def save_completion(destination: str | Path, saved: SavedCompletion, config: Mapping[str, Any]) -> None:
    """Write the state of a completion (its members, weights and calibration) with the names and labels of its modes."""
    state, described = saved.completion.state()
    tensors = {f"completion/{name}": tensor for name, tensor in state.items()}
    for mode, axis in enumerate(saved.axes):
        if axis.labels is not None:  # as bytes of JSON: millions of labels do not fit into the header
            tensors[f"labels/{mode}"] = torch.frombuffer(bytearray(json.dumps(axis.labels).encode()), dtype=torch.uint8)
    slices = saved.slices
    if slices is not None:
        tensors["slices/observed"] = slices.observed
    content = {
        "format": FORMAT,
        "value": saved.value_name,
        "axes": [{"name": axis.name, "size": axis.size, "first": axis.first} for axis in saved.axes],
        "completion": described,
        "slices": None if slices is None else {"mode": slices.mode, "at": slices.at, "step": slices.step},
    }
    container.save(destination, "completion", tensors, content, config)


def to_completion(artefact: Artefact) -> SavedCompletion:
    """The completion in a container of that kind.

    Raises:
        DataError: if it is damaged, or was written by an earlier version of htf.
    """
    content = _content(artefact)
    try:
        completion = Completion.from_state(artefact.tensors("completion/"), content.completion)
    except DataError as error:
        raise DataError(f"{artefact.name} is damaged: {str(error).rstrip('.')}") from None
    labels = artefact.tensors("labels/")
    axes = tuple(
        Axis(axis.name, axis.size, _labels(artefact, labels.get(str(mode)), axis.size), axis.first)
        for mode, axis in enumerate(content.axes)
    )
    if tuple(axis.size for axis in axes) != completion.dims:
        raise DataError(f"{artefact.name} is damaged: its modes do not fit its members")
    slices = None
    if content.slices is not None:
        stored = content.slices
        observed = artefact.tensors("slices/").get("observed")
        if observed is None or observed.dim() != 3 or len(stored.at) != len(observed) or len(stored.step) != 2:
            raise DataError(f"{artefact.name} is damaged: its slices are malformed")
        slices = Slices(stored.mode, list(stored.at), list(stored.step), observed)
    return SavedCompletion(completion, axes, content.value, slices)


def strongest_in(artefact: Artefact) -> tuple[Factorization, str]:
    """The factorization of a completion that counts most, without what is added to it, and a sentence that says so.

    Raises:
        DataError: if no factorization counts, as where the mean or effects of the modes predict best.
    """
    completion = to_completion(artefact).completion
    model = completion.model
    if model is None:
        raise DataError(
            f"{artefact.name} has no factorization: the mean and effects of the modes predicted best",
            next_step="There is no rank to measure.",
        )
    members, number = completion.report.get("members") or [], completion.report.get("strongest")
    weights = members[number]["weights"] if isinstance(number, int) and number < len(members) else {}
    weight = f" (weight {max(weights.values()):.2f})" if weights else ""
    return model, f"{artefact.name}: the strongest factorization{weight} of the average, without what is added to it"


def _content(artefact: Artefact) -> _Content:
    written = artefact.expect("completion").content.get("format")
    if written != FORMAT:
        raise DataError(
            f"{artefact.name} holds a completion of another version of htf",
            got=f"version {artefact.version or 'unknown'}, format {1 if written is None else written}",
            allowed=f"format {FORMAT}",
            next_step="Fit it again with htf complete.",
        )
    try:
        return _Content.model_validate(artefact.content)
    except ValidationError:
        raise DataError(f"{artefact.name} is damaged: its description of the completion is malformed") from None


def _labels(artefact: Artefact, stored: Tensor | None, size: int) -> tuple[str, ...] | None:
    if stored is None:
        return None
    try:
        labels = json.loads(stored.numpy().tobytes())
    except ValueError:
        labels = None
    if not isinstance(labels, list) or len(labels) != size or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{artefact.name} is damaged: its labels are malformed")
    return tuple(labels)
