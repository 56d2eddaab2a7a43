"""One run of a sweep as a process of its own: how far it is, how it is started or continued, how it ended.

All that is known of a run is in files, so that any process on any machine that sees the folder can go on with it:

    data/NAME.yaml, .safetensors   generated data and their settings
    jobs/NAME.yaml                 settings of a run, below the command line that does it
    jobs/NAME.log                  what its process said
    runs/NAME/                     its run folder
    completed/NAME.*               what `htf complete` wrote
"""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from htfcli.engine.processes import LEASH
from htfcli.experiments.plan import PlannedRun
from htfcli.files.container import write_text
from htfcli.files.readers import suffix_of
from htfcli.files.run_folder import CHECKPOINT, RunFolder, in_use, open_lock

Status = Literal["finished", "failed", "interrupted"]
_POLL = 0.1  # seconds between looks at a process
_OVERTAKEN = 3  # times that a run is begun again because another process was found to be at it
_GRACE = 60.0  # seconds that a process has to save its state once it is told to stop


@dataclass(frozen=True)
class Outcome:
    """How a run ended; `error` is the line it failed with, `hopeless` that another try would fail the same way."""

    status: Status
    error: str = ""
    hopeless: bool = False


@dataclass(frozen=True)
class Job:
    """A planned run and the folder of its sweep."""

    run: PlannedRun
    sweep: Path

    @property
    def folder(self) -> Path:
        return self.sweep / "runs" / self.run.name

    @property
    def data(self) -> Path | None:
        """None for a task whose images the command makes."""
        name = self.run.data_name
        if name is not None:
            return self.sweep / "data" / f"{name}.safetensors"
        return None if self.run.data is None else Path(self.run.data)

    @property
    def settings_file(self) -> Path:
        return self.sweep / "jobs" / f"{self.run.name}.yaml"

    @property
    def log(self) -> Path:
        return self.settings_file.with_suffix(".log")

    @property
    def completed(self) -> Path | None:
        """What the run writes besides its folder."""
        if self.run.command != "complete":
            return None
        suffix = ".npy" if self.run.target is not None or self.data is None else suffix_of(self.data)
        return self.sweep / "completed" / f"{self.run.name}{suffix}"

    @property
    def text(self) -> str:
        """Of the settings file: how to do the run by hand, and its settings; two runs are the same if this is."""
        command = shlex.join(["htf", self.run.command, *self._arguments(self.sweep)])
        settings = self.run.settings.model_dump(mode="json", exclude_unset=True)
        return f"# {command}\n{yaml.safe_dump(settings, sort_keys=False)}"

    def _arguments(self, seen_from: Path | None = None) -> list[str]:
        """Of the command that starts the run; paths inside `seen_from` are relative to it."""

        def shown(path: Path) -> str:
            inside = seen_from is not None and path.is_relative_to(seen_from)
            return str(path.relative_to(seen_from) if inside and seen_from is not None else path)

        data = [] if self.data is None else [shown(self.data)]
        output = ["-o", shown(self.folder)]
        if self.completed is not None:
            output = ["-o", shown(self.completed), "--run", shown(self.folder)]
        return [*data, "--config", shown(self.settings_file), *output]

    @property
    def arguments(self) -> list[str]:
        """Of the command that starts the run, or goes on with it."""
        if self.resumable:
            return [*self._arguments(), "--resume"]
        begun = self.folder.exists() or (self.completed is not None and self.completed.exists())
        return [*self._arguments(), *(["--force"] if begun else [])]

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether all is there that the run makes."""
        return (self.folder / "summary.json").exists() and (self.completed is None or self.completed.exists())

    @property
    def resumable(self) -> bool:
        return self.run.command != "complete" and (self.folder / CHECKPOINT).exists()

    @property
    def changed(self) -> bool:
        """Whether the run folder is there and was made with other settings or data."""
        return self.folder.exists() and not self._settings_written

    @property
    def _settings_written(self) -> bool:
        return self.settings_file.exists() and self.settings_file.read_text(encoding="utf-8") == self.text

    def discard(self) -> None:
        """Remove what is there of the run.

        Raises:
            ConfigError: if another process is at it.
        """
        with RunFolder(str(self.folder), force=True) as folder:
            folder.discard()
        for path in (self.completed, self.log, self.settings_file):
            if path is not None:
                path.unlink(missing_ok=True)

    def write_settings(self) -> None:
        """Write the settings file, before which the run cannot start; and that of its data."""
        if not self._settings_written:
            write_text(self.settings_file, self.text)
        if self.run.target is not None and self.data is not None and not self.data.with_suffix(".yaml").exists():
            values = self.run.target.model_dump(mode="json", exclude_unset=True)
            write_text(self.data.with_suffix(".yaml"), yaml.safe_dump(values, sort_keys=False))


def execute(job: Job, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Outcome:
    """Do a run, or what is left of it, in a process of its own; returns when that has ended.

    Args:
        environment: variables set for the process. stopped: asked often; True ends the process, its state saved.
    """
    for _ in range(_OVERTAKEN):
        while in_use(job.folder):  # by a process that outlived its sweep and is saving its state
            if stopped():
                return Outcome("interrupted")
            time.sleep(_POLL)
        if job.finished:
            return Outcome("finished")
        if job.run.target is not None and job.data is not None:
            made = _make_data(job.data, environment, stopped)
            if made.status != "finished":
                return made
        arguments = job.arguments
        outcome = _process([job.run.command, *arguments], job.log, environment, stopped)
        if not outcome.hopeless or (job.arguments == arguments and not in_use(job.folder)):
            break  # or such a process, which was still starting, has begun the run meanwhile
    if outcome.status == "finished" and not job.finished:
        return Outcome("failed", f"{job.folder} has no summary though its process ended well")
    return outcome


def _make_data(data: Path, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Outcome:
    """Generate a data file from the settings beside it, unless another run with the same data has."""
    with _alone(data.with_suffix(".lock")):
        if data.exists():
            return Outcome("finished")
        arguments = ["generate", "tensor", "--config", str(data.with_suffix(".yaml")), "-o", str(data)]
        return _process(arguments, data.with_suffix(".log"), environment, stopped)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other thread or process is in a block with the same path."""
    with open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _process(arguments: list[str], log: Path, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Outcome:
    """Run `htf ARGUMENTS`, its stderr in `log`.

    The process is out of reach of the terminal's Ctrl-C, and holds the leash: it ends, its state saved, when this
    process has ended in whatever way.
    """
    log.unlink(missing_ok=True)
    with open(log, "xb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "htfcli", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            env={**os.environ, **environment, LEASH: "1", "PYTHONPATH": _this_code()},
        )
    told_at = None
    try:
        while process.poll() is None:
            if told_at is None and stopped():
                told_at = time.monotonic()
                process.terminate()
            elif told_at is not None and time.monotonic() - told_at > _GRACE:
                process.kill()
            time.sleep(_POLL)
    finally:
        assert process.stdin is not None
        process.stdin.close()
    code = process.returncode
    if code == 0:
        return Outcome("finished")
    if told_at is not None:
        return Outcome("interrupted")
    return Outcome("failed", _last_words(log, code), hopeless=code == 2)


def _this_code() -> str:
    """A module path on which a process finds the code that this one runs, and not another installed one."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(path for path in paths if path)


def _last_words(log: Path, code: int) -> str:
    """The line a process failed with."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return (errors or lines or [f"exit code {code}"])[-1]
