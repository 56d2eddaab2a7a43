"""One run of a sweep as a process of its own: how far it is, how it is started or continued, how it ended.

All that is known of a run is in files, so that any process on any machine that sees the folder can go on with it:

    data/NAME.yaml, .safetensors   generated data and their settings
    jobs/NAME.yaml                 settings of a run, below the command line that does it
    jobs/NAME.log                  what its process said; of a batch of runs NAME.batch.log, NAME that of the first
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from htfcli.engine.runtime.processes import LEASH
from htfcli.experiments.sweeps.plan import PlannedRun
from htfcli.files.foreign.readers import suffix_of
from htfcli.files.own.container import write_text
from htfcli.files.own.run_folder import CHECKPOINT, RunFolder, in_use, open_lock

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
        return [*self._arguments(), *(["--force"] if self.begun else [])]

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether all is there that the run makes."""
        return (self.folder / "summary.json").exists() and (self.completed is None or self.completed.exists())

    @property
    def resumable(self) -> bool:
        return self.run.command != "complete" and (self.folder / CHECKPOINT).exists()

    @property
    def begun(self) -> bool:
        """Whether there is something of a run that cannot be resumed."""
        there = self.folder.exists() or (self.completed is not None and self.completed.exists())
        return there and not self.resumable

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


def execute(jobs: Sequence[Job], environment: Mapping[str, str], stopped: Callable[[], bool]) -> list[Outcome]:
    """Do runs of a sweep, or what is left of them, in a process of its own; returns when that has ended.

    Args:
        jobs: one, or small fits that are trained as one batch (`htf fit-batch`).
        environment: variables set for the process. stopped: asked often; True ends the process, its state saved.
    """
    ends: dict[str, Outcome] = {}
    for _ in range(_OVERTAKEN):
        while any(in_use(job.folder) for job in jobs):  # by a process that outlived its sweep and is saving its state
            if stopped():
                return [Outcome("interrupted") for _ in jobs]
            time.sleep(_POLL)
        left = [(job, job.arguments) for job in jobs if not job.finished]
        ends |= _execute([job for job, _ in left], environment, stopped)
        # or such a process, which was still starting, has begun a run meanwhile
        if not any(
            ends[job.run.name].hopeless and (job.arguments != arguments or in_use(job.folder))
            for job, arguments in left
        ):
            break
    return [_outcome(job, ends.get(job.run.name)) for job in jobs]


def _execute(jobs: Sequence[Job], environment: Mapping[str, str], stopped: Callable[[], bool]) -> dict[str, Outcome]:
    """How the process of one run, or of several as a batch, ended, by the names of the runs."""
    if len(jobs) > 1:
        log = jobs[0].settings_file.with_suffix(".batch.log")
        names = [job.run.name for job in jobs]
        ended = _process(["fit-batch", str(jobs[0].sweep), *names], log, environment, stopped)
        return {job.run.name: replace(ended, error=last_words(job.log) or ended.error) for job in jobs}
    return {job.run.name: _execute_one(job, environment, stopped) for job in jobs}


def _execute_one(job: Job, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Outcome:
    if job.run.target is not None and job.data is not None:
        with alone_with(job.data) as there:
            if not there:
                arguments = ["generate", "tensor", "--config", str(job.data.with_suffix(".yaml")), "-o", str(job.data)]
                made = _process(arguments, job.data.with_suffix(".log"), environment, stopped)
                if made.status != "finished":
                    return made
    return _process([job.run.command, *job.arguments], job.log, environment, stopped)


def _outcome(job: Job, ended: Outcome | None) -> Outcome:
    """How a run ended whose process ended so, if there was one."""
    if ended is None or job.finished:
        return Outcome("finished")
    if ended.status == "finished":
        return Outcome("failed", f"{job.folder} has no summary though its process ended well")
    return ended


@contextmanager
def alone_with(data: Path) -> Iterator[bool]:
    """Wait until no other thread or process is in a block with the same data; whether they have been made."""
    with open_lock(data.with_suffix(".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield data.exists()


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
    killed = f"killed by {signal.Signals(-code).name}" if code < 0 else ""
    return Outcome("failed", killed or last_words(log) or f"exit code {code}", hopeless=code == 2)


def _this_code() -> str:
    """A module path on which a process finds the code that this one runs, and not another installed one."""
    paths = [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(path for path in paths if path)


def last_words(log: Path) -> str:
    """The line a process failed with, without advice on how to go on by hand: nothing if it said none."""
    if not log.exists():
        return ""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return (errors or lines or [""])[-1].partition("; the state ")[0]
