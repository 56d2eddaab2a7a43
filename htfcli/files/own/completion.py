"""Fitted completions in our container: predictors of a tensor's entries, with the names and labels of its modes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from htfcli.engine.completion.predictor import Completion, Predictor
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.observations.centring import Effects
from htfcli.errors import DataError
from htfcli.files.own import container
from htfcli.files.own.artefacts import rebuild
from htfcli.files.own.axes import Axis
from htfcli.files.own.container import Artefact


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


@dataclass(frozen=True)
class SavedCompletion:
    """A completion with what its modes and values are called; `slices` if there is something to show."""

    completion: Completion
    axes: tuple[Axis, ...]
    value_name: str
    slices: Slices | None = None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Member(_Strict):
    factorization: dict[str, Any]
    mean: float
    floor: float | None


class _Axis(_Strict):
    name: str
    size: PositiveInt
    first: int


class _Slices(_Strict):
    mode: NonNegativeInt
    at: list[NonNegativeInt]
    step: list[PositiveInt]


class _Content(_Strict):
    value: str
    axes: list[_Axis]
    members: Annotated[list[_Member], Field(min_length=2)]
    slices: _Slices | None


def save_completion(destination: str | Path, saved: SavedCompletion, config: Mapping[str, Any]) -> None:
    """Write the predictor and its ensemble, in this order: members 0, 1, ..."""
    tensors: dict[str, Tensor] = {}
    members = []
    for number, member in enumerate((saved.completion.predictor, *saved.completion.ensemble)):
        tensors |= {f"{number}/weights/{name}": weight for name, weight in member.model.weights.items()}
        tensors |= {f"{number}/effects/{mode}": effect for mode, effect in enumerate(member.effects.by_mode)}
        members.append({"factorization": member.model.describe(), "mean": member.effects.mean, "floor": member.floor})
    for mode, axis in enumerate(saved.axes):
        if axis.labels is not None:  # as bytes of JSON: millions of labels do not fit into the header
            tensors[f"labels/{mode}"] = torch.frombuffer(bytearray(json.dumps(axis.labels).encode()), dtype=torch.uint8)
    slices = saved.slices
    if slices is not None:
        tensors["slices/observed"] = slices.observed
    content = {
        "value": saved.value_name,
        "axes": [{"name": axis.name, "size": axis.size, "first": axis.first} for axis in saved.axes],
        "members": members,
        "slices": None if slices is None else {"mode": slices.mode, "at": slices.at, "step": slices.step},
    }
    container.save(destination, "completion", tensors, content, config)


def to_completion(artefact: Artefact) -> SavedCompletion:
    """The completion in a container of that kind.

    Raises:
        DataError: if it is damaged.
    """
    content = _content(artefact)
    predictor, *ensemble = (_member(artefact, number, told) for number, told in enumerate(content.members))
    labels = artefact.tensors("labels/")
    axes = tuple(
        Axis(axis.name, axis.size, _labels(artefact, labels.get(str(mode)), axis.size), axis.first)
        for mode, axis in enumerate(content.axes)
    )
    if tuple(axis.size for axis in axes) != predictor.dims or any(m.dims != predictor.dims for m in ensemble):
        raise DataError(f"{artefact.name} is damaged: its modes do not fit its factorization")
    slices = None
    if content.slices is not None:
        told = content.slices
        observed = artefact.tensors("slices/").get("observed")
        if observed is None or observed.dim() != 3 or len(told.at) != len(observed) or len(told.step) != 2:
            raise DataError(f"{artefact.name} is damaged: its slices are malformed")
        slices = Slices(told.mode, list(told.at), list(told.step), observed)
    return SavedCompletion(Completion(predictor, tuple(ensemble), {}), axes, content.value, slices)


def factorization_in(artefact: Artefact) -> Factorization:
    """The factorization of a completion, without the effects that are added to it."""
    return _member(artefact, 0, _content(artefact).members[0]).model


def _content(artefact: Artefact) -> _Content:
    try:
        return _Content.model_validate(artefact.expect("completion").content)
    except ValidationError:
        raise DataError(f"{artefact.name} is damaged: its description of the completion is malformed") from None


def _member(artefact: Artefact, number: int, told: _Member) -> Predictor:
    model = rebuild(artefact, told.factorization, artefact.tensors(f"{number}/weights/"))
    effects = artefact.tensors(f"{number}/effects/")
    by_mode = tuple(effects[str(mode)].double() for mode in range(len(effects)) if str(mode) in effects)
    if effects and tuple(tuple(effect.shape) for effect in by_mode) != tuple((d,) for d in model.dims):
        raise DataError(f"{artefact.name} is damaged: its effects do not fit its factorization")
    return Predictor(model.to(torch.float64), Effects(told.mean, by_mode), told.floor)


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
