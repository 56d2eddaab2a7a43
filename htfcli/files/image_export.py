"""Image data sets for other programs: PNG files in a folder per class, arrays, or the tree of Long Range Arena."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from htfcli.engine.vision.datasets.image_set import ImageData, ImageSet, StoredImages
from htfcli.engine.vision.datasets.is_same_class import PairCanvases
from htfcli.engine.vision.datasets.long_range_arena import IMAGES_PER_FOLDER, level_of, lines_of
from htfcli.errors import DataError
from htfcli.files.own.container import atomic_write
from htfcli.files.own.folders import atomic_folder

_AT_A_TIME = 256  # images made in one go
Progress = Callable[[int], None]  # called with the number of images written so far


def pixels_of(images: ImageSet) -> Iterator[Tensor]:
    """The images as they are stored, before normalization, some at a time: (b, c, h, w) uint8.

    A canvas is zero after normalization around its two images; here it has the mean there, to 8 bits.
    """
    assert isinstance(images, StoredImages | PairCanvases)
    normalization = images.normalization
    mean, std = (t.cpu().view(-1, 1, 1) for t in (normalization.mean, normalization.std))
    for start in range(0, len(images), _AT_A_TIME):
        rows = torch.arange(start, min(start + _AT_A_TIME, len(images)))
        if isinstance(images, StoredImages):
            yield images.pixels[rows]
        else:
            yield ((images.images(rows) * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def export_arrays(destination: str, data: ImageData, on_progress: Progress) -> None:
    """Write a .npz: `train_images` (n, c, h, w) uint8, `train_labels` (n,), the same for test, `classes`; and masks
    (n, h, w) where there are some.

    Raises:
        DataError: if it cannot be written.
    """
    arrays: dict[str, Any] = {"classes": np.array(data.classes)}
    done = 0
    for part, images in (("train", data.train), ("test", data.test)):
        array = np.empty((len(images), *images.shape), np.uint8)
        start = 0
        for block in pixels_of(images):
            array[start : start + len(block)] = block.numpy()
            start += len(block)
            on_progress(done + start)
        done += start
        arrays |= {f"{part}_images": array, f"{part}_labels": images.labels.numpy()}
        if isinstance(images, StoredImages) and images.masks is not None:
            arrays[f"{part}_masks"] = images.masks.numpy()
    with atomic_write(Path(destination)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def export_folder(destination: str, data: ImageData, on_progress: Progress) -> None:
    """Write train/CLASS/NUMBER.png and test/CLASS/NUMBER.png, as `load_image_folder` reads them; and
    masks/train/NUMBER.png where there are some.

    Raises:
        DataError: if a class cannot be the name of a folder, images have neither one nor three channels, or the folder
            cannot be written.
    """
    for name in data.classes:
        if Path(name).name != name or name.startswith("."):
            raise DataError("a class cannot be the name of a folder", got=repr(name))
    done = 0
    with atomic_folder(destination) as folder:
        for part, images in (("train", data.train), ("test", data.test)):
            for name in data.classes:
                (folder / part / name).mkdir(parents=True)
            masks = images.masks if isinstance(images, StoredImages) else None
            if masks is not None:
                (folder / "masks" / part).mkdir(parents=True)
            width = len(str(len(images) - 1))
            for number, (image, label) in enumerate(zip(_one_by_one(images), images.labels.tolist(), strict=True)):
                file = f"{number:0{width}}.png"
                save_png(folder / part / data.classes[label] / file, image)
                if masks is not None:
                    save_png(folder / "masks" / part / file, masks[number][None])
                done += 1
                on_progress(done)


def export_long_range_arena(destination: str, data: ImageData, on_progress: Progress) -> None:
    """Write Pathfinder images as a tree of Long Range Arena, train images first; its readers split it on their own.

    Raises:
        DataError: if the folder cannot be written.
    """
    images = [image for part in (data.train, data.test) for image in _one_by_one(part)]
    labels = [*data.train.labels.tolist(), *data.test.labels.tolist()]
    with atomic_folder(destination) as folder:
        level = folder / level_of(int(str(data.about["path_length"])))
        (level / "metadata").mkdir(parents=True)
        for start in range(0, len(images), IMAGES_PER_FOLDER):
            number = start // IMAGES_PER_FOLDER
            inner = level / "imgs" / str(number)
            inner.mkdir(parents=True)
            part = slice(start, start + IMAGES_PER_FOLDER)
            for k, image in enumerate(images[part]):
                save_png(inner / f"sample_{k}.png", image)
                on_progress(start + k + 1)
            lines = lines_of(labels[part], data.about, number)
            (level / "metadata" / f"{number}.npy").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def save_png(path: Path, pixels: Tensor) -> None:
    """Write an image (1 or 3, h, w) uint8."""
    if len(pixels) not in (1, 3):
        raise DataError("images of PNG files have one channel or three", got=len(pixels), next_step="Write a .npz.")
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(array[:, :, 0] if len(pixels) == 1 else array).save(path)


def _one_by_one(images: ImageSet) -> Iterator[Tensor]:
    for block in pixels_of(images):
        yield from block
