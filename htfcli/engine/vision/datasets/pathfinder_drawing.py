"""One image of Pathfinder: dashed paths laid out without collisions, then drawn once.

Source: Linsley, Kim, Veerabadran, Windolf and Serre, "Learning long-range spatial dependencies with horizontal gated
recurrent units" (2018), as Razin, Maman and Cohen, arXiv 2201.11729, use it.

A dash is a stroke with round ends: all points within thickness / 2 of a segment, its *core*, which is dash_length -
thickness long. Two dashes are `margin` apart or more, that is, their cores are margin + thickness apart or more; the
next dash of a path begins at just that distance, so along a straight path dashes are exactly `margin` apart. Points of
the plane are complex numbers, columns + rows * 1j, in pixels of the canvas.

This module needs no torch, so that processes that draw start fast.
"""

from __future__ import annotations

import cmath
import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from htfcli.config.images import PathfinderConfig

Core = tuple[complex, complex]  # where a dash begins and ends
Path = list[Core]

_TURNS = 8  # tried at the end of a path before it is given up
_LAYOUTS = 3000  # tried before there is said to be no room
_STARTS = 200  # tried for a distractor before it is left out


class NoRoomError(Exception):
    """Two long paths do not fit the canvas."""


@dataclass(frozen=True)
class Layout:
    """What is in an image: two long paths, short ones, and the two points that are marked."""

    paths: tuple[Path, Path]
    distractors: list[Path]
    marks: tuple[complex, complex]

    @property
    def cores(self) -> list[Core]:
        return [core for path in (*self.paths, *self.distractors) for core in path]


def random_of(config: PathfinderConfig, part: str, number: int) -> random.Random:
    """The randomness of one image, so that no image depends on who draws it and when."""
    return random.Random(f"pathfinder {config.seed} {part} {number}")


def draw_images(config: PathfinderConfig, part: str, first: int, labels: list[int]) -> NDArray[np.uint8]:
    """Images number first, first + 1, ... of a part.

    Returns: (len(labels), size, size).
    Raises:
        NoRoomError: if paths that long do not fit.
    """
    numbered = enumerate(labels, start=first)
    return np.stack([draw(config, lay_out(config, label, random_of(config, part, n))) for n, label in numbered])


# --- layout -----------------------------------------------------------------------------------------------------------


def lay_out(config: PathfinderConfig, label: int, generator: random.Random) -> Layout:
    """Lay out an image; the label, 1 or 0, decides which end of a path is marked and nothing else.

    The beginning of one long path is marked, and the end of the same path (1) or of the other (0).

    Raises:
        NoRoomError: if the long paths do not fit.
    """
    for _ in range(_LAYOUTS):
        begin = _somewhere(config, generator)
        other = begin + cmath.rect(config.start_distance, generator.uniform(0, math.tau))
        plan = _Plan(config, generator)
        if plan.grow(begin, config.path_length) and plan.grow(other, config.path_length):
            break
    else:
        raise NoRoomError
    first, second = plan.paths
    for _ in range(config.distractor_count):
        if not any(plan.grow(_somewhere(config, generator), config.distractor_length) for _ in range(_STARTS)):
            break  # where one does not fit in so many tries, the next will not either
    marked, unmarked = (first, second) if generator.random() < 0.5 else (second, first)
    return Layout((first, second), plan.paths[2:], (marked[0][0], (marked if label else unmarked)[-1][1]))


def _somewhere(config: PathfinderConfig, generator: random.Random) -> complex:
    return complex(generator.uniform(0, config.canvas), generator.uniform(0, config.canvas))


class _Plan:
    """The paths laid out so far."""

    def __init__(self, config: PathfinderConfig, generator: random.Random) -> None:
        self.paths: list[Path] = []
        self._dashes: list[tuple[complex, Core]] = []  # their midpoints and cores
        self._random = generator
        self._core = config.dash_length - config.thickness
        self._clearance = config.margin + config.thickness
        self._most_turn = math.pi / 2 / config.continuity
        self._border = max(config.thickness / 2, config.disc_radius)
        self._far_border = config.canvas - self._border

    def grow(self, begin: complex, length: int) -> bool:
        """Add a path of `length` dashes from `begin` in any direction, if one is found; else nothing."""
        kept = len(self._dashes)
        direction = self._random.uniform(0, math.tau)
        path: Path = []
        while len(path) < length:
            for _ in range(_TURNS if path else 1):
                if path:
                    turn = self._random.uniform(-self._most_turn, self._most_turn)
                    # The gap points half way between both dashes. As it is at most 90 degrees off either of them,
                    # these are nearest at its two ends, and there they have their clearance.
                    start = path[-1][1] + cmath.rect(self._clearance, direction + turn / 2)
                else:
                    turn, start = 0.0, begin
                core = (start, start + cmath.rect(self._core, direction + turn))
                if self._is_free(core, len(self._dashes) - 1 if path else len(self._dashes)):
                    break
            else:
                del self._dashes[kept:]
                return False
            path.append(core)
            self._dashes.append(((core[0] + core[1]) / 2, core))
            direction += turn
        self.paths.append(path)
        return True

    def _is_free(self, core: Core, count: int) -> bool:
        """Whether a dash would lie on the canvas, clear of the first `count` dashes."""
        for point in core:
            if not (self._border <= point.real <= self._far_border and self._border <= point.imag <= self._far_border):
                return False
        middle = (core[0] + core[1]) / 2
        reach = self._clearance + self._core
        for other, other_core in self._dashes[:count]:
            if abs(other - middle) < reach and segment_distance(core, other_core) < self._clearance:
                return False
        return True


def segment_distance(first: Core, second: Core) -> float:
    """Least distance between two segments: 0 where they cross, else from an end of one to the other."""
    (a, b), (c, d) = first, second
    if _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0:
        return 0.0
    return min(_distance(a, second), _distance(b, second), _distance(c, first), _distance(d, first))


def _side(a: complex, b: complex, point: complex) -> float:
    """Positive on one side of the line from a to b, negative on the other."""
    return ((b - a).conjugate() * (point - a)).imag


def _distance(point: complex, segment: Core) -> float:
    a, b = segment
    along = b - a
    square = abs(along) ** 2
    share = ((point - a) * along.conjugate()).real / square if square else 0.0
    return abs(point - a - min(max(share, 0.0), 1.0) * along)


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw(config: PathfinderConfig, layout: Layout) -> NDArray[np.uint8]:
    """White strokes and discs on black, (size, size).

    Points of a grid, `antialias` a pixel of the canvas each way, are in or out; a stored pixel is the share that is in.
    """
    cores = np.array([*layout.cores, *((mark, mark) for mark in layout.marks)])  # (k, 2), k things to draw
    radius = np.full(len(cores), config.thickness / 2)
    radius[-2:] = config.disc_radius
    begin, along = cores[:, :1, None], (cores[:, 1:, None] - cores[:, :1, None])  # (k, 1, 1) each
    length = np.maximum(np.abs(along), 1e-9)

    points = config.canvas * config.antialias  # of the grid, each way
    reach = max(config.dash_length / 2, config.disc_radius) * config.antialias
    window = np.arange(-math.ceil(reach) - 1, math.ceil(reach) + 1)
    centre = cores.mean(1)[:, None] * config.antialias
    columns = np.clip(np.floor(centre.real).astype(int) + window, 0, points - 1)[:, None, :]  # (k, 1, w)
    rows = np.clip(np.floor(centre.imag).astype(int) + window, 0, points - 1)[:, :, None]  # (k, w, 1)
    offset = (columns + 0.5 + (rows + 0.5) * 1j) / config.antialias - begin  # (k, w, w)
    share = np.clip((offset * (along / length**2).conj()).real, 0, 1)
    thing, row, column = np.nonzero(np.abs(offset - share * along) <= radius[:, None, None])

    grid = np.zeros((points, points), np.uint8)
    grid[rows[thing, row, 0], columns[thing, 0, column]] = 255
    return np.asarray(Image.fromarray(grid).resize((config.size, config.size), Image.Resampling.BOX))
