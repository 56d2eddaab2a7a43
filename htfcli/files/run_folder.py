"""A run folder: configuration, records, checkpoint, result and summary of one run, safe against interruption.

config.yaml             resolved configuration, and the versions, device and data it ran with
records.jsonl           one object a record, flushed as written
checkpoint.safetensors  latest resumable state, replaced atomically
model.safetensors       the result
summary.json            final numbers
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
import yaml
from torch import Tensor

from htfcli._version import __version__
from htfcli.errors import ConfigError, DataError
from htfcli.files import container

try:
    import fcntl
except ImportError:  # not on Windows, where two processes on one folder go unnoticed
    fcntl = None  # type: ignore[assignment]

FILES = ("config.yaml", "records.jsonl", "checkpoint.safetensors", "model.safetensors", "summary.json")


class RunFolder:
    """One run's folder, locked against other processes while it is open; use as a context manager.

    Args:
        path: the folder; made if it is not there.
        resume: continue what is there. force: replace what is there.
    Raises:
        ConfigError: if there is a run already and neither is said, or something that is not a run, or another process.
        DataError: if the folder cannot be made.
    """

    def __init__(self, path: str, *, resume: bool = False, force: bool = False) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            present = {entry.name for entry in self.path.iterdir()} - {".lock"}
            if present and not present & set(FILES):
                raise ConfigError(f"{path} is there and is not a run folder", next_step="Choose another name.")
            if present and not resume and not force:
                raise ConfigError(
                    f"{path} holds a run", next_step="Continue it with --resume, or replace it with --force."
                )
            self._lock = self._acquire()
            if force and not resume:
                for name in FILES:
                    (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"cannot write the run folder {path}: {error.strerror or error}") from None
        self._records: IO[str] | None = None

    def _acquire(self) -> IO[str]:
        lock = open(self.path / ".lock", "w")
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                raise ConfigError(
                    f"another process is using {self.path}", next_step="Wait for it, or choose another folder."
                ) from None
        return lock

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._records is not None:
            with suppress(OSError):  # every record was flushed; a disk that is full has been reported
                self._records.close()
        (self.path / ".lock").unlink(missing_ok=True)
        self._lock.close()

    # --- configuration ------------------------------------------------------------------------------------------------

    def write_config(self, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Settings first, in a form that `--config` reads; facts (versions, device) as comments below."""
        lines = [f"# {line}" for line in yaml.safe_dump(dict(facts), sort_keys=False).splitlines()]
        text = yaml.safe_dump(dict(config), sort_keys=False) + "\n".join(lines) + "\n"
        container.write_text(self.path / "config.yaml", text)

    # --- records ------------------------------------------------------------------------------------------------------

    def start_records(self, before: int = 0) -> None:
        """Open the records for appending; those of iteration `before` and later, which a kill may have left, go."""
        path = self.path / "records.jsonl"
        kept = [line for line, record in _whole_lines(path) if record.get("iteration", 0) < before] if before else []
        container.write_text(path, "".join(kept))
        self._records = open(path, "a", encoding="utf-8")

    def append(self, line: str) -> None:
        """Add one record, a line of JSON."""
        assert self._records is not None
        try:
            self._records.write(line + "\n")
            self._records.flush()
        except OSError as error:
            raise DataError(f"cannot write {self.path / 'records.jsonl'}: {error.strerror or error}") from None

    # --- state --------------------------------------------------------------------------------------------------------

    def save_checkpoint(
        self, state: Mapping[str, Tensor], config: Mapping[str, Any], content: Mapping[str, Any]
    ) -> None:
        """Replace the checkpoint: resumable state, the configuration it belongs to, and what data (digest, path)."""
        container.save(self.path / "checkpoint.safetensors", "checkpoint", state, content, config)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        container.write_text(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")


def load_records(argument: str) -> tuple[str, list[dict[str, Any]]]:
    """A run's name and records of iterations, from its folder, a file of records, or stdin (`-`).

    A last line cut off by a kill is left out.

    Raises:
        DataError: if it does not exist, has no such records, or holds something else.
    """
    path = Path(argument)
    name = "stdin" if argument == "-" else path.resolve().name if path.is_dir() else path.stem
    if argument == "-":
        lines: Iterator[str] = iter(sys.stdin)
        records = [record for _, record in _parse(lines, name)]
    else:
        file = path / "records.jsonl" if path.is_dir() else path
        if not file.exists():
            raise DataError(f"{argument} has no records", next_step="Name a run folder or a file of records.")
        records = [record for _, record in _whole_lines(file)]
    fits = [r for r in records if r.get("kind") == "iteration" and isinstance(r.get("iteration"), int)]
    if not fits:
        kinds = ", ".join(sorted({str(r.get("kind")) for r in records})) or "nothing"
        raise DataError(f"{argument} has no records of a fit", got=kinds, allowed="what htf fit prints and keeps")
    return name, fits


def _whole_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines of a file and the records on them."""
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from _parse(file, str(path))


def _parse(lines: Iterable[str], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError
        except (ValueError, RecursionError):
            if not line.endswith("\n"):
                return
            raise DataError(f"{name} line {number} is not a record", got=repr(line[:40].strip())) from None
        yield line, record


def versions() -> dict[str, str]:
    """What a run should say it ran with."""
    return {
        "htf": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
    }
