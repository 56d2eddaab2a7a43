"""Small fits of a sweep in one process, those of one shape trained as one batch, each with a run folder of its own.

The plan says which runs may share a process (`in_batches`), the data which of these can share their work (`batch_key`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from htfcli.config.tensors import FitConfig
from htfcli.errors import HtfError, Interrupted, RunError
from htfcli.experiments.sweeps.job import Job, alone_with
from htfcli.files.own.container import write_text

if TYPE_CHECKING:
    from htfcli.experiments.runs.fit import FitRun

_MOST_RUNS = 32  # of a process
_MAY_DIFFER = {"seed", "init_std", "lr"}
_MOST_ENTRIES, _MOST_WIDTH = 2**14, 64  # of a tensor and its model, beyond which a batch gains little
_MOST_BYTES = 2**20  # of a file of data


def in_batches(jobs: Sequence[Job], processes: int) -> list[list[Job]]:
    """The jobs in their order, small fits that differ only in `_MAY_DIFFER` together, the others alone.

    Args:
        processes: over how many the runs of a kind are spread, where there are as many.
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
    """Equal for small fits that differ in nothing else; the name of any other run."""
    s, target = job.run.settings, job.run.target
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
    """Do runs, or what is left of them; one that fails says why in its log and leaves the others alone.

    Args:
        jobs: fits. should_stop: called before each iteration of each run; True interrupts all.
    Raises:
        RunError: at the end, if runs failed. Interrupted: if `should_stop` said so; all state has been saved.
    """
    import torch

    from htfcli.engine.fitting.batched import batch_key, train_together
    from htfcli.engine.fitting.gradient_descent import GradientFit

    torch.set_num_threads(1)  # two gain nothing on work this small, and lose much where another process wants a core
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
        raise Interrupted(f"interrupted with {len(ends)} of {len(jobs)} runs not at their end")
    if ends:
        raise RunError(f"{len(ends)} of {len(jobs)} runs failed")


def _prepared(job: Job) -> FitRun:
    """A fit ready to go, its data made if they are not there."""
    from htfcli.engine.observations.synthetic import make_observations
    from htfcli.experiments.runs.fit import FitRun
    from htfcli.files.own.artefacts import save_observations

    settings, target, data = job.run.settings, job.run.target, job.data
    assert isinstance(settings, FitConfig) and data is not None
    if target is not None:
        with alone_with(data) as there:
            if not there:
                save_observations(str(data), make_observations(target), target.model_dump(mode="json"))
    return FitRun(settings, str(data), str(job.folder), resume=job.resumable, force=job.begun)
