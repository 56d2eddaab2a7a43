"""Inputs of commands: a file of any format, a run folder, or `-` for stdin."""

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
    """Location of an input.

    Args:
        path: the file. name: its name in messages. key: the array to read from an archive.
    """

    path: Path
    name: str
    key: str = ""

    @property
    def is_container(self) -> bool:
        """Whether it is a container of ours, by its suffix or, if that is unknown, by its first bytes."""
        suffix = self.path.suffix.lower()
        return suffix == ".safetensors" or (suffix not in READERS and container.looks_like_one(self.path))


def locate(argument: str) -> Located:
    """Locate an input: a path, `archive#name`, a run folder (its model), or `-`, which is read to its end.

    Raises:
        DataError: if it does not exist.
    """
    name = "stdin" if argument == "-" else argument
    path = _spool_stdin() if argument == "-" else Path(argument)
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.exists():
            raise DataError(f"{name} has no model.safetensors", next_step="Is it the folder of a finished run?")
    if path.exists():
        refuse_special(path)
        return Located(path, name)
    plain, _, key = argument.rpartition("#")
    if not plain or not Path(plain).exists():
        raise DataError(f"{name} does not exist")
    refuse_special(Path(plain))
    return Located(Path(plain), name, key)


def open_input(argument: str) -> Opened:
    """Read an input.

    Args:
        argument: as for `locate`.
    Raises:
        DataError: if it does not exist or cannot be read.
    """
    located = locate(argument)
    if located.path.suffix == ".jsonl":
        return load_records(str(located.path))
    if located.is_container:
        return container.read(located.path, located.name)
    return read_foreign(located.path, located.name, located.key)


def open_artefact(argument: str, *kinds: str) -> container.Artefact:
    """An input that is a container of one of these kinds.

    Args:
        argument: as for `locate`.
    Raises:
        DataError: if it does not exist or holds something else.
    """
    return _artefact(open_input(argument), *kinds)


def load_observations(argument: str, dims: tuple[int, ...] | None = None) -> Observations:
    """Observations from any input; the observed entries of a dense tensor are those that are not NaN.

    Args:
        argument: as for `locate`. dims: dimensions of coordinate data, whose last indices may be unobserved.
    Raises:
        DataError: if the input holds something else. ConfigError: if `dims` is given for data with dimensions.
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
    """A factorization, or a dense tensor without missing entries, from any input.

    Args:
        argument: as for `locate`. dims: dimensions of coordinate data. on_remark: called with what is left out.
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
    """What was opened, if it is a container of one of these kinds."""
    if isinstance(opened, container.Artefact):
        return opened.expect(*kinds)
    got = "records" if isinstance(opened, Records) else "a tensor"
    raise DataError(f"{opened.name} holds something else", got=got, allowed=" or ".join(kinds))


def _refuse_dims(opened: Opened, dims: tuple[int, ...] | None) -> None:
    if dims is not None and not isinstance(opened, Coordinates):
        raise ConfigError("--dims is for coordinate data; this input has its own dimensions", got=list(dims))


def _spool_stdin() -> Path:
    """Write stdin to a temporary file with the suffix of its format, which its first bytes tell.

    Recognized are containers of ours, .npy, .npz, .pt, .parquet and records; anything else is read as comma-separated
    text. Tab-separated and .tns text cannot be distinguished from it and must be files.
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
