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
from htfcli.files.run_folder import CHECKPOINT, RunFolder, in_use

Status = Literal["finished", "failed", "interrupted"]
_POLL = 0.1  # seconds between looks at a process
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
    def data(self) -> Path:
        name = self.run.data_name
        return Path(str(self.run.data)) if name is None else self.sweep / "data" / f"{name}.safetensors"

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
        suffix = ".npy" if self.run.target is not None else suffix_of(self.data)
        return self.sweep / "completed" / f"{self.run.name}{suffix}"

    @property
    def text(self) -> str:
        """Of the settings file: how to do the run by hand, and its settings; two runs are the same if this is."""
        command = " ".join(["htf", self.run.command, *self._arguments(relative_to=self.sweep)])
        settings = self.run.settings.model_dump(mode="json", exclude_unset=True)
        return f"# {command}\n{yaml.safe_dump(settings, sort_keys=False)}"

    def _arguments(self, relative_to: Path | None = None) -> list[str]:
        def shown(path: Path) -> str:
            inside = relative_to is not None and path.is_relative_to(relative_to)
            return str(path.relative_to(relative_to) if inside and relative_to is not None else path)

        folder = ["-o", shown(self.folder)]
        if self.completed is not None:
            folder = ["-o", shown(self.completed), "--run", shown(self.folder)]
        return [shown(self.data), "--config", shown(self.settings_file), *folder]

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
        if not self.folder.exists():
            return False
        return not self.settings_file.exists() or self.settings_file.read_text(encoding="utf-8") != self.text

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
        if not self.settings_file.exists():
            write_text(self.settings_file, self.text)
        settings = self.data.with_suffix(".yaml")
        if self.run.target is not None and not settings.exists():
            values = self.run.target.model_dump(mode="json", exclude_unset=True)
            write_text(settings, yaml.safe_dump(values, sort_keys=False))


def execute(job: Job, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Outcome:
    """Do a run, or what is left of it, in a process of its own; returns when that has ended.

    Args:
        environment: variables set for the process. stopped: asked often; True ends the process, its state saved.
    """
    while in_use(job.folder):  # by a process that outlived its sweep and is saving its state
        if stopped():
            return Outcome("interrupted")
        time.sleep(_POLL)
    if job.finished:
        return Outcome("finished")
    if job.run.target is not None:
        outcome = _make_data(job, environment, stopped)
        if outcome.status != "finished":
            return outcome
    arguments = job._arguments()
    if job.resumable:
        arguments = [str(job.data), "-o", str(job.folder), "--resume"]
    elif job.folder.exists() or (job.completed is not None and job.completed.exists()):
        arguments.append("--force")
    outcome = _process([job.run.command, *arguments], job.log, environment, stopped)
    if outcome.status == "finished" and not job.finished:
        return Outcome("failed", f"{job.folder} has no summary though its process ended well")
    return outcome


def _make_data(job: Job, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Outcome:
    """Generate the data of a run, unless another run with the same data has."""
    with _alone(job.data.with_suffix(".lock")):
        if job.data.exists():
            return Outcome("finished")
        settings = str(job.data.with_suffix(".yaml"))
        arguments = ["generate", "tensor", "--config", settings, "-o", str(job.data)]
        return _process(arguments, job.data.with_suffix(".log"), environment, stopped)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other thread or process is in a block with the same path."""
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _process(arguments: list[str], log: Path, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Outcome:
    """Run `htf ARGUMENTS`, its stderr in `log`.

    The process is out of reach of the terminal's Ctrl-C, and holds the leash: it ends, its state saved, when this
    process has ended in whatever way.
    """
    with open(log, "wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "htfcli", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            env={**os.environ, **environment, LEASH: "1"},
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


def _last_words(log: Path, code: int) -> str:
    """The line a process failed with."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return (errors or lines or [f"exit code {code}"])[-1]
