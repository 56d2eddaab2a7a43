"""Folders of many files, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from htfcli.errors import ConfigError, DataError


def refuse_existing_folder(destination: str) -> None:
    """Check before the work that a folder can be written: it must be new or empty.

    Raises:
        ConfigError: if there is something. DataError: if its parent is missing.
    """
    path = Path(destination)
    if not path.parent.is_dir():
        raise DataError(f"cannot write {destination}: No such file or directory")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"{destination} exists", next_step="Choose another name; folders are never replaced.")


@contextmanager
def atomic_folder(destination: str, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `destination`, which becomes it after the block, unless that failed.

    Args:
        replace: a folder that is there already.
    Raises:
        DataError: if it cannot be written or the disk is full.
    """
    path = Path(destination)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"cannot write {destination}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
