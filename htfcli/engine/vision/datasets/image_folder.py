"""A user's images: one sub-folder a class, of image files of any format that Pillow reads, brought to one size.

Axes: `n` images, `c` channels (1 if all files are grey, else 3), `h` rows, `w` columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from htfcli.engine.vision.datasets.labelled import Labelled
from htfcli.errors import DataError

Result = TypeVar("Result")

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

_GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")
_MOST_PIXELS = 50_000_000  # of a file: a small one may claim any size
_MOST_BYTES = 8 * 2**30  # of all images


def has_own_split(folder: Path) -> bool:
    """Whether the folder has the sub-folders train and test, which then have those of the classes."""
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def has_classes(folder: Path) -> bool:
    """Whether the folder has two sub-folders or more, the first of which has an image."""
    inner = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    return len(inner) > 1 and any(f.suffix.lower() in SUFFIXES for f in inner[0].iterdir())


def read_split_folder(
    folder: Path, size: int | None, split: Callable[[Labelled], tuple[Labelled, Labelled]]
) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    """Train images, test images and names of the classes.

    Args:
        size: side of the square that images are resized to (None: to the size of the first). split: makes two parts of
            a folder that has no split of its own.
    Raises:
        DataError: if the folder does not hold images of two classes or more, or one of them cannot be read.
    """
    square = None if size is None else (size, size)
    if not has_own_split(folder):
        images, classes = read_folder(folder, square)
        return *split(images), classes
    train, classes = read_folder(folder / "train", square)
    test, test_classes = read_folder(folder / "test", train.pixels.shape[2:], train.pixels.shape[1])
    if classes != test_classes:
        got, allowed = ", ".join(test_classes), ", ".join(classes)
        raise DataError(f"{folder} has other classes in test than in train", got=got, allowed=allowed)
    return train, test, classes


def read_folder(
    folder: Path, size: Sequence[int] | None, channels: int | None = None
) -> tuple[Labelled, tuple[str, ...]]:
    """Images and names of the classes, which are numbered by alphabet.

    Args:
        size: height and width to resize to (None: those of the first image). channels: 1 or 3 (None: as the files are).
    """
    files, labels, classes = _files(folder)
    return Labelled(read_files(folder, files, size, channels), torch.tensor(labels)), classes


def read_files(folder: Path, files: Sequence[Path], size: Sequence[int] | None, channels: int | None = None) -> Tensor:
    """Pixels of image files, (n, c, h, w) uint8.

    Args:
        folder: for messages. size, channels: as for `read_folder`.
    Raises:
        DataError: if one cannot be read, or they take too much memory.
    """
    if channels is None:
        channels = 3 if any(_use(file, lambda image: image.mode) not in _GREY for file in files) else 1
    mode = {1: "L", 3: "RGB"}[channels]

    def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
        upright = ImageOps.exif_transpose(image).convert(mode)
        if size is not None and upright.size != (size[1], size[0]):
            upright = upright.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return np.asarray(upright).reshape(upright.height, upright.width, channels)

    first = _use(files[0], pixels_of)
    size = first.shape[:2]
    if len(files) * first.size > _MOST_BYTES:
        got, allowed = f"{len(files)} images of {size[0]} x {size[1]}", f"{_MOST_BYTES // 2**30} GiB"
        raise DataError(f"{folder} is too large", got=got, allowed=allowed, next_step="Resize them by --image-size.")
    pixels = np.empty((len(files), channels, *size), np.uint8)
    for row, file in enumerate(files):
        pixels[row] = _use(file, pixels_of).transpose(2, 0, 1)
    return torch.from_numpy(pixels)


def _files(folder: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Image files, the label of each, and names of the classes; all in alphabetical order."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    folders = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    if len(folders) < 2:
        got, allowed = len(folders), "two or more, each with the images of a class"
        raise DataError(f"{folder} has too few sub-folders", got=got, allowed=allowed)
    files: list[Path] = []
    labels: list[int] = []
    for label, inner in enumerate(folders):
        found = sorted(f for f in inner.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        if not found:
            raise DataError(f"{inner} has no images", allowed=" ".join(SUFFIXES))
        files += found
        labels += [label] * len(found)
    return files, labels, tuple(f.name for f in folders)


def _use(file: Path, function: Callable[[Image.Image], Result]) -> Result:
    """What `function` makes of the image in a file.

    Raises:
        DataError: if it cannot be read, claims too many pixels, or has more than 8 bits.
    """
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise DataError(f"cannot read {file}: not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, weaker limit of pixels, and oddities of files it can read
            with Image.open(file) as image:
                if image.width * image.height > _MOST_PIXELS:
                    got = f"{image.width} x {image.height}"
                    raise DataError(f"{file} has too many pixels", got=got, allowed=f"{_MOST_PIXELS:,} in all")
                if image.mode not in (*_GREY, *_COLOUR):
                    raise DataError(f"{file} does not have 8 bits a channel", got=f"mode {image.mode}")
                return function(image)
    except Image.DecompressionBombError:
        raise DataError(f"{file} has too many pixels", allowed=f"{_MOST_PIXELS:,} in all") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # all of which Pillow raises for damaged files
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error).partition("\n")[0]
        raise DataError(f"cannot read {file}: {reason}") from None
