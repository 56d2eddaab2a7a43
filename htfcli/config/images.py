"""Settings of the commands that make image data sets: `generate is-same-class`, `generate pathfinder`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from htfcli.config.base import Config, Seed, not_allowed


def _margins(value: object) -> object:
    """A positive number, or several: 3, "2,3", [2, 3]."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    try:
        numbers = [float(str(part)) for part in parts]
    except ValueError:
        numbers = [math.nan]
    if not numbers or not all(0 < n < math.inf for n in numbers):
        raise not_allowed("a margin", "a positive number, or several as 2,3")
    return numbers if len(numbers) > 1 else numbers[0]


Margins = Annotated[float | list[float], PlainValidator(_margins)]


class IsSameClassConfig(Config):
    """`htf generate is-same-class`: pairs of images on a canvas, and whether both are of one class."""

    source: Literal["shapes", "digits", "cifar10", "folder"] = Field(
        "shapes",
        description="Images to pair: drawn shapes (3x32x32), the digits of scikit-learn (1x8x8), CIFAR-10, or a "
        "folder.",
    )
    data_dir: str | None = Field(
        None,
        description="For cifar10, cifar-10-binary.tar.gz or the folder of its files. For folder, a folder with a "
        "sub-folder per class, or with folders train and test that have those.",
    )
    download: bool = Field(False, description="Download CIFAR-10 (162 MiB, verified) if there is no --data-dir.")
    image_size: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Resize the images of a folder to squares of this side. Default: the size of the first.",
    )
    images: int = Field(8000, ge=20, description="Number of shapes to draw.")
    test_images: int | None = Field(
        None,
        ge=1,
        description="Number of source images for test pairs only. Default: a quarter; CIFAR-10 has its own split.",
    )
    distance: int = Field(0, ge=0, description="Number of zero columns between the two images.")
    height: int | None = Field(None, ge=1, description="Rows of the canvas. Default: 7 times those of an image.")
    width: int | None = Field(None, ge=1, description="Columns of the canvas. Default: 7 times those of an image.")
    train: int = Field(5000, ge=1, description="Number of train pairs.")
    test: int = Field(10000, ge=1, description="Number of test pairs.")
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


# The data sets of Long Range Arena (Tay et al., ICLR 2021), from the comments of its readers. The border of the start
# square is twice the start distance, as in the generator they were made with.
LRA_PROFILES: dict[str, dict[str, object]] = {
    "lra-32": {
        "size": 32, "dash_length": 2, "thickness": 0.5, "margin": 1, "padding": 1, "start_distance": 7,
        "start_border": 14, "disc_radius": 1.5, "continuity": 1.0, "distractors": 5, "distractor_length": 4,
        "contrast": 0.75,
    },
    "lra-64": {
        "size": 64, "thickness": 1, "margin": 1, "padding": 1, "start_distance": 12, "start_border": 24,
        "disc_radius": 2.5, "distractors": 5, "distractor_length": 4, "contrast": 0.8,
    },
    "lra-128": {
        "size": 128, "thickness": 1.5, "margin": [2, 3], "padding": 1, "start_distance": 20, "start_border": 40,
        "distractors": 8, "distractor_length": 4, "contrast": 0.9,
    },
    "lra-256": {
        "size": 256, "padding": 22, "start_border": 54, "disc_radius": 5, "distractors": 7, "distractor_length": 4,
    },
}  # fmt: skip


class PathfinderConfig(Config):
    """`htf generate pathfinder`: whether two marked ends belong to the same dashed path.

    Lengths are pixels of the canvas that is drawn, which is `draw_size` wide; images are stored `size` wide. The
    defaults are the published ones for a canvas of 300 x 300.
    """

    profile: Literal["lra-32", "lra-64", "lra-128", "lra-256"] | None = Field(
        None,
        description="Use the sizes of a data set of Long Range Arena: images of 32 to 256 pixels, paths of 14 dashes. "
        "Other options override it.",
    )
    path_length: int = Field(9, ge=1, le=100, description="Dashes of each of the two long paths.")
    size: int = Field(150, ge=16, le=1024, description="Rows and columns of the stored images.")
    draw_size: int | None = Field(
        None,
        ge=16,
        le=4096,
        description="Rows and columns of the canvas on which images are drawn. Default: twice --size.",
    )
    distractors: int | None = Field(
        None,
        ge=0,
        description="Number of short paths; those without room are left out. Default: 90 / --path-length on a canvas "
        "of 300 x 300, otherwise in proportion to the area.",
    )
    distractor_length: int | None = Field(
        None, ge=1, le=100, description="Dashes of a short path. Default: a third of --path-length."
    )
    dash_length: float = Field(5.0, gt=0, description="Length of a dash.")
    thickness: float = Field(2.0, gt=0, description="Thickness of a dash.")
    margin: Margins = Field(
        3.0,
        validate_default=True,
        description="Free space around a dash; there is twice as much between two dashes. Of several values, as in "
        "2,3, one is drawn for each image.",
    )
    continuity: float = Field(
        1.8,
        ge=0.5,
        description="How straight paths are: from dash to dash they turn by an angle d of density cos(continuity d)^2, "
        "at most 90 degrees / continuity.",
    )
    start_distance: float = Field(27.0, ge=0, description="Distance between the starts of the two long paths.")
    start_border: float | None = Field(
        None,
        ge=0,
        description="Minimum distance from the border to the start of the first long path. Default: 54 of 300.",
    )
    padding: float | None = Field(
        None, ge=0, description="Width of the border that dashes and their margins keep free. Default: 22 of 300."
    )
    disc_radius: float = Field(3.0, gt=0, description="Radius of the discs at the marked ends.")
    contrast: float = Field(1.0, gt=0, le=1, description="Brightness of dashes; that of discs is 1.")
    rounding: bool = Field(
        True,
        description="Round tips of dashes and turning points of paths to whole pixels of the canvas, as published; "
        "distances vary more then. Off with --balance distance.",
    )
    antialias: int = Field(2, ge=1, le=8, description="Oversampling factor of the drawing.")
    balance: Literal["none", "distance"] = Field(
        "none",
        description="distance: make the distance between the discs equally distributed for both labels; otherwise it "
        "predicts the label. The directions of the dashes at the discs still carry some information.",
    )
    masks: bool = Field(False, description="Also store masks of the two long paths (1 and 2), for segmentation.")
    train: int = Field(10000, ge=1, description="Number of train images.")
    test: int = Field(10000, ge=1, description="Number of test images.")
    seed: Seed = Field(0, description="Seed of everything random.")

    @model_validator(mode="before")
    @classmethod
    def _with_profile(cls, values: Any) -> Any:
        """A profile's values beside those given."""
        known = LRA_PROFILES.get(str(values.get("profile"))) if isinstance(values, dict) else None
        if known is None:
            return values
        size = values.get("size", known["size"])
        return {"path_length": 14, "draw_size": size, **known, **{k: v for k, v in values.items() if v is not None}}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.canvas < self.size:
            raise ValueError(f"draw-size: smaller than size (got {self.draw_size}, allowed {self.size} or more)")
        if self.dash_length < self.thickness:
            allowed = f"{self.thickness} or more"
            raise ValueError(f"dash-length: under the thickness (got {self.dash_length}, allowed {allowed})")
        most_radius = 2 * min(self.margins) + self.thickness / 2
        if self.disc_radius > most_radius:
            allowed = f"at most 2 margin + thickness / 2 = {most_radius}"
            raise ValueError(
                f"disc-radius: discs would overlap other dashes (got {self.disc_radius}, allowed {allowed})"
            )
        for name, width in (("padding", self.border), ("start-border", self.start_square[0])):
            if 2 * width >= self.canvas:
                allowed = f"less than half the canvas, {self.canvas / 2}"
                raise ValueError(f"{name}: leaves no room (got {width}, allowed {allowed})")
        if self.balance == "distance" and self.start_distance == 0:
            raise ValueError("balance: distance needs a start-distance above 0 (got 0.0)")
        return self

    @property
    def canvas(self) -> int:
        """Rows and columns of what is drawn."""
        return self.draw_size or 2 * self.size

    @property
    def margins(self) -> list[float]:
        """The margins of which each image has one."""
        return self.margin if isinstance(self.margin, list) else [self.margin]

    @property
    def border(self) -> float:
        """Padding; published is 22 on a canvas of 300, elsewhere in proportion."""
        return 22 / 300 * self.canvas if self.padding is None else self.padding

    @property
    def start_square(self) -> tuple[float, float]:
        """Least and largest coordinate at which the first long path starts; 54 to 246 on 300, as published."""
        border = 54 / 300 * self.canvas if self.start_border is None else self.start_border
        return border, self.canvas - border

    @property
    def distractor_dashes(self) -> int:
        """Dashes of a distractor: a third of a path's, rounded down, at least one."""
        return self.distractor_length or max(1, self.path_length // 3)

    @property
    def distractor_count(self) -> int:
        """On 300 x 300 as published, 30 / (length / 3) rounded up; elsewhere in proportion to the area."""
        if self.distractors is not None:
            return self.distractors
        return math.ceil(90 / self.path_length * (self.canvas / 300) ** 2)
