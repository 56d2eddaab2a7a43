"""What a command can be given as input: a file of any format, a run folder, or `-` for stdin."""

from __future__ import annotations

import atexit
import hashlib
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from htfcli.engine.tensors.factorization import Factorization
from htfcli.engine.tensors.observations import Observations, Sample
from htfcli.errors import ConfigError, DataError
from htfcli.files import container
from htfcli.files.artefacts import to_factorization, to_observations
from htfcli.files.readers import READERS, Coordinates, Dense, read_foreign


def open_input(argument: str) -> container.Artefact | Dense | Coordinates:
    """Read a command's input.

    Args:
        argument: a path, `archive#name` for one array of several, a run folder (its model), or `-`.
    Raises:
        DataError: if it does not exist or cannot be read.
    """
    name = "stdin" if argument == "-" else argument
    path = _spool_stdin() if argument == "-" else Path(argument)
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.exists():
            raise DataError(f"{name} has no model.safetensors", next_step="Is it a run folder, and did the run end?")
    key = ""
    if not path.exists():
        plain, _, key = argument.rpartition("#")
        path = Path(plain)
        if not plain or not path.exists():
            raise DataError(f"{name} does not exist")
    if path.suffix == ".safetensors" or (path.suffix.lower() not in READERS and container.looks_like_one(path)):
        return container.read(path, name)
    return read_foreign(path, name, key)


def load_observations(argument: str, dims: tuple[int, ...] | None = None) -> Observations:
    """Observations from any input; those of a dense tensor are its entries that are not NaN.

    Args:
        argument: as for `open_input`. dims: of coordinate data whose last indices may be unobserved.
    Raises:
        DataError: if the input holds something else. ConfigError: if `dims` is given for data that says them itself.
    """
    opened = open_input(argument)
    if isinstance(opened, Coordinates):
        found, entries = opened.entries(dims)
        return Observations(found, entries)
    if dims is not None:
        raise ConfigError("--dims is for coordinate data; this input has its own dimensions", got=list(dims))
    if isinstance(opened, Dense):
        found, entries = opened.entries()
        return Observations(found, entries)
    if opened.kind == "tensor":
        found, entries = Dense(opened.name, _tensor_of(opened)).entries()
        return Observations(found, entries)
    return to_observations(opened.expect("observations", "tensor"))


def load_tensor(argument: str, dims: tuple[int, ...] | None = None) -> Factorization | Tensor:
    """A factorization, or a dense tensor whose entries are all known, from any input.

    Raises:
        DataError: if entries are missing, with their number.
    """
    opened = open_input(argument)
    if isinstance(opened, container.Artefact) and opened.kind == "factorization":
        return to_factorization(opened)
    if isinstance(opened, container.Artefact) and opened.kind == "observations":
        return to_observations(opened).to_dense()
    if isinstance(opened, Coordinates):
        found, entries = opened.entries(dims)
        return Observations(found, entries).to_dense()
    dense = (
        opened.values
        if isinstance(opened, Dense)
        else _tensor_of(opened.expect("factorization", "observations", "tensor"))
    )
    missing = int(torch.isnan(dense).sum())
    if missing:
        raise DataError(
            f"{opened.name} has missing entries",
            got=f"{missing} of {dense.numel()} NaN",
            next_step="Fit a factorization to it first: htf fit.",
        )
    return dense


def _tensor_of(artefact: container.Artefact) -> Tensor:
    tensors = artefact.tensors()
    if set(tensors) != {"tensor"} or tensors["tensor"].dim() < 2:
        raise DataError(f"{artefact.name} is damaged: it does not hold one tensor of 2 modes or more")
    return tensors["tensor"].double()


def fingerprint(observations: Observations) -> str:
    """A digest of the observed data, by which a resumed run knows that it is the same."""
    digest = hashlib.sha256(repr(observations.dims).encode())
    for sample in (observations.train, observations.test):
        for tensor in () if sample is None else _tensors(sample):
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tensors(sample: Sample) -> list[Tensor]:
    values = list(vars(sample).values())
    return [t for v in values for t in (v if isinstance(v, tuple) else (v,))]


def _spool_stdin() -> Path:
    """Stdin in a temporary file, its format told by its first bytes: ours, .npy, .npz, or else comma-separated text."""
    if sys.stdin.isatty():
        raise ConfigError("- reads stdin, and stdin is a terminal", next_step="Pipe something in, or name a file.")
    folder = tempfile.TemporaryDirectory(prefix="htf-")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "stdin"
    with open(path, "wb") as file:
        head = sys.stdin.buffer.read(16)
        file.write(head)
        while chunk := sys.stdin.buffer.read(1 << 20):
            file.write(chunk)
    if not head:
        raise DataError("stdin is empty", next_step="Did the command before the pipe fail?")
    if head.startswith(b"\x93NUMPY"):
        suffix = ".npy"
    elif head.startswith(b"PK"):
        suffix = ".npz"
    elif container.looks_like_one(path):
        suffix = ".safetensors"
    else:
        suffix = ".csv"
    return path.rename(path.with_suffix(suffix))
