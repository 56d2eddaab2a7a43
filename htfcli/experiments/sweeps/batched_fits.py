"""Small runs of a sweep in one process, each with its own run folder: fits of the same shape are trained as a batch.

Settings decide which runs may share a process (`in_batches`), and the data which of these form a batch (`batch_key`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from htfcli.config.recovery import RecoveryConfig
from htfcli.config.tensors import FitConfig
from htfcli.errors import HtfError, Interrupted, RunError
from htfcli.experiments.sweeps.job import Job, locked
from htfcli.files.own.container import write_text

if TYPE_CHECKING:
    from htfcli.experiments.runs.fit import FitRun

_MOST_RUNS = 32  # per process
_MAY_DIFFER = {"seed", "init_std", "lr", "ratio"}
_MOST_ENTRIES, _MOST_WIDTH = 2**14, 64  # of a tensor and its model, above which a batch gains little
_MOST_BYTES = 2**20  # of a data file


def in_batches(jobs: Sequence[Job], processes: int) -> list[list[Job]]:
    """The jobs in order, grouped: small runs that differ only in `_MAY_DIFFER` together, all others alone.

    Args:
        jobs: of one sweep. processes: number of groups that alike runs are spread over, if there are enough of them.
    """
    kinds: dict[Hashable, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(_kind(job), []).append(job)
    found: list[list[Job]] = []
    for of in kinds.values():
        parts = max(min(processes, len(of)), math.ceil(len(of) / _MOST_RUNS))
        found += [of[len(of) * k // parts : len(of) * (k + 1) // parts] for k in range(parts)]
    return found


def _kind(job: Job) -> Hashable:
    """A key that is equal for small runs that may share a process; the name of the run for any other."""
    s, target = job.run.settings, job.run.target
    if isinstance(s, RecoveryConfig):
        return json.dumps(s.model_dump(mode="json", exclude=_MAY_DIFFER), sort_keys=True)
    if not isinstance(s, FitConfig) or s.solver != "gradient" or s.batch_size is not None or s.seconds is not None:
        return job.run.name
    if isinstance(s.width, list | dict) or (s.width or 0) > _MOST_WIDTH:
        return job.run.name
    if target is None:
        small = job.data is not None and job.data.is_file() and job.data.stat().st_size <= _MOST_BYTES
    else:
        small = math.prod(target.resolved_dims) <= _MOST_ENTRIES and target.task == "completion" and not target.mask
    if not small:
        return job.run.name
    of_data = None if target is None else target.model_dump(mode="json", exclude={"seed"})
    return json.dumps([s.model_dump(mode="json", exclude=_MAY_DIFFER), of_data], sort_keys=True)


def run_batch(jobs: Sequence[Job], should_stop: Callable[[int], bool]) -> None:
    """Start or continue small runs; one that fails writes its error to its log and does not affect the others.

    Args:
        jobs: runs of one kind of a sweep. should_stop: called before each iteration of a run; True interrupts all.
    Raises:
        RunError: at the end, if runs failed. Interrupted: if `should_stop` returned True; all states have been saved.
    """
    import torch

    from htfcli.engine.fitting.batched import batch_key, train_together
    from htfcli.engine.fitting.gradient_descent import GradientFit
    from htfcli.experiments.runs.recovery import run_recovery

    torch.set_num_threads(1)  # more gain nothing on work this small, and lose much if another process needs the core
    ends: list[HtfError] = []

    @contextmanager
    def ending(job: Job) -> Iterator[None]:
        try:
            yield
        except HtfError as error:
            ends.append(error)
            write_text(job.log, f"Error: {error}\n")

    def course(job: Job, run: FitRun) -> Iterator[None]:
        with ending(job):
            yield from run.course(should_stop)

    kinds: dict[Hashable, list[tuple[Job, FitRun, GradientFit]]] = {}
    for job in jobs:
        job.log.unlink(missing_ok=True)
        with ending(job):
            if isinstance(job.run.settings, RecoveryConfig):
                run_recovery(job.run.settings, str(job.folder), should_stop, force=job.begun)
                continue
            run = _prepared(job)
            assert isinstance(run.fit, GradientFit)
            kinds.setdefault(batch_key(run.fit) or job.run.name, []).append((job, run, run.fit))
    for of in kinds.values():
        if len(of) > 1:
            train_together([(fit, course(job, run)) for job, run, fit in of])
            continue
        for job, run, _ in of:
            with ending(job):
                run.run(lambda record: None, should_stop)
    if any(isinstance(error, Interrupted) for error in ends):
        raise Interrupted(f"interrupted; {len(ends)} of {len(jobs)} runs unfinished")
    if ends:
        raise RunError(f"{len(ends)} of {len(jobs)} runs failed")


def _prepared(job: Job) -> FitRun:
    """A fit ready to start; its data are generated unless they exist."""
    from htfcli.engine.observations.synthetic import make_observations
    from htfcli.experiments.runs.fit import FitRun
    from htfcli.files.own.artefacts import save_observations

    settings, target, data = job.run.settings, job.run.target, job.data
    assert isinstance(settings, FitConfig) and data is not None
    if target is not None:
        with locked(data) as exists:
            if not exists:
                save_observations(str(data), make_observations(target), target.model_dump(mode="json"))
    return FitRun(settings, str(data), str(job.folder), resume=job.resumable, force=job.begun)
