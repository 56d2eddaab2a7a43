"""Beginning a training in a run folder, or going on with it, and what may then be told differently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from htfcli.config.base import Config
from htfcli.engine.runtime.distributed import Workers
from htfcli.errors import ConfigError
from htfcli.files.own import container
from htfcli.files.own.container import Artefact
from htfcli.files.own.run_folder import CHECKPOINT, RunFolder

C = TypeVar("C", bound=Config)


def merged(config: C, saved: dict[str, Any], may_change: set[str]) -> C:
    """The saved settings, with what `config` was explicitly given.

    Raises:
        ConfigError: if that changes what the run is, or is nothing to it: the learning rate of a second-order fit.
    """
    before = type(config).checked(saved)
    given = {name: getattr(config, name) for name in config.model_fields_set}
    changed = {n: v for n, v in given.items() if v != getattr(before, n) and n not in may_change}
    if changed:
        name, value = next(iter(changed.items()))
        flag = "--" + name.replace("_", "-")
        raise ConfigError(
            f"{flag} cannot change when a run is resumed",
            got=value,
            allowed=getattr(before, name),
            next_step="Leave it out.",
        )
    return type(config).checked({**saved, **given})  # what is given has to suit the rest of it


def open_folder(
    output: str,
    data: str | None,
    workers: Workers,
    prepare: Callable[[Artefact | None], None],
    *,
    resume: bool = False,
    force: bool = False,
) -> RunFolder | None:
    """The folder of a training, opened by the first of its processes; None for the others, and for output `-`.

    Args:
        output, resume, force: see `RunFolder`. data: its input. workers: the processes that share the work.
        prepare: called with the checkpoint, if the run resumes one, before a new folder is made: whatever can be wrong
            with settings and data shows there.
    Raises:
        ConfigError: if the arguments do not go together.
    """
    if resume and (output == "-" or force):
        given = "-o -" if output == "-" else "--force"
        raise ConfigError("--resume continues a run folder as it is", got=given, allowed="-o FOLDER alone")
    if data == "-" and workers.count > 1:
        raise ConfigError("several processes cannot read one stdin", next_step="Name a file.")
    folder = RunFolder(output, resume=True) if resume and workers.first else None
    try:
        prepare(container.read(Path(output) / CHECKPOINT).expect("checkpoint") if resume else None)
    except BaseException:
        if folder is not None:
            folder.close()
        raise
    if not resume and output != "-" and workers.first:
        folder = RunFolder(output, force=force)
    return folder


def absolute(data: str | None) -> str | None:
    """An input that can be found again from another folder; stdin cannot."""
    return None if data is None or data == "-" else str(Path(data).resolve())
