"""A contact sheet: the first images of a data set, each under the name of its label."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from htfcli.engine.vision.datasets.image_set import ImageData, StoredImages
from htfcli.engine.vision.datasets.is_same_class import PairCanvases

_IMAGES = 32
_WIDTH = 12.0  # inches of the sheet
_TITLE = 0.25  # inches of an image's title
_COLOURS = ("#b5452c", "#2c6fb5", "#3a7d44", "#8a5aa8", "#8f6b12", "#4a4a4a")  # of labels, in turn


def contact_sheet(data: ImageData) -> Figure:
    """Draw the first train images in their own colours; what networks see as zero has the mean colour.

    Of the empty rows above and below a pair only some are shown.
    """
    images = data.train
    assert isinstance(images, StoredImages | PairCanvases)
    count = min(_IMAGES, len(images))
    mean, std = (t.view(-1, 1, 1) for t in (images.normalization.mean, images.normalization.std))
    pixels = (images.images(torch.arange(count)) * std + mean).permute(0, 2, 3, 1)  # (count, h, w, c)
    pixels = (pixels / pixels.max()).clamp(0, 1)  # not all pixels go up to 255
    if images.patches is not None:
        top, high = images.patches[0].top, images.patches[0].height
        pixels = pixels[:, max(0, top - high // 2) : top + high + high // 2]
    _, height, width, _ = pixels.shape
    columns = 8 if width < 2 * height else 4
    rows = -(-count // columns)
    cell = 0.94 * _WIDTH / columns * height / width + _TITLE
    figure = Figure(figsize=(_WIDTH, rows * cell + 0.4), dpi=110)
    figure.suptitle(_title(data), fontsize=12, y=1 - 0.12 / figure.get_figheight(), va="top")
    edges = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 1 - (0.4 + _TITLE) / figure.get_figheight()}
    grid = figure.subplots(
        rows, columns, squeeze=False, gridspec_kw={**edges, "wspace": 0.06, "hspace": 1.1 * _TITLE / (cell - _TITLE)}
    )
    for number, axes in enumerate(grid.flat):
        axes.axis("off")
        if number < count:
            label = int(images.labels[number])
            axes.imshow(pixels[number].numpy().squeeze(), cmap="gray", vmin=0, vmax=1)
            axes.set_title(data.classes[label], fontsize=9, pad=3, color=_COLOURS[label % len(_COLOURS)])
    return figure


def _title(data: ImageData) -> str:
    """The task, and what its difficulty depends on."""
    _, height, width = data.train.shape
    told = {"source": "", "distance": "distance ", "path_length": "path length "}
    facts = [f"{words}{data.about[key]}" for key, words in told.items() if data.about.get(key) is not None]
    return ", ".join([data.task, *facts, f"{height} x {width} pixels"])
