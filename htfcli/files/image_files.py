"""Image data sets in our container: stored images, or for pairs each image once and the pairs as indices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from htfcli.config.records import Record
from htfcli.engine.vision.datasets.image_folder import has_classes, has_own_split, read_files, read_split_folder
from htfcli.engine.vision.datasets.image_set import ImageData, ImageSet, Normalization, StoredImages
from htfcli.engine.vision.datasets.is_same_class import PairCanvases, placement
from htfcli.engine.vision.datasets.labelled import Labelled, normalization_of, stratified_split
from htfcli.engine.vision.datasets.long_range_arena import find_level, read_lines
from htfcli.engine.vision.datasets.pathfinder import CLASSES as PATHFINDER_CLASSES
from htfcli.errors import ConfigError, DataError
from htfcli.files.inputs import open_artefact
from htfcli.files.own import container
from htfcli.files.own.container import Artefact


class _Canvas(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    height: PositiveInt
    width: PositiveInt
    distance: NonNegativeInt


class _Content(BaseModel):
    """Content of an image file, validated."""

    model_config = ConfigDict(extra="forbid", strict=True)
    task: Literal["is-same-class", "pathfinder", "images"]
    classes: Annotated[list[str], Field(min_length=2)]
    canvas: _Canvas | None = None

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        if (self.canvas is not None) != (self.task == "is-same-class"):
            raise ValueError("a canvas belongs to pairs, and pairs have one")
        if self.task != "images" and len(self.classes) != 2:
            raise ValueError("the task has two classes")
        return self


def image_facts(data: ImageData) -> Record:
    """A record that describes a data set."""
    return {
        "kind": "images",
        "task": data.task,
        "image": list(data.train.shape),
        "classes": list(data.classes),
        "train": len(data.train),
        "test": len(data.test),
    }


def save_image_data(destination: str | Path, data: ImageData) -> None:
    """Write a data set, with `data.about` as its configuration, to a file, or to stdout if `destination` is `-`."""
    tensors: dict[str, Tensor] = {}
    canvas = None
    for part, images in (("train", data.train), ("test", data.test)):
        assert isinstance(images, StoredImages | PairCanvases)
        tensors |= {f"{part}/pixels": images.pixels.contiguous(), f"{part}/labels": images.labels.int()}
        tensors |= {"mean": images.normalization.mean, "std": images.normalization.std}
        if isinstance(images, StoredImages) and images.masks is not None:
            tensors[f"{part}/masks"] = images.masks.contiguous()
        if isinstance(images, PairCanvases):
            tensors[f"{part}/pairs"] = images.pairs.int()
            height, width = images.canvas
            canvas = {"height": height, "width": width, "distance": images.distance}
    content = {"task": data.task, "classes": list(data.classes), "canvas": canvas}
    container.save(destination, "images", tensors, content, data.about)


def load_image_data(argument: str) -> ImageData:
    """A data set from a file that `htf generate` wrote, or from stdin (`-`).

    Raises:
        DataError: if it does not exist, holds something else or is damaged.
    """
    return to_image_data(open_artefact(argument, "images"))


def load_image_folder(path: str, size: int | None = None, seed: int = 0, test_fraction: float = 0.2) -> ImageData:
    """A user's images: one sub-folder per class, or such sub-folders in `train` and `test`; or a tree of Pathfinder
    images as Long Range Arena has it (see `long_range_arena`).

    Args:
        path: the folder. size: side of the square that images are resized to (None: the size of the first one).
        seed, test_fraction: of the split, stratified by class, of a folder without `train` and `test`.
    Raises:
        DataError: if an image cannot be read, or there is only one class. ConfigError: if a class would be on one side
            of the split only.
    """

    def split(images: Labelled) -> tuple[Labelled, Labelled]:
        held_out = round(test_fraction * len(images.labels))
        return stratified_split(images, held_out, np.random.default_rng(seed))

    task, level = "images", find_level(Path(path))
    if level is None:
        train, test, classes = read_split_folder(Path(path), size, split)
    else:
        files, labels = read_lines(level)
        task, classes = "pathfinder", PATHFINDER_CLASSES
        square = None if size is None else (size, size)
        train, test = split(Labelled(read_files(level, files, square), torch.tensor(labels)))
    normalization = normalization_of(train.pixels)
    stored = [StoredImages(part.pixels, part.labels, normalization) for part in (train, test)]
    about: dict[str, object] = {"data_dir": path, "image_size": size, "seed": seed, "test_fraction": test_fraction}
    return ImageData(task, classes, stored[0], stored[1], about)


def is_image_folder(path: str) -> bool:
    """Whether a folder holds images by class, or a tree of Long Range Arena."""
    folder = Path(path)
    if not folder.is_dir() or (folder / "records.jsonl").exists():
        return False
    return find_level(folder) is not None or has_own_split(folder) or has_classes(folder)


def to_image_data(artefact: Artefact) -> ImageData:
    """The data set in a container of that kind, checked: types, shapes, ranges of labels and indices.

    Raises:
        DataError: for the first problem found.
    """
    content = artefact.expect("images").content_as(_Content)
    tensors = artefact.tensors()
    train, test = (_to_set(artefact.name, part, tensors, content) for part in ("train", "test"))
    if train.shape != test.shape:
        raise DataError(f"{artefact.name} is damaged: its train and test images differ in size")
    return ImageData(content.task, tuple(content.classes), train, test, artefact.config)


def _to_set(name: str, part: str, tensors: dict[str, Tensor], content: _Content) -> ImageSet:
    def get(key: str, shape: tuple[int | None, ...], dtype: torch.dtype) -> Tensor:
        tensor = tensors.get(key)
        fits = tensor is not None and tensor.dim() == len(shape) and tensor.dtype == dtype and tensor.numel() > 0
        if tensor is None or not fits or any(w not in (None, s) for s, w in zip(tensor.shape, shape, strict=True)):
            raise DataError(f"{name} is damaged: {key} is missing or has the wrong type or shape")
        return tensor

    def within(key: str, tensor: Tensor, bound: int) -> Tensor:
        if int(tensor.min()) < 0 or int(tensor.max()) >= bound:
            got = f"{int(tensor.min())} to {int(tensor.max())}"
            raise DataError(f"{name} is damaged: {key} is out of range", got=got, allowed=f"0 to {bound - 1}")
        return tensor.long()

    pixels = get(f"{part}/pixels", (None, None, None, None), torch.uint8)
    mean, std = (get(key, (pixels.shape[1],), torch.float32) for key in ("mean", "std"))
    if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
        raise DataError(f"{name} is damaged: its mean or standard deviation cannot normalize")
    normalization = Normalization(mean, std)
    count = len(pixels) if content.canvas is None else None
    labels = within(f"{part}/labels", get(f"{part}/labels", (count,), torch.int32), len(content.classes))
    if content.canvas is None:
        masks = None
        if f"{part}/masks" in tensors:
            masks = get(f"{part}/masks", (len(pixels), *pixels.shape[2:]), torch.uint8)
        return StoredImages(pixels, labels, normalization, masks=masks)
    pairs = within(f"{part}/pairs", get(f"{part}/pairs", (len(labels), 2), torch.int32), len(pixels))
    canvas = (content.canvas.height, content.canvas.width)
    try:
        placement(pixels.shape[2:], canvas, content.canvas.distance)
    except ConfigError as error:
        raise DataError(f"{name} is damaged: {error}") from None
    return PairCanvases(pixels, pairs, labels, canvas, content.canvas.distance, normalization)
