"""Running the blocks of a page, from top to bottom, in a folder of its own as a reader would."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.documentation.pages import ROOT, Block, blocks_of, output_of, with_text

_COLUMNS = "95"  # characters a line of code has room for on the site
TUTORIALS = ROOT / "docs/tutorials"  # whose Python blocks are one session
_MINUTES = 30  # for one command


def prepare(folder: Path) -> None:
    """Put what a clone has into a reader's folder: the sample configurations."""
    shutil.copytree(ROOT / "sample_configs", folder / "sample_configs", dirs_exist_ok=True)


def run_page(page: Path, folder: Path, long: bool) -> Iterator[tuple[Block, Block]]:
    """Run the blocks of a page in `folder`; yields each that shows output, as it stands and as it came out.

    Args:
        long: run blocks marked `long` too.

    Raises:
        RuntimeError: where a command fails.
    """
    prepare(folder)
    blocks = blocks_of(page)
    session: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        if block.file is not None:
            (folder / block.file).write_text(block.text)
        elif not block.runs or (block.long and not long):
            continue
        elif block.python:
            shown, printed = (
                output_of(block, blocks),
                run_python(block.text, folder, session if page.parent == TUTORIALS else None),
            )
            if shown is not None:
                yield shown, with_text(shown, printed)
        elif block.language == "bash":
            for command in block.commands:
                run_shell(command, folder)
        else:
            done = "".join(f"$ {command}\n{run_shell(command, folder)}" for command in block.commands)
            yield block, with_text(block, done)


def run_shell(command: str, folder: Path) -> str:
    """What a line in bash writes, errors and output in the order in which they come, colours and edges trimmed."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": _COLUMNS,
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    bash = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(
        bash,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60 * _MINUTES,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command}\nended with exit code {done.returncode}\n{done.stdout}")
    return trimmed(done.stdout)


def run_python(text: str, folder: Path, session: dict[str, Any] | None = None) -> str:
    """What a Python block prints, run as it stands in this process.

    Args:
        session: names that earlier blocks have left; None for a block that stands alone.
    """
    printed, before = io.StringIO(), set(sys.modules)
    sys.path.insert(0, str(folder))  # modules that the page has named
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
            exec(
                compile(text, "a block of the documentation", "exec"),
                {"__name__": "__main__"} if session is None else session,
            )
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(folder) in (getattr(sys.modules[name], "__file__", None) or ""):
                del sys.modules[name]  # another page may have one of the same name
    return trimmed(printed.getvalue())


def trimmed(output: str) -> str:
    """Output as a page shows it: no empty lines at the edges, no spaces at the ends of lines."""
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()]
    text = "\n".join(lines).strip("\n")
    return f"{text}\n" if text else ""


def renew_pictures(page: Path, folder: Path) -> list[Path]:
    """Copy the pictures that a page shows from `docs/pictures` and its blocks have drawn anew."""
    renewed = []
    for name in re.findall(r"\]\((?:\.\./|docs/)?pictures/([\w.-]+)\)", page.read_text()):
        if (folder / name).exists():
            shutil.copyfile(folder / name, ROOT / "docs/pictures" / name)
            renewed.append(ROOT / "docs/pictures" / name)
    return renewed
