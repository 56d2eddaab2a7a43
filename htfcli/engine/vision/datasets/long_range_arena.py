"""The tree of files in which Long Range Arena publishes Pathfinder, as its readers expect it.

    curv_contour_length_14/metadata/K.npy        text, a line per image
    curv_contour_length_14/imgs/K/sample_N.png   the images that this file is about

Words of a line: folder and name of the image, its number, its label (0 or 1), and what it was drawn with: continuity,
dashes of a long path and of a distractor, length, thickness and margin of a dash, number of contrasts.

Source: Tay et al., Long Range Arena (ICLR 2021), whose data sets these are; the generator of Linsley et al. (2018) for
the words after the label.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from htfcli.errors import DataError

IMAGES_PER_FOLDER = 1000  # as published
_BASELINE = 6  # dashes of the paths that are published under this name
_LABEL = 3  # word of a line
_MOST_BYTES = 2**26  # of a file of lines; published ones have 60 KB


def level_of(path_length: int) -> str:
    """The folder of paths of this many dashes."""
    return "curv_baseline" if path_length == _BASELINE else f"curv_contour_length_{path_length}"


def lines_of(labels: Sequence[int], about: Mapping[str, Any], folder: int) -> Iterator[str]:
    """The lines about the images in imgs/`folder`.

    Args:
        labels: of these images. about: the settings of `PathfinderConfig` that they were drawn with.
    """
    margins = about["margin"] if isinstance(about["margin"], list) else [about["margin"]]
    drawn = (
        about["continuity"],
        about["path_length"],
        about["distractor_length"] or max(1, about["path_length"] // 3),
        about["dash_length"],
        about["thickness"],
        ",".join(f"{margin:g}" for margin in margins),
        1,
    )
    rest = " ".join(word if isinstance(word, str) else f"{word:g}" for word in drawn)
    for number, label in enumerate(labels):
        yield f"imgs/{folder} sample_{number}.png {number} {label} {rest}"


def find_level(folder: Path) -> Path | None:
    """The folder with metadata and imgs: this one, or the only one in it; None if it is no such tree.

    Raises:
        DataError: if there are several.
    """
    if not folder.is_dir():
        return None
    levels = [f for f in (folder, *sorted(folder.iterdir())) if (f / "metadata").is_dir() and (f / "imgs").is_dir()]
    if len(levels) > 1:
        got = ", ".join(f.name for f in levels)
        raise DataError(f"{folder} has paths of several lengths", got=got, next_step=f"Name one, as {levels[-1]}.")
    return levels[0] if levels else None


def read_lines(level: Path) -> tuple[list[Path], list[int]]:
    """Image files and their labels, by number of the folder, then in the order of the lines.

    Empty image files are left out: the published data set has one.

    Raises:
        DataError: if a line is not as described above, or there are none.
    """
    files: list[Path] = []
    labels: list[int] = []
    for source in sorted((level / "metadata").glob("*.npy"), key=lambda f: (len(f.stem), f.stem)):
        if source.stat().st_size > _MOST_BYTES:
            raise DataError(f"{source} is too large", got=source.stat().st_size, allowed=f"{_MOST_BYTES} bytes")
        try:
            lines = source.read_text(encoding="ascii").splitlines()
        except UnicodeDecodeError:
            raise DataError(f"{source} is not text", allowed="a line per image") from None
        for number, line in enumerate(lines, start=1):
            words = line.split()
            image = level.joinpath(*words[:2])
            inside = image.is_relative_to(level) and ".." not in image.parts[len(level.parts) :]
            if len(words) <= _LABEL or words[_LABEL] not in ("0", "1") or not inside:
                got = f"line {number}: {line[:60]}"
                raise DataError(f"{source} is damaged", got=got, allowed="imgs/0 sample_0.png 0 1 ...")
            if not os.path.isfile(image):  # unlike Path.is_file, of names that no file can have too
                raise DataError(f"{source} names a file that is missing", got=f"line {number}: {line[:60]}")
            if image.stat().st_size:
                files.append(image)
                labels.append(int(words[_LABEL]))
    if not files:
        raise DataError(f"{level} has no images")
    return files, labels
