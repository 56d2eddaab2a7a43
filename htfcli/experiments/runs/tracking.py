"""Registry of experiment trackers, which receive records as they are made; TensorBoard writes into the run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from htfcli.config.records import Record
from htfcli.errors import ConfigError
from htfcli.files.own.records import flatten


@contextmanager
def _tensorboard(folder: Path, step: str) -> Iterator[Callable[[Record], None]]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        advice = "Install it with: pip install 'htf[track]'."
        raise ConfigError("--track tensorboard needs tensorboard", got="no tensorboard", next_step=advice) from None
    writer: Any = None

    def write(record: Record) -> None:
        nonlocal writer
        if writer is None:  # a resumed run replaces what was recorded after its checkpoint
            writer = SummaryWriter(str(folder / "tensorboard"), purge_step=record[step])
        for name, value in flatten(record):
            if isinstance(value, int | float) and name != step and ".modes." not in f"{name}.":
                writer.add_scalar(name.replace(".", "/"), value, record[step])

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


TRACKERS = {"tensorboard": _tensorboard}


@contextmanager
def tracking(name: str | None, output: str, step: str) -> Iterator[Callable[[Record], None]]:
    """A function that sends a record to a tracker while the block runs; it does nothing if `name` is None.

    Args:
        name: key of `TRACKERS`. output: the run folder. step: key of a record that counts: iteration or epoch.
    Raises:
        ConfigError: if there is no run folder, or the tracker is not installed.
    """
    if name is None:
        yield lambda record: None
        return
    if output == "-":
        raise ConfigError("--track writes into the run folder", got="-o -", allowed="-o FOLDER")
    with TRACKERS[name](Path(output), step) as track:
        yield track
