"""`htf complete` on sparse CP targets with 10 % noise, from a file on disk: time, memory, error against the noise floor.

    python -m tests.benchmarks.complete_scale [--entries 100000 1000000 10000000] [--dims 2000 1500 1000] [--rank 6]

Each size is one run of the command in a process of its own, reading included; memory is that process's peak. The error
is that of 20,000 entries which were not in the file, measured with noise, over the noise itself: 1 is all there is. To
reach on one core: 5, 20 and 80 CPU seconds for 10^5, 10^6 and 10^7 entries, at most 1.02 and 1.6 GiB.
Without --dims, 10^5 entries are of a tensor of 200 x 150 x 100, more of one of 2000 x 1500 x 1000.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.observations.observations import Observations, sample_entries
from htfcli.engine.samples import Entries
from htfcli.files.own.artefacts import save_observations
from htfcli.files.tables.formats import read_table
from tests.benchmarks.timing import machine, table

NOISE = 0.1
ASKED = 20_000
_ROWS = 2**18  # written at a time


def generate(folder: Path, entries: int, dims: Sequence[int], rank: int, kind: str, seed: int) -> tuple[Tensor, Tensor]:
    """Write data and queries; the noisy values asked for and their noise."""
    generator = torch.Generator().manual_seed(seed)
    model = CPFactorization(dims, rank).init_gaussian(1.0, generator)
    index = sample_entries(dims, entries + ASKED, generator)
    value = model.values(index)
    value /= value.square().mean().sqrt()
    noise = NOISE * torch.randn(len(value), generator=generator, dtype=torch.float64)
    value += noise
    if kind == "tns":
        write_rows(folder / "data.tns", index[:entries], value[:entries])
        write_rows(folder / "asked.tns", index[entries:], None)
    else:
        data = Entries(index[:entries].contiguous(), value[:entries].contiguous())
        save_observations(folder / "data.safetensors", Observations(tuple(dims), data))
        write_rows(folder / "asked.csv", index[entries:], None)
    return value[entries:].clone(), noise[entries:].clone()


def write_rows(path: Path, index: Tensor, value: Tensor | None) -> None:
    """Text with one row an entry; indices from 1 in .tns and from 0 in .csv."""
    first, gap = (1, " ") if path.suffix == ".tns" else (0, ",")
    with path.open("w") as file:
        for start in range(0, len(index), _ROWS):
            columns = [list(map(str, column)) for column in (index[start : start + _ROWS] + first).t().tolist()]
            if value is not None:
                columns.append([f"{v:.9g}" for v in value[start : start + _ROWS].tolist()])
            file.writelines(gap.join(row) + "\n" for row in zip(*columns, strict=True))


def measure(entries: int, dims: Sequence[int], rank: int, kind: str, threads: int, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        value, noise = generate(folder, entries, dims, rank, kind, seed)
        suffix = "tns" if kind == "tns" else "csv"
        asked, output = folder / f"asked.{suffix}", folder / f"predicted.{suffix}"
        command = [sys.executable, "-m", "htfcli", "complete", str(folder / f"data.{kind}"), "--predict", str(asked)]
        command += ["-o", str(output), "--threads", str(threads), "--device", "cpu", "--format", "jsonl"]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=sys.stderr)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"htf complete failed: {status}")
        wall = time.perf_counter() - started
        predicted = torch.from_numpy(read_table([output], output.name).value)
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss / 2**20,
        "error": float((predicted - value).norm() / value.norm()),
        "floor": float(noise.norm() / value.norm()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--dims", type=int, nargs="+", help="of the tensor")
    parser.add_argument("--rank", type=int, default=6, help="CP rank of the target")
    parser.add_argument("--kind", choices=("safetensors", "tns"), default="safetensors", help="format of the file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = []
    for entries in args.entries:
        dims = args.dims or ([200, 150, 100] if entries <= 10**5 else [2000, 1500, 1000])
        found = measure(entries, dims, args.rank, args.kind, args.threads, args.seed)
        ratio = found["error"] / found["floor"]
        shape = " x ".join(map(str, dims))
        cells = (f"10^{math.log10(entries):g}", shape, args.rank, f"{found['wall']:.0f}", f"{found['cpu']:.0f}")
        rows.append((*cells, f"{found['peak']:.2f}", f"{found['error']:.4f}", f"{ratio:.3f}"))
        print(rows[-1], file=sys.stderr, flush=True)
    head = ("entries", "tensor", "rank", "s", "CPU s", "peak GiB", "held-out error", "over noise floor")
    print(f"{machine()}, {args.threads} threads, .{args.kind}\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
