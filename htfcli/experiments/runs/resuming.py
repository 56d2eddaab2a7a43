"""Starting or resuming a training in a run folder, and the settings that may change when it is resumed."""

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
    """The saved settings, updated with those that `config` was given explicitly.

    Args:
        config: what the user gave. saved: settings of the checkpoint. may_change: names of settings that may differ.
    Raises:
        ConfigError: if another setting differs, or the result is not a valid configuration.
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
    return type(config).checked({**saved, **given})  # the given settings must suit the saved ones


def open_folder(
    output: str,
    data: str | None,
    workers: Workers,
    prepare: Callable[[Artefact | None], None],
    *,
    resume: bool = False,
    force: bool = False,
) -> RunFolder | None:
    """Open the run folder of a training, in process 0; None in other processes, and for output `-`.

    Args:
        output, resume, force: see `RunFolder`. data: its input. workers: the processes that share the work.
        prepare: called with the checkpoint of a resumed run, or None, before a new folder is created; raises an error
            if settings or data are unusable.
    Raises:
        ConfigError: if the arguments exclude each other.
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
    """The absolute path of an input, for a run that is resumed from another folder; None for stdin."""
    return None if data is None or data == "-" else str(Path(data).resolve())
