"""Networks: built from a configuration or by a user's function, saved in our container and rebuilt from it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from htfcli.config.vision import NETWORKS, TrainCnnConfig
from htfcli.engine.vision.datasets.image_set import ImageData
from htfcli.engine.vision.resnet import resnet
from htfcli.errors import ConfigError, DataError
from htfcli.files.own import container
from htfcli.files.own.container import Artefact
from htfcli.files.weights import without_prefixes


class _Content(BaseModel):
    """Content of a network's file, validated."""

    model_config = ConfigDict(extra="forbid", strict=True)
    task: str
    classes: list[str]
    shape: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)]
    outputs: PositiveInt
    data: str | None = None


@dataclass(frozen=True)
class SavedNetwork:
    """A trained network.

    Args:
        name: for messages. model: in evaluation mode. config: the configuration it was trained with.
        shape: (c, h, w) of its images. data: path of the images, None if they were generated or piped.
    """

    name: str
    model: nn.Module
    config: TrainCnnConfig
    shape: tuple[int, int, int]
    data: str | None


def build_network(config: TrainCnnConfig, shape: tuple[int, int, int], outputs: int) -> nn.Module:
    """The network of a configuration; its seed determines the weights.

    Raises:
        ConfigError: if a user's network cannot be built or does not accept images of this shape.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        if config.model in NETWORKS:
            return resnet(config.model, shape[0], outputs, config.dropout, **config.mini_shape)
        return user_network(config.model, shape, outputs)


def user_network(spec: str, shape: tuple[int, int, int], outputs: int) -> nn.Module:
    """The network that the function `module:function` returns for (channels, outputs), tested on images of this shape.

    Raises:
        ConfigError: if it cannot be imported, fails, or does not return a network with that many outputs.
    """
    name, _, function = spec.partition(":")
    if (folder := os.getcwd()) not in sys.path:  # as `python -m` has it; the htf script does not
        sys.path.insert(0, folder)
    try:
        build = getattr(importlib.import_module(name), function)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise ConfigError(f"cannot import {spec}: {_reason(error)}") from None
    try:
        model = build(shape[0], outputs)
        if not isinstance(model, nn.Module):
            raise TypeError(f"it returned a {type(model).__name__}, not a torch.nn.Module")
        with torch.no_grad():
            found = tuple(model.train(False)(torch.zeros(2, *shape)).shape)
        if found != (2, outputs):
            raise ValueError(f"it gives outputs of shape {found}, not (2, {outputs}), for two images")
    except Exception as error:
        raise ConfigError(f"{spec} does not build a network for these images: {_reason(error)}") from None
    return model


def _reason(error: Exception) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0].rstrip('.')}" if text else type(error).__name__


def save_network(
    destination: str | Path, model: nn.Module, data: ImageData, source: str | None, config: Mapping[str, Any]
) -> None:
    """Write the weights of a network and what is needed to rebuild it.

    Args:
        destination: a file, or `-`. data: what it was trained on. source: path of these images. config: its settings.
    """
    content = {
        "task": data.task,
        "classes": list(data.classes),
        "shape": list(data.train.shape),
        "outputs": outputs_of(data),
        "data": source,
    }
    container.save(destination, "cnn", model.state_dict(), content, config)


def outputs_of(data: ImageData) -> int:
    """Number of logits of a network for this data: one for a binary task, one per class otherwise."""
    return 1 if data.binary else len(data.classes)


def to_network(artefact: Artefact, user: str | None = None) -> SavedNetwork:
    """The network in a container of that kind.

    Args:
        user: module:function that built it; a file alone must not make code run.
    Raises:
        DataError: if the file is damaged. ConfigError: if it is a user's network and `user` is not its function.
    """
    content = artefact.expect("cnn").content_as(_Content)
    try:
        config = TrainCnnConfig.checked(artefact.config)
    except ConfigError as error:
        raise DataError(f"{artefact.name} is damaged: {error}") from None
    if config.model not in NETWORKS and user != config.model:
        raise ConfigError(
            f"{artefact.name} is a network that only your own code can build",
            got=f"--model {user}" if user else "no --model",
            allowed=f"--model {config.model}",
        )
    channels, height, width = content.shape
    shape = (channels, height, width)
    model = build_network(config, shape, content.outputs)
    load_weights(model, artefact.tensors(), artefact.name)
    return SavedNetwork(artefact.name, model.train(False), config, shape, content.data)


def load_weights(model: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Load weights into a network, without the prefixes of wrappers.

    Raises:
        DataError: if names or shapes do not match, with the first mismatch.
    """
    if any(tensor.dtype == torch.float64 for tensor in weights.values()):
        model.double()
    try:
        model.load_state_dict(without_prefixes(weights, model))
    except RuntimeError as error:
        detail = str(error).splitlines()[1:2] or [str(error)]
        raise DataError(f"the weights in {name} do not fit the network: {detail[0].strip().rstrip('.')}") from None
