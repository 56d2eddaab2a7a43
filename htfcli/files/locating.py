"""Where an input is: a file, several files of one table, a folder, or stdin, which is kept in a temporary file."""

from __future__ import annotations

import atexit
import glob
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.readers import READERS, refuse_special, suffix_of
from htfcli.files.own import container
from htfcli.files.tables.formats import TABLES

DATASETS = (".nc", ".nc4", ".zarr")  # of `foreign.datasets`, which needs torch


@dataclass(frozen=True)
class Located:
    """Location of an input.

    Args:
        path: the file. name: its name in messages. key: the array to read from an archive.
        more: files that continue it.
    """

    path: Path
    name: str
    key: str = ""
    more: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path, *self.more)

    @property
    def suffix(self) -> str:
        """What determines its format."""
        return suffix_of(self.path)

    @property
    def is_container(self) -> bool:
        """Whether it is a container of ours, by its suffix or, if that is unknown, by its first bytes."""
        if self.suffix in READERS or self.suffix in TABLES or self.suffix in DATASETS:
            return False
        return self.path.suffix.lower() == ".safetensors" or container.looks_like_one(self.path)


def locate(argument: str, *more: str) -> Located:
    """Locate an input.

    Args:
        argument: a path, `archive#name`, a run folder (its model), a folder of .parquet files, a .zarr folder, a
            pattern such as `part-*.csv`, or `-`, which is read to its end. more: files that continue the first one.
    Raises:
        DataError: if it does not exist.
    """
    if more:
        rest = [locate(other) for other in more]
        first = locate(argument)
        paths = [path for one in (first, *rest) for path in one.paths]
        return Located(paths[0], f"{first.name} ({len(paths)} files)", more=tuple(paths[1:]))
    name = "stdin" if argument == "-" else argument
    path = _spool_stdin() if argument == "-" else Path(argument)
    if path.is_dir():
        return _in_folder(path, name)
    if path.exists():
        refuse_special(path)
        return Located(path, name)
    plain, _, key = argument.rpartition("#")
    if plain and Path(plain).exists():
        if Path(plain).suffix != ".zarr":
            refuse_special(Path(plain))
        return Located(Path(plain), name, key)
    found = sorted(map(Path, glob.glob(argument))) if glob.has_magic(argument) else []
    if not found:
        raise DataError(f"{name} does not exist")
    for one in found:
        refuse_special(one)
    return Located(found[0], name, more=tuple(found[1:]))


def _in_folder(path: Path, name: str) -> Located:
    if path.suffix == ".zarr":
        return Located(path, name)
    model = path / "model.safetensors"
    if model.exists():
        return Located(model, name)
    parts = sorted(path.rglob("*.parquet"))
    if not parts:
        raise DataError(f"{name} has no model.safetensors", next_step="Is it the folder of a finished run?")
    return Located(parts[0], name, more=tuple(parts[1:]))


def _spool_stdin() -> Path:
    """Write stdin to a temporary file with the suffix of its format, which its first bytes tell.

    Recognized are containers of ours, .npy, .npz, .pt, .parquet, .feather, .xlsx, JSON Lines and records; anything else
    is read as text. Text in .tns format cannot be distinguished from it and must be a file.
    """
    if sys.stdin.isatty():
        raise ConfigError("- reads stdin, and stdin is a terminal", next_step="Pipe something in, or name a file.")
    folder = tempfile.TemporaryDirectory(prefix="htf-")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "stdin"
    with open(path, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
    with open(path, "rb") as file:
        head = file.read(16)
    if not head:
        raise DataError("stdin is empty", next_step="Did the command before the pipe fail?")
    return path.rename(path.with_suffix(_suffix_of(path, head)))


def _suffix_of(path: Path, head: bytes) -> str:
    for start, suffix in (
        (b"\x93NUMPY", ".npy"),
        (b"PAR1", ".parquet"),
        (b"ARROW1", ".feather"),
        (b"\x1f\x8b", ".csv.gz"),
    ):
        if head.startswith(start):
            return suffix
    if zipfile.is_zipfile(path):
        names = zipfile.ZipFile(path).namelist()
        if "[Content_Types].xml" in names:
            return ".xlsx"
        return ".pt" if any(name.endswith("data.pkl") for name in names) else ".npz"
    if container.looks_like_one(path):
        return ".safetensors"
    return ".jsonl" if head.lstrip().startswith(b"{") else ".csv"
