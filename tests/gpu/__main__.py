"""What only a GPU can show, in one run of ten minutes at most:

    python -m tests.gpu --out docs/results

1. tests that need CUDA; 2. precision of the gradient of R; 3. fits and completion against the CPU; 4. times of a step;
5. Pathfinder with and without the regularizer. Writes gpu.md and CSV files, at most eight in all, after every figure:
what is there when the time is up is kept. `--smoke` rehearses everything at toy sizes on the CPU. Needs the package, its
test dependencies pytest and hypothesis, and no network.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path
from typing import cast

import torch

from tests.gpu import factorizations, paths, rounding, step_times, suite
from tests.gpu.report import Report
from tests.gpu.setting import ROOT, Job, Setting

JOBS = tuple(cast(Job, job) for job in (suite, rounding, factorizations, step_times, paths))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where gpu.md and the CSV files go")
    parser.add_argument("--seconds", type=float, default=560, help="time for everything (560)")
    parser.add_argument("--only", metavar="JOB,...", help=f"of {', '.join(job.NAME for job in JOBS)}")
    parser.add_argument("--smoke", action="store_true", help="toy sizes on the CPU")
    options = parser.parse_args()
    chosen = set(options.only.split(",")) if options.only else {job.NAME for job in JOBS}
    if unknown := chosen - {job.NAME for job in JOBS}:
        parser.error(f"no such job: {', '.join(sorted(unknown))}")
    if not options.smoke and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --smoke rehearses on the CPU")
    if options.smoke and options.out.resolve().is_relative_to(ROOT / "docs"):
        parser.error("figures of a rehearsal do not go into the documentation: give another --out")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "paths_records.csv").unlink(missing_ok=True)  # which is added to
    report = Report(options.out, options.smoke)
    end = time.monotonic() + options.seconds
    failed = False
    for job in JOBS:
        if job.NAME not in chosen:
            continue
        report.begin(job)
        device = torch.device("cpu" if options.smoke else "cuda")
        # A job has its share of what is left over, at least if those before it kept to theirs
        deadline = min(end, time.monotonic() + job.SHARE * options.seconds)
        started = time.monotonic()
        try:
            for row in job.rows(Setting(device, options.out, options.smoke, deadline)):
                report.add(row)
                print(f"{time.monotonic() - end + options.seconds:5.0f} s  {job.NAME}: {row}", flush=True)
        except Exception as error:
            failed = True
            traceback.print_exc()
            report.remark(f"Stopped by {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        report.remark(f"Took {time.monotonic() - started:.0f} s.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
