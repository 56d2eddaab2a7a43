"""A sweep: the runs of a plan in one folder, executed by a pool, resumable, and summarized as they end.

plan.yaml                    the plan; `htf sweep FOLDER` continues it
summary.jsonl, summary.csv   one row per run: status, settings, final numbers
data, jobs, runs, completed  see `job`
"""

from __future__ import annotations

import fcntl
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from htfcli.config.plan import PlanConfig
from htfcli.errors import ConfigError, DataError, Interrupted, RunError
from htfcli.experiments.sweeps.batched_fits import in_batches
from htfcli.experiments.sweeps.job import Job, Outcome
from htfcli.experiments.sweeps.local_pool import Pool, Task
from htfcli.experiments.sweeps.plan import PLAN, planned_runs
from htfcli.experiments.sweeps.summary import SUMMARY_CSV, SUMMARY_JSONL, Row, as_csv
from htfcli.files.own.container import write_text
from htfcli.files.own.records import to_json
from htfcli.files.own.run_folder import open_lock

_POLL = 0.1  # seconds between checks of the workers
_SUMMARIZE_EVERY = 2.0  # seconds between summaries written while runs are in progress


@dataclass
class Progress:
    """Progress of a run: `status` is waiting, running or that of an `Outcome`; `kept` if it had finished before."""

    job: Job
    status: str = "waiting"
    error: str = ""
    tries: int = 0
    kept: bool = False
    started: float | None = None
    seconds: float = 0.0
    row: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Watcher:
    """Callbacks of a sweep.

    Args:
        on_change: called often with the progress of all runs. on_end: called once per run, with its `row` set.
        should_stop: called often; True ends the workers, whose state is saved.
    """

    on_change: Callable[[Sequence[Progress]], None]
    on_end: Callable[[Progress], None]
    should_stop: Callable[[], bool]


class Sweep:
    """The runs of a plan, checked and ready to start.

    Args:
        plan: what to run. output: folder of the sweep. force: rerun runs whose saved settings differ.
    Raises:
        ConfigError: on a wrong plan, or if the folder holds runs with other settings.
    """

    def __init__(self, plan: PlanConfig, output: str, *, force: bool = False) -> None:
        self.plan, self.path = plan, Path(output).resolve()
        self.jobs = [Job(run, self.path) for run in planned_runs(plan)]
        changed = [job for job in self.jobs if job.changed]
        if changed and not force:
            raise ConfigError(
                f"{output} holds runs with other settings",
                got=", ".join(job.run.name for job in changed[:3]) + (", ..." if len(changed) > 3 else ""),
                next_step="Choose another folder with -o, or rerun them with --force.",
            )
        self._changed = changed
        if self.path.exists() and not (self.path / PLAN).exists() and any(self.path.iterdir()):
            raise ConfigError(f"{output} exists and is not a sweep", next_step="Choose another name with -o.")
        self.progress = [Progress(job) for job in self.jobs]
        self._summarized = 0.0

    def describe(self) -> str:
        """One line on what is about to run."""
        finished = sum(job.finished for job in self.jobs if job not in self._changed)
        kept = f", {finished} of them finished before" if finished else ""
        return f"{len(self.jobs)} {'run' if len(self.jobs) == 1 else 'runs'} of htf {self.plan.command}{kept}"

    def run(self, pool: Pool, retries: int, watcher: Watcher) -> None:
        """Execute all runs that are not finished.

        Args:
            pool: executes the runs. retries: number of further attempts for a failed run. watcher: callbacks.
        Raises:
            RunError: if runs failed, after all others have ended. Interrupted: if `should_stop` returned True.
            DataError: if the folder cannot be written. ConfigError: if another sweep is using it.
        """
        with self._locked():
            self._begin(watcher)
            try:
                self._work(pool, retries, watcher)
            finally:
                for progress in self.progress:
                    if progress.status == "running":  # by workers that have been lost
                        progress.status = "interrupted"
                self._summarize()
        failed = [p for p in self.progress if p.status == "failed"]
        if failed:
            more = f" (and {len(failed) - 1} more, see {self.path / SUMMARY_CSV})" if len(failed) > 1 else ""
            first = f"{failed[0].job.run.name}: {failed[0].error.rstrip('.')}"
            raise RunError(f"{len(failed)} of {len(self.jobs)} runs failed: {first}{more}")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Create the folder if necessary and lock it against other sweeps while the block runs."""
        try:
            for name in ("data", "jobs", "runs", "completed"):
                if name != "completed" or self.plan.command == "complete":
                    (self.path / name).mkdir(parents=True, exist_ok=True)
            lock = open_lock(self.path / ".lock")
        except OSError as error:
            raise DataError(f"cannot write the sweep {self.path}: {error.strerror or error}") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"another sweep is using {self.path}", next_step="Wait for it to end.") from None
            yield

    def _begin(self, watcher: Watcher) -> None:
        for job in self._changed:
            job.discard()
        settings = self.plan.model_dump(mode="json", exclude_unset=True)
        if self.plan.data is not None:
            settings["data"] = str(Path(self.plan.data).resolve())
        write_text(self.path / PLAN, yaml.safe_dump(settings, sort_keys=False))
        for progress in self.progress:
            progress.job.write_settings()
            if progress.job.finished:
                progress.kept = True
                self._end(progress, Outcome("finished"), watcher)

    def _work(self, pool: Pool, retries: int, watcher: Watcher) -> None:
        left = {p.job.run.name: p for p in self.progress if p.status == "waiting"}
        batches = in_batches([p.job for p in left.values()], pool.capacity())
        waiting = [[left[job.run.name] for job in jobs] for jobs in batches]
        running: dict[Task, list[Progress]] = {}
        stopping = False
        while running or (waiting and not stopping):
            if watcher.should_stop() and not stopping:
                stopping = True
                pool.stop()
            while waiting and not stopping and len(running) < pool.capacity():
                batch = waiting.pop(0)
                for progress in batch:
                    progress.status, progress.tries, progress.started = "running", progress.tries + 1, time.monotonic()
                running[pool.submit([progress.job for progress in batch])] = batch
            watcher.on_change(self.progress)
            time.sleep(_POLL)
            for task in [task for task in running if task.done()]:
                batch = running.pop(task)
                for progress, outcome in zip(batch, _outcomes(task, len(batch)), strict=True):
                    again = outcome.status == "failed" and not outcome.hopeless and progress.tries <= retries
                    if again and not stopping:
                        progress.status, progress.error = "waiting", outcome.error
                        waiting.append([progress])
                    else:
                        self._end(progress, outcome, watcher)
        watcher.on_change(self.progress)
        if stopping:
            count = Counter(p.status for p in self.progress)["finished"]
            raise Interrupted(
                f"interrupted; {len(self.jobs) - count} of {len(self.jobs)} runs unfinished, continue with: "
                f"htf sweep {self.path}"
            )

    def _end(self, progress: Progress, outcome: Outcome, watcher: Watcher) -> None:
        progress.status, progress.error = outcome.status, outcome.error
        progress.seconds = 0.0 if progress.started is None else time.monotonic() - progress.started
        progress.row = row_of(progress)
        if time.monotonic() - self._summarized > _SUMMARIZE_EVERY:
            self._summarize()
        watcher.on_end(progress)

    def _summarize(self) -> None:
        rows = [progress.row or row_of(progress) for progress in self.progress]
        write_text(self.path / SUMMARY_JSONL, "".join(f"{to_json(row)}\n" for row in rows))
        write_text(self.path / SUMMARY_CSV, as_csv(rows))
        self._summarized = time.monotonic()


def _outcomes(task: Task, count: int) -> list[Outcome]:
    """How the runs of a task ended; all failed if their worker was lost or could not write.

    Raises:
        RunError: if the pool was lost.
    """
    try:
        return task.result()
    except RunError:
        raise
    except Exception as error:
        return [Outcome("failed", str(error).splitlines()[0] if str(error) else type(error).__name__)] * count


def row_of(progress: Progress) -> Row:
    """The summary row of a run: its settings, those of its data, and its final numbers once it has finished."""
    run = progress.job.run
    final = None
    if progress.status == "finished":
        try:
            final = json.loads((progress.job.folder / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            progress.status, progress.error = "failed", f"{progress.job.folder}/summary.json cannot be read"
    return {
        "kind": "run",
        "run": run.name,
        "status": progress.status,
        "error": progress.error or None,
        "command": run.command,
        "varied": run.varied,
        "settings": run.settings.model_dump(mode="json"),
        "generate": None if run.target is None else run.target.model_dump(mode="json"),
        "data": None if progress.job.data is None else str(progress.job.data),
        "final": final,
    }
