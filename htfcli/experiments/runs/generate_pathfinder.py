"""A Pathfinder data set from settings to file: drawn on several cores, kept when interrupted, resumable.

What an interrupted run has drawn is in a container beside the output, `OUTPUT.part`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from htfcli.config.images import PathfinderConfig
from htfcli.engine.vision.datasets.image_set import ImageData
from htfcli.engine.vision.datasets.pathfinder import PathfinderDrawing
from htfcli.errors import ConfigError, DataError, Interrupted
from htfcli.files.own import container

_KIND = "unfinished images"
_SAVE_EVERY = 60.0  # seconds; what a killed run loses at most


class PathfinderRun:
    """One data set, ready to be drawn.

    Args:
        config: settings. output: file, or `-` to keep nothing of an interrupted run.
        resume: continue what is in `OUTPUT.part`. force: begin anew though it is there.
    Raises:
        ConfigError: if there is a part file and neither is said, or none to resume, or one of other settings.
        DataError: if it is damaged.
    """

    def __init__(self, config: PathfinderConfig, output: str, *, resume: bool = False, force: bool = False) -> None:
        self.drawing = PathfinderDrawing(config)
        self.part = None if output == "-" else Path(f"{output}.part")
        if resume:
            self._load(config, output)
        elif self.part is not None and self.part.exists() and not force:
            raise ConfigError(
                f"{self.part} holds an interrupted run",
                next_step="Continue it with --resume, or begin anew with --force.",
            )

    def _load(self, config: PathfinderConfig, output: str) -> None:
        if self.part is None or not self.part.exists():
            what = f"there is no interrupted run to resume for -o {output}"
            raise ConfigError(what, next_step="Start it without --resume.")
        saved = container.read(self.part).expect(_KIND)
        wanted = config.model_dump(mode="json")
        changed = [key.replace("_", "-") for key, value in wanted.items() if saved.config.get(key) != value]
        if changed:
            advice = "Give the same settings, or begin anew with --force."
            raise ConfigError(f"{self.part} was drawn with another {', '.join(changed)}", next_step=advice)
        try:
            self.drawing.load_state(saved.tensors())
        except (KeyError, ValueError):
            raise DataError(f"{self.part} is damaged", next_step="Begin anew with --force.") from None

    def run(
        self, workers: int | None, on_progress: Callable[[int], None], should_stop: Callable[[], bool]
    ) -> ImageData:
        """Draw all that is missing.

        Args:
            on_progress: called with the number of images drawn. should_stop: asked now and then; True interrupts.
        Raises:
            Interrupted: if `should_stop` said so; what was drawn is kept.
        """
        saved_at = time.monotonic()
        for done in self.drawing.draw(workers):
            on_progress(done)
            if done < self.drawing.total and should_stop():
                raise Interrupted(self._interrupt())
            if self.part is not None and time.monotonic() - saved_at > _SAVE_EVERY:
                self._save(self.part)
                saved_at = time.monotonic()
        return self.drawing.data()

    def _save(self, part: Path) -> None:
        container.save(part, _KIND, self.drawing.state(), {}, self.drawing.config.model_dump(mode="json"))

    def _interrupt(self) -> str:
        what = f"interrupted after {self.drawing.done:,} of {self.drawing.total:,} images"
        if self.part is None:
            return f"{what}; none are kept with -o -"
        self._save(self.part)
        return f"{what}; {self.part} keeps them, go on with --resume"

    def clean(self) -> None:
        """Remove the part file, the data set having been saved."""
        if self.part is not None:
            self.part.unlink(missing_ok=True)


def write_metadata(destination: str, drawing: PathfinderDrawing) -> None:
    """Write what is where in each image, a JSON line per image (see `metadata_of`); whole or not at all."""
    with container.text_destination(destination) as file:
        for record in drawing.metadata():
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
