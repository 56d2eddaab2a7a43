"""Reading a large CSV file: time beside that of pandas, and memory.

    python -m tests.benchmarks.read_tables [--rows 1000000]

Each reader runs in a process of its own. Memory is the largest resident size beyond that after the imports.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.timing import machine, table

READERS = ("pandas", "htf", "htf, comments")  # the last one: a file that only the reader row by row can take


def write(path: Path, rows: int, comment: bool = False) -> None:
    """A table of 2000 users, 500 items and 365 days with a number of six digits, a tenth of them missing."""
    generator = np.random.default_rng(0)
    with open(path, "w") as file:
        file.write("# made\n" if comment else "")
        file.write("user,item,day,value\n")
        for start in range(0, rows, 10**5):
            count = min(10**5, rows - start)
            user, item, day = (generator.integers(0, size, count).tolist() for size in (2000, 500, 365))
            value = generator.standard_normal(count).tolist()
            file.writelines(
                f"user{u},item{i},{np.datetime64('2024-01-01') + d},{'' if n % 10 == 0 else f'{v:.5f}'}\n"
                for n, (u, i, d, v) in enumerate(zip(user, item, day, value, strict=True))
            )


def read(reader: str, path: Path) -> None:
    """Read the file, and print CPU seconds, wall seconds and MiB as JSON."""
    import pandas as pd
    import pyarrow.csv  # noqa: F401

    from htfcli.files.tables.formats import read_table

    before, started, clock = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), time.monotonic()
    if reader == "pandas":
        pd.read_csv(path)
    else:
        read_table([path], "data")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([time.process_time() - started, time.monotonic() - clock, used / 1024]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--read", nargs=2)
    options = parser.parse_args()
    if options.read:
        read(options.read[0], Path(options.read[1]))
        return
    print(machine(), f"{options.rows:,} rows")
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for reader in READERS:
            path = Path(folder) / "data.csv"
            if reader != READERS[1]:
                write(path, options.rows, comment=reader == READERS[2])
            again = [sys.executable, "-m", "tests.benchmarks.read_tables", "--read", reader, str(path)]
            found[reader] = json.loads(subprocess.run(again, capture_output=True, text=True, check=True).stdout)
        base = found[READERS[0]]
        rows = [
            [reader, f"{cpu:.2f}", f"{cpu / base[0]:.2f}", f"{wall:.2f}", f"{wall / base[1]:.2f}", f"{memory:.0f}"]
            for reader, (cpu, wall, memory) in found.items()
        ]
        print(table(["reader", "CPU s", "to pandas", "s", "to pandas", "MiB"], rows))


if __name__ == "__main__":
    main()
