"""What a command can be given as input: a file of any format, a run folder, or `-` for stdin."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.observations.observations import Observations
from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.readers import READERS, Coordinates, Dense, read_foreign, refuse_special
from htfcli.files.own import container
from htfcli.files.own.artefacts import to_factorization, to_observations
from htfcli.files.own.completion import strongest_in
from htfcli.files.own.records import Records, load_records

Opened = container.Artefact | Dense | Coordinates | Records


@dataclass(frozen=True)
class Located:
    """Where an input is: its path, what to call it in messages, and which array of an archive is meant."""

    path: Path
    name: str
    key: str = ""

    @property
    def is_container(self) -> bool:
        """Whether it is one of our files, by its suffix or, for an unknown one, by how it begins."""
        suffix = self.path.suffix.lower()
        return suffix == ".safetensors" or (suffix not in READERS and container.looks_like_one(self.path))


def locate(argument: str) -> Located:
    """Find a command's input: a path, `archive#name`, a run folder (its model), or `-`, which is read to its end.

    Raises:
        DataError: if it does not exist.
    """
    name = "stdin" if argument == "-" else argument
    path = _spool_stdin() if argument == "-" else Path(argument)
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.exists():
            raise DataError(f"{name} has no model.safetensors", next_step="Is it a run folder, and did the run end?")
    if path.exists():
        refuse_special(path)
        return Located(path, name)
    plain, _, key = argument.rpartition("#")
    if not plain or not Path(plain).exists():
        raise DataError(f"{name} does not exist")
    refuse_special(Path(plain))
    return Located(Path(plain), name, key)


def open_input(argument: str) -> Opened:
    """Read a command's input, found by `locate`.

    Raises:
        DataError: if it does not exist or cannot be read.
    """
    located = locate(argument)
    if located.path.suffix == ".jsonl":
        return load_records(str(located.path))
    if located.is_container:
        return container.read(located.path, located.name)
    return read_foreign(located.path, located.name, located.key)


def load_observations(argument: str, dims: tuple[int, ...] | None = None) -> Observations:
    """Observations from any input; those of a dense tensor are its entries that are not NaN.

    Args:
        argument: as for `open_input`. dims: of coordinate data whose last indices may be unobserved.
    Raises:
        DataError: if the input holds something else. ConfigError: if `dims` is given for data that says them itself.
    """
    opened = open_input(argument)
    _refuse_dims(opened, dims)
    if isinstance(opened, Coordinates):
        found, entries = opened.entries(dims)
        return Observations(found, entries)
    if isinstance(opened, Dense):
        found, entries = opened.entries()
        return Observations(found, entries)
    return to_observations(_artefact(opened, "observations"))


def load_tensor(
    argument: str, dims: tuple[int, ...] | None = None, on_remark: Callable[[str], None] = lambda text: None
) -> Factorization | Tensor:
    """A factorization, or a dense tensor whose entries are all known, from any input.

    Args:
        argument: as for `open_input`. dims: of coordinate data. on_remark: told what the result leaves out.
    Raises:
        DataError: if entries are missing, with their number. ConfigError: if `dims` is given for other data.
    """
    opened = open_input(argument)
    _refuse_dims(opened, dims)
    if isinstance(opened, Coordinates):
        found, entries = opened.entries(dims)
        return Observations(found, entries).to_dense()
    if not isinstance(opened, Dense):
        artefact = _artefact(opened, "factorization", "completion", "observations")
        if artefact.kind == "completion":
            model, remark = strongest_in(artefact)
            on_remark(remark)
            return model
        return to_factorization(artefact) if artefact.kind == "factorization" else to_observations(artefact).to_dense()
    dense = opened.values
    missing = int(torch.isnan(dense).sum())
    if missing:
        raise DataError(
            f"{opened.name} has missing entries",
            got=f"{missing} of {dense.numel()} NaN",
            next_step="Fit a factorization to it first: htf fit.",
        )
    return dense


def _artefact(opened: Opened, *kinds: str) -> container.Artefact:
    """A container of one of these kinds, when the input is neither dense nor coordinates."""
    if isinstance(opened, container.Artefact):
        return opened.expect(*kinds)
    raise DataError(f"{opened.name} holds something else", got="records", allowed=" or ".join(kinds))


def _refuse_dims(opened: Opened, dims: tuple[int, ...] | None) -> None:
    if dims is not None and not isinstance(opened, Coordinates):
        raise ConfigError("--dims is for coordinate data; this input has its own dimensions", got=list(dims))


def _spool_stdin() -> Path:
    """Stdin in a temporary file with the suffix of its format, told by how it begins.

    Known: ours, .npy, .npz, .pt, .parquet, records; anything else is comma-separated text. Tab-separated and .tns text
    cannot be told from it and must be files.
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
    if head.startswith(b"\x93NUMPY"):
        return ".npy"
    if head.startswith(b"PAR1"):
        return ".parquet"
    if head.startswith(b"\x1f\x8b"):
        raise DataError("stdin is compressed", next_step="Decompress it, or name a file.")
    if zipfile.is_zipfile(path):
        names = zipfile.ZipFile(path).namelist()
        return ".pt" if any(name.endswith("data.pkl") for name in names) else ".npz"
    if container.looks_like_one(path):
        return ".safetensors"
    return ".jsonl" if head.lstrip().startswith(b"{") else ".csv"
