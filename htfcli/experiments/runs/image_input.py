"""The images a run works on: from a file, a folder, a pipe, or generated as its configuration says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from htfcli.config.base import Config
from htfcli.config.images import IsSameClassConfig, PathfinderConfig
from htfcli.config.vision import TrainCnnConfig
from htfcli.engine.vision.datasets.image_set import ImageData
from htfcli.engine.vision.datasets.is_same_class import make_is_same_class
from htfcli.engine.vision.datasets.pathfinder import make_pathfinder
from htfcli.errors import ConfigError
from htfcli.files.image_files import load_image_data, load_image_folder

TASKS: dict[type[Config], Callable[[Any, Callable[[int], None] | None], ImageData]] = {
    IsSameClassConfig: lambda config, on_progress: make_is_same_class(config),
    PathfinderConfig: lambda config, on_progress: make_pathfinder(config, on_progress=on_progress),
}


def image_data(
    config: TrainCnnConfig, source: str | None, on_progress: Callable[[int], None] | None = None
) -> ImageData:
    """Images from `source`, or those of `config.task`.

    Raises:
        ConfigError: if both or neither are there.
    """
    generation = config.generation()
    if source is not None and generation is not None:
        raise ConfigError("DATA is there and --task asks for other images", got=source, next_step="Leave one out.")
    if source is not None:
        return load_images(source, config.seed, config.image_size)
    if generation is None:
        raise ConfigError(
            "no images to train on",
            next_step="Shortest useful call: htf train-cnn --task is-same-class (see htf train-cnn --help).",
        )
    return TASKS[type(generation)](generation, on_progress)


def load_images(source: str, seed: int = 0, size: int | None = None) -> ImageData:
    """Images from a file of ours, stdin, or a folder with one sub-folder a class.

    Args:
        seed: of the split of a folder. size: of the squares that its images are resized to.
    Raises:
        ConfigError: if a size is given for a file.
    """
    if Path(source).is_dir():
        return load_image_folder(source, size, seed)
    if size is not None:
        raise ConfigError("--image-size is for a folder of images", got=source)
    return load_image_data(source)


def fingerprint(data: ImageData) -> str:
    """A digest of the images and labels, by which a resumed run knows that they are the same."""
    digest = hashlib.sha256(repr((data.task, data.classes, data.train.shape, data.train.patches)).encode())
    for images in (data.train, data.test):
        for value in vars(images).values():
            if isinstance(value, Tensor):
                digest.update(value.contiguous().numpy().data)
    return digest.hexdigest()
