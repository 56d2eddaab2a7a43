"""Run folders: configuration, records, checkpoint, result and summary of a run; no file is ever incomplete.

config.yaml             resolved configuration, with versions, device and data in comments
records.jsonl           one object per line, flushed after each
checkpoint.safetensors  latest resumable state, replaced atomically
model.safetensors       the result
summary.json            final numbers
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
import yaml
from torch import Tensor

from htfcli._version import __version__
from htfcli.config.records import Record
from htfcli.errors import ConfigError, DataError
from htfcli.files.own import container
from htfcli.files.own.container import Artefact
from htfcli.files.own.records import finite, read_lines, to_json

CHECKPOINT = "checkpoint.safetensors"
FILES = ("config.yaml", "records.jsonl", CHECKPOINT, "model.safetensors", "summary.json")
_LOCK = ".lock"


class RunFolder:
    """The folder of one run, locked against other processes while it is open; a context manager.

    Args:
        path: the folder, created if it does not exist.
        resume: continue the run in it. force: replace the run in it. resumable: whether the command can resume runs.
    Raises:
        ConfigError: if it contains a run and neither is set, or is not a run folder, or is in use by another process,
            or there is nothing to resume.
        DataError: if it cannot be created.
    """

    def __init__(self, path: str, *, resume: bool = False, force: bool = False, resumable: bool = True) -> None:
        self.path = Path(path)
        self._records: IO[str] | None = None
        if resume and not (self.path / CHECKPOINT).exists():
            advice = "Start the run without --resume" + (", with --force." if _begun(self.path) else ".")
            raise ConfigError(f"{path} has no checkpoint to resume from", next_step=advice)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            visible = _begun(self.path)
            if visible and not visible & set(FILES):
                raise ConfigError(f"{path} exists and is not a run folder", next_step="Choose another name.")
            if visible and not resume and not force:
                resumable = resumable and CHECKPOINT in visible  # a run killed early has none
                other = "Continue it with --resume" if resumable else "Choose another name"
                advice = f"{other}, or replace it with --force."
                raise ConfigError(f"{path} contains a run", next_step=advice)
            self._lock = self._acquire()
            self._clear(FILES if force else ())
        except OSError as error:
            raise DataError(f"cannot write the run folder {path}: {error.strerror or error}") from None

    def _acquire(self) -> IO[str]:
        lock = open_lock(self.path / _LOCK)  # not removed on release, as another process may be waiting for it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            advice = "Wait for it, or choose another folder."
            raise ConfigError(f"another process is using {self.path}", next_step=advice) from None
        return lock

    def _clear(self, names: tuple[str, ...]) -> None:
        """Remove these files, and the temporary files of killed writers."""
        for name in FILES:
            container.remove_leftovers(self.path / name)
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the folder."""
        if self._records is not None:
            with suppress(OSError):  # every record was flushed; a full disk has been reported
                self._records.close()
        self._lock.close()

    def discard(self) -> None:
        """Remove the files of this run, and the folder if it is empty then."""
        self._clear(FILES)
        (self.path / _LOCK).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- configuration ------------------------------------------------------------------------------------------------

    def write_config(self, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Write settings as `--config` reads them, followed by facts (versions, device) in comments."""
        lines = [f"# {line}" for line in yaml.safe_dump(dict(facts), sort_keys=False).splitlines()]
        text = yaml.safe_dump(dict(config), sort_keys=False) + "\n".join(lines) + "\n"
        container.write_text(self.path / "config.yaml", text)

    # --- records ------------------------------------------------------------------------------------------------------

    def start_records(self, before: int = 0, counter: str = "iteration") -> Record:
        """Open the records for appending; removes those at `before` and later, which a killed run may have left.

        Args:
            before: of the counter; 0 removes all records. counter: key of a record that counts, iteration or epoch.
        Returns: the last record that is kept; empty if there is none.
        """
        path = self.path / "records.jsonl"
        kept = [pair for pair in read_lines(path) if pair[1].get(counter, 0) < before] if before else []
        container.write_text(path, "".join(line for line, _ in kept))
        self._records = open(path, "a", encoding="utf-8")
        return kept[-1][1] if kept else {}

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record."""
        assert self._records is not None
        try:
            self._records.write(to_json(record) + "\n")
            self._records.flush()
        except OSError as error:
            raise DataError(f"cannot write {self.path / 'records.jsonl'}: {error.strerror or error}") from None

    # --- state --------------------------------------------------------------------------------------------------------

    def save_checkpoint(
        self, state: Mapping[str, Tensor], config: Mapping[str, Any], content: Mapping[str, Any]
    ) -> None:
        """Replace the checkpoint: the state, its configuration, and digest and path of the data as content."""
        container.save(self.path / CHECKPOINT, "checkpoint", state, content, config)

    def checkpoint(self) -> Artefact:
        """The latest checkpoint.

        Raises:
            DataError: if it is damaged or not a checkpoint.
        """
        return container.read(self.path / CHECKPOINT).expect("checkpoint")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the final numbers, with null for NaN and infinity."""
        container.write_text(self.path / "summary.json", json.dumps(finite(summary), indent=2, allow_nan=False) + "\n")


def _begun(folder: Path) -> set[str]:
    """Names of the files in a folder that are not hidden; empty if it does not exist."""
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} if folder.is_dir() else set()


def open_lock(path: Path) -> IO[str]:
    """Open a lock file, created if it does not exist; a symbolic link in its place is not followed."""
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")


def in_use(folder: Path) -> bool:
    """Whether a process has locked the run in this folder."""
    try:
        with open(folder / _LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def versions() -> dict[str, str]:
    """Versions and machine that a run records."""
    return {
        "htf": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
    }
