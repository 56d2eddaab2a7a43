"""Renew what the documentation shows: `python -m tests.documentation [--quick] [PAGE ...]`.

Runs the code blocks of the pages (all without PAGE; e.g. README.md docs/trust.md), each page in an empty folder, and writes
their output into the pages, their pictures into `docs/pictures`, and the reference of all options.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from tests.documentation import reference
from tests.documentation.pages import PAGES, ROOT, rewritten
from tests.documentation.running import renew_pictures, run_page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.documentation", description=__doc__)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="pages to renew (all)")
    parser.add_argument("--quick", action="store_true", help="leave blocks marked long as they are")
    parser.add_argument("--reference", action="store_true", help="only the reference of all options")
    args = parser.parse_args()
    torch.set_num_threads(1)
    reference.PATH.write_text(reference.reference())
    chosen = [Path(page).resolve() for page in args.pages] or list(PAGES)
    for page in [] if args.reference else chosen:
        started = time.process_time(), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            done = list(run_page(page, Path(folder), long=not args.quick))
            page.write_text(rewritten(page, done))
            pictures = renew_pictures(page, Path(folder))
        name = page.relative_to(ROOT)
        print(f"{name}: {len(done)} outputs, {len(pictures)} pictures, {time.monotonic() - started[1]:.0f} s")


if __name__ == "__main__":
    main()
