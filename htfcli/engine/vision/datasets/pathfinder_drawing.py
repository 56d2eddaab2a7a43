"""One image of Pathfinder: dashed paths laid out without collisions, then drawn once.

Source: Linsley, Kim, Veerabadran, Windolf and Serre, "Learning long-range spatial dependencies with horizontal gated
recurrent units" (2018), as Razin, Maman and Cohen, arXiv 2201.11729, use it.

A dash is a stroke with round ends: all points within thickness / 2 of a segment, its *core*, which is dash_length -
thickness long. A path advances by dash_length + 2 margin from dash to dash, and turns half way between two of them by
an angle d of density proportional to cos(continuity d)^2. All other dashes keep 2 margin or more between them. Points
of the plane are complex numbers, columns + rows * 1j, in pixels of the canvas.

This module needs no torch, so that processes that draw start fast.
"""

from __future__ import annotations

import cmath
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from htfcli.config.images import PathfinderConfig

Core = tuple[complex, complex]  # where the core of a dash begins and ends
Path = list[Core]

_TURNS = 8  # tried at the end of a path before it is given up
_LAYOUTS = 1000  # tried before there is said to be no room
_EASY = 300  # layouts tried before paths retreat from dead ends, which makes them more curled: published sizes need 4
_RETREATS, _FURTHEST_RETREAT = 30, 5  # of a path; dashes given up at a time
_STARTS = 200  # tried for a distractor before it is left out


class NoRoomError(Exception):
    """Two long paths do not fit the canvas."""


@dataclass(frozen=True)
class Layout:
    """What is in an image.

    Args:
        paths: the two long paths. ends: the tips of each, where its first dash begins and its last one ends.
        distractors: short paths. marks: the two tips that have a disc.
    """

    paths: tuple[Path, Path]
    ends: tuple[Core, Core]
    distractors: list[Path]
    marks: tuple[complex, complex]

    @property
    def cores(self) -> list[Core]:
        return [core for path in (*self.paths, *self.distractors) for core in path]


def random_of(config: PathfinderConfig, part: str, number: int) -> random.Random:
    """The randomness of one image, so that no image depends on who draws it and when."""
    return random.Random(f"pathfinder {config.seed} {part} {number}")


def draw_images(config: PathfinderConfig, part: str, first: int, labels: list[int]) -> NDArray[np.uint8]:
    """Images number first, first + 1, ... of a part, each with the mask of its long paths if `config.masks`.

    Returns: (len(labels), planes, size, size), one plane, or two with masks.
    Raises:
        NoRoomError: if paths that long do not fit.
    """
    images = []
    for number, label in enumerate(labels, start=first):
        layout = lay_out(config, label, random_of(config, part, number))
        planes = [draw(config, layout)] + ([draw_mask(config, layout)] if config.masks else [])
        images.append(np.stack(planes))
    return np.stack(images)


def metadata_of(config: PathfinderConfig, part: str, labels: Sequence[int]) -> Iterator[dict[str, Any]]:
    """What is where in each image of a part, in pixels of the stored image.

    Yields: `part`, `number`, `label`; `ends`, the tips (x, y) of both long paths; `discs`, their centres (x, y);
        `dashes`, the centre and direction (x, y, degrees clockwise from the x axis) of each, those of the first long
        path first, then those of the second; `long`, for each dash, 1 or 2 if it is of that path and 0 otherwise.
    """
    scale = config.size / config.canvas

    def place(point: complex) -> list[float]:
        return [round(point.real * scale, 2), round(point.imag * scale, 2)]

    for number, label in enumerate(labels):
        layout = lay_out(config, label, random_of(config, part, number))
        paths = (*layout.paths, *layout.distractors)
        yield {
            "part": part,
            "number": number,
            "label": label,
            "ends": [[place(begin), place(end)] for begin, end in layout.ends],
            "discs": [place(mark) for mark in layout.marks],
            "dashes": [[*place((a + b) / 2), round(math.degrees(cmath.phase(b - a)), 1)] for a, b in layout.cores],
            "long": [k + 1 if k < 2 else 0 for k, path in enumerate(paths) for _ in path],
        }


# --- layout -----------------------------------------------------------------------------------------------------------


def lay_out(config: PathfinderConfig, label: int, generator: random.Random) -> Layout:
    """Lay out an image; the label, 1 or 0, decides which end of a path is marked and nothing else.

    The beginning of one long path is marked, and the end of the same path (1) or of the other (0).

    Raises:
        NoRoomError: if the long paths do not fit.
    """
    low, high = config.start_square
    margin = generator.choice(config.margins)
    for number in range(_LAYOUTS):
        retreats = 0 if number < _EASY else _RETREATS
        plan = _Plan(config, margin, generator)
        begin = complex(generator.uniform(low, high), generator.uniform(low, high))
        if plan.grow(begin, config.path_length, retreats):
            heading = generator.uniform(0, math.tau)
            other = begin + cmath.rect(config.start_distance, heading)
            if config.balance == "distance":
                grown = plan.grow_to_distance(other, heading, config.path_length)
            else:
                grown = plan.grow(other, config.path_length, retreats)
            if grown:
                break
    else:
        raise NoRoomError
    for _ in range(config.distractor_count):
        if not any(plan.grow(plan.somewhere(), config.distractor_dashes) for _ in range(_STARTS)):
            break  # where one does not fit in so many tries, the next will not either
    first, second = (0, 1) if config.balance == "distance" or generator.random() < 0.5 else (1, 0)
    marks = (plan.ends[first][0], plan.ends[first if label else second][1])
    return Layout((plan.paths[0], plan.paths[1]), (plan.ends[0], plan.ends[1]), plan.paths[2:], marks)


class _Plan:
    """The paths laid out so far, all with the same margin.

    Attributes:
        paths: cores of the dashes of each. ends: tips of each.
    """

    def __init__(self, config: PathfinderConfig, margin: float, generator: random.Random) -> None:
        self.paths: list[Path] = []
        self.ends: list[Core] = []
        self._dashes: list[tuple[complex, Core]] = []  # their midpoints and cores
        self._random = generator
        self._margin, self._dash, self._half = margin, config.dash_length, config.thickness / 2
        self._core = config.dash_length - config.thickness
        self._clearance = 2 * margin + config.thickness
        self._continuity = config.continuity
        self._most_turn = math.pi / 2 / config.continuity
        self._rounding = config.rounding and config.balance == "none"  # rounded ends are not at the distance wanted
        self._border = max(config.border + margin + self._half, config.disc_radius)
        self._far_border = config.canvas - self._border

    def somewhere(self) -> complex:
        """A point that is not in the border."""
        low, high = self._border, self._far_border
        return complex(self._random.uniform(low, high), self._random.uniform(low, high))

    def turn(self) -> float:
        """An angle d of density proportional to cos(continuity d)^2 on its largest peak; by rejection, 2 draws each."""
        while True:
            angle = self._random.uniform(-self._most_turn, self._most_turn)
            if self._random.random() < math.cos(self._continuity * angle) ** 2:
                return angle

    def _next_tip(self, pivot: complex, direction: float) -> tuple[complex, float]:
        """Where the next dash ends, and its turn; with rounding, the turn between pixels has the density of `turn`."""
        reach = self._margin + self._dash
        if not self._rounding:
            turn = self.turn()
            return pivot + cmath.rect(reach, direction + turn), turn
        widest = self._most_turn + math.sqrt(2) / reach  # a pixel more or less each way
        while True:
            tip = _down(pivot + cmath.rect(reach, direction + self._random.uniform(-widest, widest)))
            turn = cmath.phase((tip - pivot) * cmath.rect(1.0, -direction)) if tip != pivot else math.pi
            if abs(turn) < self._most_turn and self._random.random() < math.cos(self._continuity * turn) ** 2:
                return tip, turn

    def grow(self, begin: complex, length: int, retreats: int = 0) -> bool:
        """Add a path of `length` dashes whose first tip is at `begin`, if one is found; else nothing.

        Args:
            retreats: times that a path in a dead end gives up its last few dashes and goes on from there.
        """
        up, down = (_up, _down) if self._rounding else (_same, _same)
        direction = self._random.uniform(0, math.tau)
        ahead = cmath.rect(1.0, direction)
        begin = down(begin)
        tip = up(begin + self._dash * ahead)
        pivot = up(tip - (self._margin + self._dash) * ahead)
        core = self._core_from(begin, ahead)
        kept = len(self._dashes)
        if not self._is_free(core, kept):
            return False
        grown = [(core, tip, pivot, direction)]
        self._keep(core)
        while len(grown) < length:
            _, tip, pivot, direction = grown[-1]
            pivot = up(pivot + cmath.rect(self._dash + 2 * self._margin, direction))
            for _ in range(_TURNS):
                tip, turn = self._next_tip(pivot, direction)
                ahead = cmath.rect(1.0, direction + turn)
                core = self._core_from(tip - self._dash * ahead, ahead)
                if self._is_free(core, len(self._dashes) - 1):
                    grown.append((core, tip, pivot, direction + turn))
                    self._keep(core)
                    break
            else:
                if retreats == 0:
                    del self._dashes[kept:]
                    return False
                retreats -= 1
                del grown[max(1, len(grown) - self._random.randint(1, _FURTHEST_RETREAT)) :]
                del self._dashes[kept + len(grown) :]
        self.paths.append([core for core, *_ in grown])
        self.ends.append((begin, grown[-1][1]))
        return True

    def grow_to_distance(self, begin: complex, heading: float, length: int) -> bool:
        """Add a path that ends as far from the beginning of the first path as a path's own end is, if it is free.

        Its turns are drawn, and so are those of a path that is not kept, whose ends are r apart; then it is rotated
        until its end is at distance r. So whichever end is marked, the distance has the same distribution.

        Args:
            heading: direction from the beginning of the first path to `begin`.
        """
        wanted = abs(self._span(self._turns(length)))
        turns = self._turns(length)
        span = self._span(turns)
        start = abs(begin - self.ends[0][0])
        if not abs(abs(span) - start) < wanted < abs(span) + start:
            return False
        # law of cosines in the triangle of both beginnings and the end
        angle = math.acos((wanted**2 - start**2 - abs(span) ** 2) / (2 * start * abs(span)))
        side = 1 if self._random.random() < 0.5 else -1
        ahead = cmath.rect(1.0, heading + side * angle - cmath.phase(span))
        end = begin + span * ahead
        path: Path = []
        kept = len(self._dashes)
        pivot = begin - self._margin * ahead
        for turn in (0.0, *turns):
            ahead *= cmath.rect(1.0, turn)
            core = self._core_from(pivot + self._margin * ahead, ahead)
            if not self._is_free(core, len(self._dashes) - (1 if path else 0)):
                del self._dashes[kept:]
                return False
            path.append(core)
            self._keep(core)
            pivot += (self._dash + 2 * self._margin) * ahead
        self.paths.append(path)
        self.ends.append((begin, end))
        return True

    def _turns(self, length: int) -> list[float]:
        return [self.turn() for _ in range(length - 1)]

    def _span(self, turns: Sequence[float]) -> complex:
        """From the first tip to the last of a path with these turns, its first dash pointing along the x axis."""
        ahead, pivot = 1 + 0j, complex(-self._margin)
        for turn in turns:
            pivot += (self._dash + 2 * self._margin) * ahead
            ahead *= cmath.rect(1.0, turn)
        return pivot + (self._margin + self._dash) * ahead

    def _core_from(self, tip: complex, ahead: complex) -> Core:
        """The core of a dash that begins at a tip."""
        start = tip + self._half * ahead
        return start, start + self._core * ahead

    def _keep(self, core: Core) -> None:
        self._dashes.append((_middle(core), core))

    def _is_free(self, core: Core, count: int) -> bool:
        """Whether a dash would lie inside the border, clear of the first `count` dashes."""
        for point in core:
            if not (self._border <= point.real <= self._far_border and self._border <= point.imag <= self._far_border):
                return False
        middle = _middle(core)
        reach = self._clearance + self._core
        for other, other_core in self._dashes[:count]:
            if abs(other - middle) < reach and segment_distance(core, other_core) < self._clearance:
                return False
        return True


def _middle(core: Core) -> complex:
    return (core[0] + core[1]) / 2


def _up(point: complex) -> complex:
    return complex(math.ceil(point.real), math.ceil(point.imag))


def _down(point: complex) -> complex:
    return complex(math.floor(point.real), math.floor(point.imag))


def _same(point: complex) -> complex:
    return point


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
    """Strokes of brightness `contrast` and white discs on black, (size, size)."""
    discs = [(mark, mark) for mark in layout.marks]
    grid = _grid(config)
    _paint(config, grid, layout.cores, config.thickness / 2, round(255 * config.contrast))
    _paint(config, grid, discs, config.disc_radius, 255)
    return _stored(config, grid)


def draw_mask(config: PathfinderConfig, layout: Layout) -> NDArray[np.uint8]:
    """1 and 2 where strokes of the first and second long path cover some of a pixel, 0 elsewhere, (size, size)."""
    mask = np.zeros((config.size, config.size), np.uint8)
    for number, path in enumerate(layout.paths, start=1):
        grid = _grid(config)
        _paint(config, grid, path, config.thickness / 2, 255)
        mask[_stored(config, grid) > 0] = number
    return mask


def _grid(config: PathfinderConfig) -> NDArray[np.uint8]:
    """Black points, `antialias` of them for a pixel of the canvas each way."""
    return np.zeros((config.canvas * config.antialias,) * 2, np.uint8)


def _stored(config: PathfinderConfig, grid: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean brightness of the points of each stored pixel, (size, size)."""
    image = Image.fromarray(grid)
    factor, rest = divmod(len(grid), config.size)
    if rest == 0:  # the same numbers, four times as fast
        return np.asarray(image.reduce(factor))
    return np.asarray(image.resize((config.size, config.size), Image.Resampling.BOX))


def _paint(config: PathfinderConfig, grid: NDArray[np.uint8], cores: Sequence[Core], radius: float, value: int) -> None:
    """Set the points within `radius` of some core."""
    ends = np.array(cores) * config.antialias  # (k, 2), k things to draw; in points from here on
    radius *= config.antialias
    begin, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    half = np.abs(along) / 2
    window = np.arange(-math.ceil(half.max() + radius) - 1, math.ceil(half.max() + radius) + 1)
    centre = begin + along / 2
    columns = np.clip(np.floor(centre.real).astype(int)[:, None] + window, 0, len(grid) - 1)[:, None, :]  # (k, 1, w)
    rows = np.clip(np.floor(centre.imag).astype(int)[:, None] + window, 0, len(grid) - 1)[:, :, None]  # (k, w, 1)
    ahead = np.where(half > 0, along / np.maximum(2 * half, 1e-9), 1)[:, None, None]  # any direction for a disc
    x, y = columns + 0.5 - centre.real[:, None, None], rows + 0.5 - centre.imag[:, None, None]
    beyond = np.maximum(np.abs(x * ahead.real + y * ahead.imag) - half[:, None, None], 0)  # an end of the core
    beside = y * ahead.real - x * ahead.imag
    thing, row, column = np.nonzero(beyond * beyond + beside * beside <= radius * radius)
    grid[rows[thing, row, 0], columns[thing, 0, column]] = value
