"""Procedural images of ten classes of shapes, with real variation within a class.

A class is a signed distance function on the plane: negative inside, about one unit from centre to rim. An image draws
it at a random place, size, angle and stretch, in random colours with stripes on a shaded ground, under noise.

Axes: `n` images, `h` rows, `w` columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of float32
SIZE = 32  # rows and columns


def _disc(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.85


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(-y - 0.5, 0.866 * np.abs(x) + 0.5 * y - 0.5)


def _star(x: Array, y: Array) -> Array:
    """Five points: the rim's distance from the centre falls and rises linearly with the angle."""
    turn = 2 * np.pi / 5
    off_axis = np.abs((np.arctan2(y, x) + turn / 2) % turn - turn / 2) / (turn / 2)
    rim = 1.05 - 0.65 * off_axis
    return np.asarray(np.hypot(x, y) - rim)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": _disc,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.7) - 0.2,
    "square": lambda x, y: _box(x, y, 0.72, 0.72),
    "triangle": _triangle,
    "bar": lambda x, y: _box(x, y, 1.0, 0.27),
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.25), _box(x, y, 0.25, 0.95)),
    "star": _star,
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 0.9, 0.75 - np.hypot(x - 0.42, y)),
    "ell": lambda x, y: np.minimum(_box(x + 0.5, y, 0.28, 0.9), _box(x - 0.1, y + 0.62, 0.85, 0.28)),
    "dumbbell": lambda x, y: np.minimum(np.hypot(np.abs(x) - 0.62, y) - 0.4, _box(x, y, 0.6, 0.13)),
}


def draw_shapes(labels: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one image of each given class.

    Args:
        labels: (n,) indices into `SHAPES`.
    Returns: (n, 3, h, w).
    """
    pixels = np.empty((len(labels), 3, SIZE, SIZE), np.uint8)
    for label, distance in enumerate(SHAPES.values()):
        (rows,) = np.nonzero(labels == label)
        for part in np.array_split(rows, -(-len(rows) // 512) or 1):  # by parts that fit a cache
            pixels[part] = _draw(len(part), distance, generator)
    return pixels


def _draw(count: int, distance: Callable[[Array, Array], Array], generator: np.random.Generator) -> NDArray[np.uint8]:
    def between(low: float, high: float, channels: int = 1) -> Array:
        return generator.uniform(low, high, (count, channels, 1, 1)).astype(np.float32)

    axis = ((np.arange(SIZE) + 0.5) / (SIZE / 2) - 1).astype(np.float32)
    across, down = axis[None, None, None, :], axis[None, None, :, None]
    scale, stretch, angle = between(0.38, 0.62), between(0.85, 1.18), between(0, 2 * np.pi)
    x, y = across - between(-0.36, 0.36), down - between(-0.36, 0.36)
    along, beside = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    signed = distance(along / (scale * stretch), beside * stretch / scale) * scale * (SIZE / 2)  # pixels, about
    cover = np.clip(0.5 - signed, 0, 1)

    ground = between(0.1, 0.9, 3)
    ink: Array = ground + np.where(ground > 0.5, -1, 1) * between(0.25, 0.55, 3)
    ink = np.where(between(0, 1, 3) < 0.25, between(0, 1, 3), ink)  # some channels say nothing of the shape
    slope = between(0, 2 * np.pi)
    ground = ground + between(0, 0.2) * (np.cos(slope) * across + np.sin(slope) * down)
    direction, frequency = between(0, 2 * np.pi), between(4, 14)
    stripes = np.sin(frequency * (np.cos(direction) * across + np.sin(direction) * down) + between(0, 6.3))
    image: Array = ground + cover * (ink + between(0, 0.18) * stripes - ground)
    image = image + between(0.01, 0.08) * generator.standard_normal(image.shape, np.float32)
    pixels: NDArray[np.uint8] = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels
