"""One run of a sweep as a separate process: its files, its state, how it is started or continued, how it ended.

The whole state of a run is in files, so that any process on any machine with access to the folder can continue it:

    data/NAME.yaml, .safetensors   settings of generated data, and the data
    jobs/NAME.yaml                 command line of a run as a comment, and its settings
    jobs/NAME.log                  stderr of its process; NAME.batch.log for a batch, NAME being that of its first run
    runs/NAME/                     its run folder
    completed/NAME.*               output of `htf complete`
"""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from htfcli.engine.runtime.processes import PARENT_PIPE
from htfcli.experiments.sweeps.plan import PlannedRun
from htfcli.files.foreign.readers import suffix_of
from htfcli.files.own.container import write_text
from htfcli.files.own.run_folder import CHECKPOINT, RunFolder, in_use, open_lock

Status = Literal["finished", "failed", "interrupted"]
_POLL = 0.1  # seconds between checks of a process
_OVERTAKEN = 3  # attempts to start a run that another process turns out to be working on
_GRACE = 60.0  # seconds that a process has to save its state after SIGTERM


@dataclass(frozen=True)
class Outcome:
    """How a run ended; `error` is its error message, `hopeless` means that another attempt would fail the same way."""

    status: Status
    error: str = ""
    hopeless: bool = False


@dataclass(frozen=True)
class Job:
    """A planned run in the folder of its sweep."""

    run: PlannedRun
    sweep: Path

    @property
    def folder(self) -> Path:
        return self.sweep / "runs" / self.run.name

    @property
    def data(self) -> Path | None:
        """The data file; None for a task whose images the command generates."""
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
        """The file that a completion writes besides its run folder; None for other commands."""
        if self.run.command != "complete":
            return None
        suffix = ".npy" if self.run.target is not None or self.data is None else suffix_of(self.data)
        return self.sweep / "completed" / f"{self.run.name}{suffix}"

    @property
    def text(self) -> str:
        """The content of the settings file: the command line and the settings; equal for two runs that are the same."""
        command = shlex.join(["htf", self.run.command, *self._arguments(self.sweep)])
        settings = self.run.settings.model_dump(mode="json", exclude_unset=True)
        return f"# {command}\n{yaml.safe_dump(settings, sort_keys=False)}"

    def _arguments(self, seen_from: Path | None = None) -> list[str]:
        """Arguments of the command that starts the run; paths inside `seen_from` are relative to it."""

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
        """Arguments of the command that starts or continues the run."""
        if self.resumable:
            return [*self._arguments(), "--resume"]
        return [*self._arguments(), *(["--force"] if self.begun else [])]

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the run has written all of its results."""
        return (self.folder / "summary.json").exists() and (self.completed is None or self.completed.exists())

    @property
    def resumable(self) -> bool:
        return self.run.command != "complete" and (self.folder / CHECKPOINT).exists()

    @property
    def begun(self) -> bool:
        """Whether the run has written files, but cannot be resumed from them."""
        exists = self.folder.exists() or (self.completed is not None and self.completed.exists())
        return exists and not self.resumable

    @property
    def changed(self) -> bool:
        """Whether the run folder exists and was written with other settings or data."""
        return self.folder.exists() and not self._settings_written

    @property
    def _settings_written(self) -> bool:
        return self.settings_file.exists() and self.settings_file.read_text(encoding="utf-8") == self.text

    def discard(self) -> None:
        """Remove all files of the run.

        Raises:
            ConfigError: if another process is working on it.
        """
        with RunFolder(str(self.folder), force=True) as folder:
            folder.discard()
        for path in (self.completed, self.log, self.settings_file):
            if path is not None:
                path.unlink(missing_ok=True)

    def write_settings(self) -> None:
        """Write the settings files of the run and of its data, which must exist before it starts."""
        if not self._settings_written:
            write_text(self.settings_file, self.text)
        if self.run.target is not None and self.data is not None and not self.data.with_suffix(".yaml").exists():
            values = self.run.target.model_dump(mode="json", exclude_unset=True)
            write_text(self.data.with_suffix(".yaml"), yaml.safe_dump(values, sort_keys=False))


def execute(jobs: Sequence[Job], environment: Mapping[str, str], stopped: Callable[[], bool]) -> list[Outcome]:
    """Start or continue runs of a sweep in a separate process; returns when that has ended.

    Args:
        jobs: a single run, or small fits that share a process (`htf fit-batch`).
        environment: variables set for the process. stopped: called often; True ends the process, which saves its state.
    """
    ends: dict[str, Outcome] = {}
    for _ in range(_OVERTAKEN):
        # A process whose sweep was killed may still be saving its state
        while any(in_use(job.folder) for job in jobs):
            if stopped():
                return [Outcome("interrupted") for _ in jobs]
            time.sleep(_POLL)
        left = [(job, job.arguments) for job in jobs if not job.finished]
        ends |= _execute([job for job, _ in left], environment, stopped)
        # Such a process may still have been starting, and have begun a run in the meantime
        if not any(
            ends[job.run.name].hopeless and (job.arguments != arguments or in_use(job.folder))
            for job, arguments in left
        ):
            break
    return [_outcome(job, ends.get(job.run.name)) for job in jobs]


def _execute(jobs: Sequence[Job], environment: Mapping[str, str], stopped: Callable[[], bool]) -> dict[str, Outcome]:
    """Run the process of one run or of a batch; returns how each run ended, by name."""
    if len(jobs) > 1:
        log = jobs[0].settings_file.with_suffix(".batch.log")
        names = [job.run.name for job in jobs]
        ended = _process(["fit-batch", str(jobs[0].sweep), *names], log, environment, stopped)
        return {job.run.name: replace(ended, error=error_in(job.log) or ended.error) for job in jobs}
    return {job.run.name: _execute_one(job, environment, stopped) for job in jobs}


def _execute_one(job: Job, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Outcome:
    if job.run.target is not None and job.data is not None:
        with locked(job.data) as exists:
            if not exists:
                arguments = ["generate", "tensor", "--config", str(job.data.with_suffix(".yaml")), "-o", str(job.data)]
                made = _process(arguments, job.data.with_suffix(".log"), environment, stopped)
                if made.status != "finished":
                    return made
    return _process([job.run.command, *job.arguments], job.log, environment, stopped)


def _outcome(job: Job, ended: Outcome | None) -> Outcome:
    """How a run ended, given how its process ended; None if it needed none."""
    if ended is None or job.finished:
        return Outcome("finished")
    if ended.status == "finished":
        return Outcome("failed", f"{job.folder} has no summary although its process succeeded")
    return ended


@contextmanager
def locked(data: Path) -> Iterator[bool]:
    """Lock a data file against other threads and processes while the block runs; yields whether the file exists."""
    with open_lock(data.with_suffix(".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield data.exists()


def _process(arguments: list[str], log: Path, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Outcome:
    """Run `htf ARGUMENTS` with its stderr in `log`.

    The process does not receive the terminal's Ctrl-C. It saves its state and ends when this process ends for whatever
    reason, see `end_with_parent`.
    """
    log.unlink(missing_ok=True)
    with open(log, "xb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "htfcli", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            env={**os.environ, **environment, PARENT_PIPE: "1", "PYTHONPATH": _this_code()},
        )
    stopped_at = None
    try:
        while process.poll() is None:
            if stopped_at is None and stopped():
                stopped_at = time.monotonic()
                process.terminate()
            elif stopped_at is not None and time.monotonic() - stopped_at > _GRACE:
                process.kill()
            time.sleep(_POLL)
    finally:
        assert process.stdin is not None
        process.stdin.close()
    code = process.returncode
    if code == 0:
        return Outcome("finished")
    if stopped_at is not None:
        return Outcome("interrupted")
    killed = f"killed by {signal.Signals(-code).name}" if code < 0 else ""
    return Outcome("failed", killed or error_in(log) or f"exit code {code}", hopeless=code == 2)


def _this_code() -> str:
    """A PYTHONPATH on which a process imports the code that this process runs, not another installed version."""
    paths = [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(path for path in paths if path)


def error_in(log: Path) -> str:
    """The error message of a process, without the advice on how to resume by hand; empty if there is none."""
    if not log.exists():
        return ""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return (errors or lines or [""])[-1].partition("; the state ")[0]
