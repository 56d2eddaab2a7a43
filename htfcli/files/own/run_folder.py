"""A run folder: configuration, records, checkpoint, result and summary of one run, safe against interruption.

config.yaml             resolved configuration, and the versions, device and data it ran with
records.jsonl           one object a record, flushed as written
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
from htfcli.errors import ConfigError, DataError
from htfcli.files.own import container
from htfcli.files.own.container import Artefact
from htfcli.files.own.records import finite, read_lines, to_json

CHECKPOINT = "checkpoint.safetensors"
FILES = ("config.yaml", "records.jsonl", CHECKPOINT, "model.safetensors", "summary.json")
_LOCK = ".lock"


class RunFolder:
    """One run's folder, locked against other processes while it is open; use as a context manager.

    Args:
        path: the folder; made if it is not there.
        resume: continue what is there. force: replace what is there. resumable: whether the command can resume at all.
    Raises:
        ConfigError: if there is a run already and neither is said, or something that is not a run, or another process
            is at it, or there is nothing to resume.
        DataError: if the folder cannot be made.
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
                raise ConfigError(f"{path} is there and is not a run folder", next_step="Choose another name.")
            if visible and not resume and not force:
                resumable = resumable and CHECKPOINT in visible  # it may have been killed before it had one
                other = "Continue it with --resume" if resumable else "Choose another name"
                advice = f"{other}, or replace it with --force."
                raise ConfigError(f"{path} holds a run", next_step=advice)
            self._lock = self._acquire()
            self._clear(FILES if force else ())
        except OSError as error:
            raise DataError(f"cannot write the run folder {path}: {error.strerror or error}") from None

    def _acquire(self) -> IO[str]:
        lock = open_lock(self.path / _LOCK)  # stays when it is released: another process may be waiting for it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            advice = "Wait for it, or choose another folder."
            raise ConfigError(f"another process is using {self.path}", next_step=advice) from None
        return lock

    def _clear(self, names: tuple[str, ...]) -> None:
        """Remove these files, and what writing any of ours left behind when it was killed."""
        for name in FILES:
            container.remove_leftovers(self.path / name)
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the folder."""
        if self._records is not None:
            with suppress(OSError):  # every record was flushed; a disk that is full has been reported
                self._records.close()
        self._lock.close()

    def discard(self) -> None:
        """Remove what this run wrote, and the folder if there is nothing else in it."""
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
        """Settings first, in a form that `--config` reads; facts (versions, device) as comments below."""
        lines = [f"# {line}" for line in yaml.safe_dump(dict(facts), sort_keys=False).splitlines()]
        text = yaml.safe_dump(dict(config), sort_keys=False) + "\n".join(lines) + "\n"
        container.write_text(self.path / "config.yaml", text)

    # --- records ------------------------------------------------------------------------------------------------------

    def start_records(self, before: int = 0, counter: str = "iteration") -> dict[str, Any]:
        """Open the records for appending; those of iteration `before` and later, which a kill may have left, go.

        Args:
            counter: key of a record that counts, iteration or epoch.
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
        """Replace the checkpoint: resumable state, the configuration it belongs to, and what data (digest, path)."""
        container.save(self.path / CHECKPOINT, "checkpoint", state, content, config)

    def checkpoint(self) -> Artefact:
        """The latest checkpoint.

        Raises:
            DataError: if it is damaged or something else.
        """
        return container.read(self.path / CHECKPOINT).expect("checkpoint")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        container.write_text(self.path / "summary.json", json.dumps(finite(summary), indent=2, allow_nan=False) + "\n")


def _begun(folder: Path) -> set[str]:
    """Names of what is in a folder, but for hidden files."""
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} if folder.is_dir() else set()


def open_lock(path: Path) -> IO[str]:
    """A lock file, made if it is not there; never a file that a link in its place points to."""
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")


def in_use(folder: Path) -> bool:
    """Whether a process is at the run in this folder."""
    try:
        with open(folder / _LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def versions() -> dict[str, str]:
    """What a run should say it ran with."""
    return {
        "htf": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
    }
