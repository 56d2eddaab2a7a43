"""Pathfinder: are the two marked ends those of one dashed path, or of two? Images by the thousand, on several cores.

Axes: `n` images, train images first, then test images; `s` rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htfcli.config.images import PathfinderConfig
from htfcli.engine.runtime.processes import in_processes, usable_cores
from htfcli.engine.vision.datasets.image_set import ImageData, StoredImages
from htfcli.engine.vision.datasets.labelled import normalization_of
from htfcli.engine.vision.datasets.pathfinder_drawing import NoRoomError, draw_images
from htfcli.errors import RunError

CLASSES = ("different", "same")
_CHUNK = 100  # images drawn in one go: a tenth of a second
_WORTH_A_PROCESS = 10  # chunks that take as long as a process takes to start


@dataclass(frozen=True)
class _Chunk:
    """Images number first, first + 1, ... of a part, which are rows row, row + 1, ... of all."""

    part: str
    first: int
    row: int
    labels: list[int]


class PathfinderDrawing:
    """The images of a data set while they are drawn; may stop after any chunk and go on from its state.

    An image depends on the configuration and its own number only, so who draws it and in what order changes nothing.

    Attributes:
        pixels: (n, s, s) uint8; those of chunks that are not drawn yet are 0. done: images drawn. total: n.
    """

    def __init__(self, config: PathfinderConfig) -> None:
        self.config = config
        self.total = config.train + config.test
        self._labels = {part: _balanced_labels(config, part) for part in ("train", "test")}
        self._chunks: list[_Chunk] = []
        for part, start in (("train", 0), ("test", config.train)):
            labels = self._labels[part]
            for i in range(0, len(labels), _CHUNK):
                self._chunks.append(_Chunk(part, i, start + i, labels[i : i + _CHUNK].tolist()))
        self.pixels: NDArray[np.uint8] = np.zeros((self.total, config.size, config.size), np.uint8)
        self._drawn = np.zeros(len(self._chunks), bool)

    @property
    def done(self) -> int:
        return sum(len(chunk.labels) for chunk, drawn in zip(self._chunks, self._drawn, strict=True) if drawn)

    def draw(self, workers: int | None) -> Iterator[int]:
        """Draw what is missing; yields the number of images there are, after each chunk.

        Args:
            workers: processes that draw (None: as many as there are cores and it pays).
        Raises:
            RunError: if paths so long do not fit, or a process is killed.
        """
        missing = np.flatnonzero(~self._drawn)
        calls = [(self.config, c.part, c.first, c.labels) for c in (self._chunks[i] for i in missing)]
        workers = workers or min(usable_cores(), len(calls) // _WORTH_A_PROCESS)
        done = self.done
        try:
            for number, pixels in in_processes(workers, draw_images, calls):
                chunk = self._chunks[missing[number]]
                self.pixels[chunk.row : chunk.row + len(pixels)] = pixels
                self._drawn[missing[number]] = True
                done += len(pixels)
                yield done
        except NoRoomError:
            size = self.config.canvas
            what = f"there is no room for two paths of {self.config.path_length} dashes on a canvas of {size} x {size}"
            raise RunError(what, next_step="Shorten them by --path-length, or enlarge --size or --draw-size.") from None
        except BrokenProcessPool:
            raise RunError("a process that draws was killed", next_step="Try again with fewer --workers.") from None

    def data(self) -> ImageData:
        """The data set, all images having been drawn; normalised by mean and standard deviation of the train images."""
        pixels = torch.from_numpy(self.pixels)[:, None]
        parts = pixels[: self.config.train], pixels[self.config.train :]
        normalization = normalization_of(parts[0])
        train, test = (
            StoredImages(images, torch.from_numpy(labels), normalization)
            for images, labels in zip(parts, self._labels.values(), strict=True)
        )
        return ImageData("pathfinder", CLASSES, train, test, self.config.model_dump(mode="json"))

    def state(self) -> dict[str, Tensor]:
        """The chunks that are drawn."""
        return {"chunks": torch.from_numpy(self._drawn), "pixels": torch.from_numpy(self.pixels[self._rows()])}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state of the same configuration; KeyError or ValueError if it does not fit."""
        drawn, pixels = state["chunks"].numpy(), state["pixels"].numpy()
        if drawn.dtype == bool and drawn.shape == self._drawn.shape and pixels.dtype == np.uint8:
            self._drawn = drawn
            rows = self._rows()
            if pixels.shape == (rows.sum(), *self.pixels.shape[1:]):
                self.pixels[rows] = pixels
                return
        raise ValueError("the state is of another data set")

    def _rows(self) -> NDArray[np.bool_]:
        """Which images are drawn, (n,)."""
        return np.repeat(self._drawn, [len(chunk.labels) for chunk in self._chunks])


def make_pathfinder(
    config: PathfinderConfig, workers: int | None = 1, on_progress: Callable[[int], None] | None = None
) -> ImageData:
    """Draw a data set.

    Args:
        workers: processes that draw (None: as many as there are cores; a script that asks for more than one must guard
            its main code by `if __name__ == "__main__"`). on_progress: called with the number of images drawn so far.
    Raises:
        RunError: if paths so long do not fit the canvas.
    """
    drawing = PathfinderDrawing(config)
    for done in drawing.draw(workers):
        if on_progress is not None:
            on_progress(done)
    return drawing.data()


def _balanced_labels(config: PathfinderConfig, part: str) -> NDArray[np.int64]:
    """As many of one label as of the other (of an odd number, one 0 more), shuffled."""
    count = {"train": config.train, "test": config.test}[part]
    generator = np.random.default_rng((config.seed, ["train", "test"].index(part)))
    return generator.permutation(np.arange(count) % 2)
