"""What the commands that make image data sets can be told: `generate is-same-class`, `generate pathfinder`."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from htfcli.config.base import Config, Seed


class IsSameClassConfig(Config):
    """`htf generate is-same-class`: pairs of images on a canvas, and whether both are of one class."""

    source: Literal["shapes", "digits", "cifar10", "folder"] = Field(
        "shapes",
        description="Images to pair: drawn shapes (3x32x32), scikit-learn's digits (1x8x8), CIFAR-10, or a folder.",
    )
    data_dir: str | None = Field(
        None,
        description="cifar10: cifar-10-binary.tar.gz or a folder of its files; folder: one with a sub-folder for each "
        "class, or with train and test that have those.",
    )
    download: bool = Field(False, description="Download CIFAR-10 (162 MiB, checked) where there is no --data-dir.")
    image_size: int | None = Field(
        None, ge=1, le=1024, description="Resize the images of a folder to squares of this side (the first one's size)."
    )
    images: int = Field(8000, ge=20, description="Images to draw, for shapes.")
    test_images: int | None = Field(
        None, ge=1, description="Source images that only test pairs use (a quarter; CIFAR-10 has its own split)."
    )
    distance: int = Field(0, ge=0, description="Zero columns between the two images.")
    height: int | None = Field(None, ge=1, description="Rows of the canvas (7 times the images').")
    width: int | None = Field(None, ge=1, description="Columns of the canvas (7 times the images').")
    train: int = Field(5000, ge=1, description="Train pairs.")
    test: int = Field(10000, ge=1, description="Test pairs.")
    seed: Seed = Field(0, description="Seed of everything random.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for sources, fields in (
            (("shapes",), ("images",)),
            (("cifar10",), ("download",)),
            (("folder",), ("image_size",)),
            (("cifar10", "folder"), ("data_dir",)),
            (("shapes", "digits", "folder"), ("test_images",)),
        ):
            if self.source not in sources and (wrong := self.changed(*fields)):
                raise ValueError(f"{wrong[0]}: only for source {' or '.join(sources)} (got source {self.source})")
        if self.source == "folder" and self.data_dir is None:
            raise ValueError("source folder needs data-dir, a folder with one sub-folder of images a class")
        return self


class PathfinderConfig(Config):
    """`htf generate pathfinder`: whether two marked ends belong to the same dashed path.

    Lengths are pixels of the canvas that is drawn, which is `draw_size` wide; images are stored `size` wide.
    """

    path_length: int = Field(9, ge=1, le=100, description="Dashes of each of the two long paths.")
    size: int = Field(150, ge=16, le=1024, description="Rows and columns of the stored images.")
    draw_size: int | None = Field(
        None, ge=16, le=4096, description="Rows and columns of the canvas they are drawn on (twice --size)."
    )
    distractors: int | None = Field(
        None,
        ge=0,
        description="Short paths of a third as many dashes, left out where there is no room (90 / --path-length on a "
        "canvas of 300 x 300, in proportion to its area).",
    )
    dash_length: float = Field(5.0, gt=0, description="Length of a dash.")
    thickness: float = Field(2.0, gt=0, description="Thickness of a dash.")
    margin: float = Field(3.0, gt=0, description="Least free space between dashes.")
    continuity: float = Field(
        1.8, ge=0.5, description="How straight paths are: from dash to dash they turn by up to 90 degrees / continuity."
    )
    start_distance: float = Field(27.0, ge=0, description="Distance between the starts of the two paths.")
    disc_radius: float = Field(3.0, gt=0, description="Radius of the discs at the marked ends.")
    antialias: int = Field(2, ge=1, le=8, description="Oversampling of the drawing.")
    train: int = Field(10000, ge=1, description="Train images.")
    test: int = Field(10000, ge=1, description="Test images.")
    seed: Seed = Field(0, description="Seed of everything random.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        most_radius = self.margin + self.thickness / 2
        if self.canvas < self.size:
            raise ValueError(f"draw-size: smaller than size (got {self.draw_size}, allowed {self.size} or more)")
        if self.dash_length < self.thickness:
            allowed = f"{self.thickness} or more"
            raise ValueError(f"dash-length: under the thickness (got {self.dash_length}, allowed {allowed})")
        if self.disc_radius >= most_radius:
            allowed = f"less than margin + thickness / 2 = {most_radius}"
            raise ValueError(f"disc-radius: discs would touch other dashes (got {self.disc_radius}, allowed {allowed})")
        return self

    @property
    def canvas(self) -> int:
        """Rows and columns of what is drawn."""
        return self.draw_size or 2 * self.size

    @property
    def distractor_length(self) -> int:
        """Dashes of a distractor: a third of a path's, rounded down, at least one."""
        return max(1, self.path_length // 3)

    @property
    def distractor_count(self) -> int:
        """On 300 x 300 as published, 30 / (length / 3) rounded up; elsewhere in proportion to the area."""
        if self.distractors is not None:
            return self.distractors
        return math.ceil(90 / self.path_length * (self.canvas / 300) ** 2)
