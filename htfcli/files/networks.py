"""Networks: built as a configuration says, saved in our container, built again from it; also by a user's function."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from htfcli.config.vision import NETWORKS, TrainCnnConfig
from htfcli.engine.vision.datasets.image_set import ImageData
from htfcli.engine.vision.resnet import resnet
from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.readers import refuse_special
from htfcli.files.own import container
from htfcli.files.own.container import Artefact


class _Content(BaseModel):
    """Content of a network's file, validated."""

    model_config = ConfigDict(extra="forbid", strict=True)
    task: str
    classes: list[str]
    shape: list[PositiveInt]
    outputs: PositiveInt
    data: str | None = None


@dataclass(frozen=True)
class SavedNetwork:
    """A trained network.

    Args:
        name: for messages. model: in evaluation mode. config: what it was trained with.
        shape: (c, h, w) of its images. data: where they came from, if not generated.
    """

    name: str
    model: nn.Module
    config: TrainCnnConfig
    shape: tuple[int, int, int]
    data: str | None


def build_network(config: TrainCnnConfig, shape: tuple[int, int, int], outputs: int) -> nn.Module:
    """The network a configuration asks for; its seed determines the weights.

    Raises:
        ConfigError: if a user's network cannot be built or does not run on images of this shape.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        if config.model in NETWORKS:
            return resnet(config.model, shape[0], outputs, config.dropout, **config.mini_shape)
        return user_network(config.model, shape, outputs)


def user_network(spec: str, shape: tuple[int, int, int], outputs: int) -> nn.Module:
    """What the function `module:function` returns for (channels, outputs), tried on images of this shape.

    Raises:
        ConfigError: if it cannot be imported, fails, or does not return a network with that many outputs.
    """
    name, _, function = spec.partition(":")
    if (folder := os.getcwd()) not in sys.path:  # as `python -m` does; the htf script does not
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
    """Write a network's weights and what is needed to build it again; `source` is where the images are."""
    content = {
        "task": data.task,
        "classes": list(data.classes),
        "shape": list(data.train.shape),
        "outputs": outputs_of(data),
        "data": source,
    }
    container.save(destination, "cnn", model.state_dict(), content, config)


def outputs_of(data: ImageData) -> int:
    """Logits of a network for this data: one for a binary task, one a class otherwise."""
    return 1 if data.binary else len(data.classes)


def to_network(artefact: Artefact, user: str | None = None) -> SavedNetwork:
    """The network in a container of that kind.

    Args:
        user: module:function that built it, which no file may ask for by itself.
    Raises:
        DataError: if the file is damaged. ConfigError: if it is a user's network and `user` does not name its builder.
    """
    artefact.expect("cnn")
    try:
        content = _Content.model_validate(artefact.content)
        channels, height, width = content.shape
        config = TrainCnnConfig.checked(artefact.config)
    except (ValidationError, ValueError, ConfigError):
        raise DataError(f"{artefact.name} is damaged: its description of the network is malformed") from None
    if config.model not in NETWORKS and user != config.model:
        raise ConfigError(
            f"{artefact.name} is a network of yours, which only your code can build",
            got=f"--model {user}" if user else "no --model",
            allowed=f"--model {config.model}",
        )
    shape = (channels, height, width)
    model = build_network(config, shape, content.outputs)
    load_weights(model, artefact.tensors(), artefact.name)
    return SavedNetwork(artefact.name, model.train(False), config, shape, content.data)


def load_weights(model: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Put weights into a network.

    Raises:
        DataError: if names or shapes do not match, with the first one that does not.
    """
    if any(tensor.dtype == torch.float64 for tensor in weights.values()):
        model.double()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[1:2] or [str(error)]
        raise DataError(f"the weights in {name} do not fit the network: {detail[0].strip().rstrip('.')}") from None


def read_weights(path: str) -> dict[str, Tensor]:
    """A state dict from a .safetensors file, or a .pt or .pth file read as plain tensors.

    Raises:
        DataError: if it cannot be read as one.
    """
    refuse_special(Path(path))
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"cannot read the weights {path}: {_reason(error)}") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise DataError(f"{path} holds no state dict", got=type(loaded).__name__, allowed="names and tensors")
    return dict(loaded)
