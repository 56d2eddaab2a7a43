"""Readers of dense tensors in foreign formats, listed in `READERS`. Missing entries are NaN. Nothing is ever unpickled.

torch is imported where a tensor is made of what was read, not before.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from htfcli.engine.runtime.memory import is_out_of_memory, refuse_unless_fits, requested_bytes
from htfcli.errors import ConfigError, DataError, HtfError
from htfcli.files.foreign.mat_arrays import mat_arrays
from htfcli.files.own.axes import Axis

if TYPE_CHECKING:
    from torch import Tensor

    from htfcli.engine.samples import Entries

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Dense:
    """A dense tensor, NaN where an entry is missing.

    Args:
        name: for messages. array: (d_0, ..., d_{N-1}) float64. dtype: the type in the file, e.g. `int16`.
        key: name of the array in a file that names its arrays, else empty.
        axes: its modes, where the file names or labels them. others: the other arrays of the file, by name.
        stored: the array as it is in the file, where float64 may not hold its numbers.
    """

    name: str
    array: Floats
    dtype: str = "float64"
    key: str = ""
    axes: tuple[Axis, ...] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    stored: np.ndarray | None = None

    @property
    def values(self) -> Tensor:
        """The array as a tensor, which shares its memory."""
        import torch

        return torch.from_numpy(self.array)

    @property
    def missing(self) -> int:
        """Number of missing entries."""
        return int(np.isnan(self.array).sum())

    def entries(self) -> tuple[tuple[int, ...], Entries]:
        """Dimensions and observed entries.

        Raises:
            DataError: if there are none.
        """
        import torch

        from htfcli.engine.samples import Entries, unravel

        known = np.flatnonzero(~np.isnan(self.array))
        if len(known) == 0:
            raise DataError(f"{self.name} has no observed entry: all are NaN")
        dims = self.array.shape
        value = torch.from_numpy(self.array.reshape(-1)[known])
        return dims, Entries(unravel(torch.from_numpy(known), dims), value)


def read_foreign(path: Path, name: str, key: str = "") -> Dense:
    """Read a file in the format of its suffix.

    Args:
        path: the file. name: its name in messages. key: name of the array to read from a file with several.
    Raises:
        DataError: if it cannot be read in that format.
    """
    suffix = suffix_of(path)
    reader = READERS.get(suffix)
    if reader is None:
        raise DataError(
            f"{name} has a format that htf does not read",
            got=suffix or "no suffix",
            allowed=", ".join(["safetensors", *READERS]),
        )
    try:
        return reader(path, name, key)
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror or first_line(error)}") from None
    except EOFError:
        raise DataError(f"{name} is truncated") from None
    except zlib.error as error:
        raise DataError(f"{name} is damaged: {error}") from None


@contextmanager
def parsing(name: str, what: str, next_step: str = "") -> Iterator[None]:
    """Turn whatever a library raises within the block, where it parses a damaged file, into a DataError.

    Args:
        name: of the file, for messages. what: the format it should have. next_step: advice.
    Raises:
        DataError: for any error except our own and those of the operating system.
    """
    try:
        yield
    except HtfError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise DataError(f"{name} does not fit in memory", got=requested_bytes(error) or None) from None
        if isinstance(error, OSError) and error.errno is not None and error.strerror:
            raise
        raise DataError(
            f"{name} is not a readable {what}: {first_line(error).rstrip('.')}", next_step=next_step
        ) from None


def refuse_special(path: Path) -> None:
    """Raise DataError for a folder, a named pipe or a device, which cannot be read twice or has no end."""
    if path.exists() and not path.is_file():
        got = "a folder" if path.is_dir() else "a pipe or a device"
        advice = "" if path.is_dir() else "Pipe it in, with - as its name."
        raise DataError(f"{path} is not a file", got=got, next_step=advice)


def suffix_of(path: Path) -> str:
    """The suffix that determines the format of a file, with that before .gz."""
    return ("".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix).lower()


def read_mask(path: str) -> Tensor:
    """A boolean tensor from a .npy file; True where an entry is observed.

    Raises:
        DataError: if it cannot be read or contains other values than True and False, or 0 and 1.
    """
    refuse_special(Path(path))
    dense = read_foreign(Path(path), path)
    if not bool(((dense.array == 0) | (dense.array == 1)).all()):
        raise DataError(f"{path} is not a mask", allowed="a dense array of True and False")
    return dense.values.bool()


def refuse_absent(values: Floats, missing_value: float, name: str) -> None:
    """Raise ConfigError if no value is the number that is said to mean missing."""
    if bool((values == missing_value).any()):
        return
    known = values[~np.isnan(values)]
    allowed = f"a value from {float(known.min()):.6g} to {float(known.max()):.6g}" if len(known) else None
    raise ConfigError(f"--missing-value does not occur in {name}", got=f"{missing_value:.6g}", allowed=allowed)


# --- dense ------------------------------------------------------------------------------------------------------------


def dense_of(array: Any, name: str, key: str = "", dtype: str | None = None) -> Dense:
    """A dense tensor of an array of numbers; DataError if it is none."""
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} does not hold real numbers", got=f"type {array.dtype}", allowed="integers or floats")
    if array.ndim < 2:
        raise DataError(f"{name} is not a tensor", got=f"shape {array.shape}", allowed="2 modes or more")
    if array.size == 0:
        raise DataError(f"{name} is empty", got=f"shape {array.shape}")
    refuse_unless_fits(name, 8 * array.size, f"shape {list(array.shape)}")
    values = np.array(array, dtype=np.float64, order="C")
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        index = [int(at) for at in np.unravel_index(infinite[0], values.shape)]
        raise DataError(f"{name} has an infinite value at {index}", next_step="Mark missing entries by NaN.")
    stored = np.array(array) if array.dtype.kind in "biu" else None
    return Dense(name, values, dtype or array.dtype.name, key, stored=stored)


def _pick(arrays: Iterable[str], key: str, name: str) -> str:
    """The name of the array to read, among `arrays`: `key`, or the only one."""
    arrays = list(arrays)
    if key in arrays or (not key and len(arrays) == 1):
        return key or arrays[0]
    keys = ", ".join(sorted(arrays)) or "none"
    hint = f"Choose one: '{name}#KEY'." if arrays else ""
    raise DataError(f"{name}: which array is meant", got=key or f"{len(arrays)} arrays", allowed=keys, next_step=hint)


def _npy(path: Path, name: str, key: str) -> Dense:
    with parsing(name, ".npy file"):
        return dense_of(
            np.load(path, mmap_mode="r", allow_pickle=False), name
        )  # mapped, as a header may claim any size


def _npz(path: Path, name: str, key: str) -> Dense:
    with parsing(name, ".npz file"), open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        chosen = _pick(arrays.files, key, name)
        assert arrays.zip is not None
        size = sum(entry.file_size for entry in arrays.zip.infolist())
        refuse_unless_fits(name, 2 * size, "unpacked, and as float64")
        dense = dense_of(arrays[chosen], name, chosen)
        others = {
            other: kept for other in arrays.files if other != chosen and (kept := _plain(arrays, other)) is not None
        }
        return replace(dense, others=others)


def _plain(arrays: Any, name: str) -> Any:
    """An array of a .npz file, None if it holds objects, which would have to be unpickled."""
    try:
        return arrays[name]
    except ValueError:
        return None


def _pt(path: Path, name: str, key: str) -> Dense:
    import torch
    from torch import Tensor

    # indices of a sparse tensor beyond its size would be written outside of its memory
    checked = torch.sparse.check_sparse_tensor_invariants()  # type: ignore[no-untyped-call]
    with parsing(name, ".pt file of plain tensors"), checked:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    tensors = {str(k): v for k, v in (loaded if isinstance(loaded, dict) else {"": loaded}).items()}
    chosen = _pick([k for k, v in tensors.items() if isinstance(v, Tensor)], key, name)
    tensor = tensors[chosen].detach()
    refuse_unless_fits(name, 8 * tensor.numel(), f"shape {list(tensor.shape)}")
    array = tensor.to_dense().double().numpy() if tensor.is_floating_point() else tensor.numpy()
    dense = dense_of(array, name, chosen, str(tensor.dtype).removeprefix("torch."))
    return replace(dense, others={k: v for k, v in tensors.items() if k != chosen})


def _mat(path: Path, name: str, key: str) -> Dense:
    with parsing(name, ".mat file", next_step="Save it with -v7, not -v7.3."), mat_arrays(path) as arrays:
        chosen = _pick(arrays, key, name)
        others = {k: np.array(v) for k, v in arrays.items() if k != chosen and v.dtype.kind in "biufc"}
        return replace(dense_of(arrays[chosen], name, chosen), others=others)


def refuse_rows(path: Path, name: str) -> None:
    """Raise DataError if the unpacked columns of a .parquet file, which may be a small file, do not fit in memory."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    shape = f"{metadata.num_rows:,} rows of {metadata.num_columns} columns"
    refuse_unless_fits(name, 16 * metadata.num_rows * metadata.num_columns, shape)


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 200 characters; the name of its class if it has none."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def missing_library(suffix: str, library: str) -> DataError:
    """The error for a format whose library is not installed."""
    return DataError(f"reading {suffix} files needs {library}", next_step="pip install 'htf[data]'.")


READERS: dict[str, Callable[[Path, str, str], Dense]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _pt,
    ".mat": _mat,
}
