"""Readers of foreign formats, listed in `READERS`: dense tensors and coordinate tables.

Missing entries of a dense tensor are NaN. A coordinate table has one column per mode, and the value in the last one;
indices count from 1 in .tns (the FROSTT format) and from 0 in other formats. Nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from htfcli.engine.observations.observations import checked_entries
from htfcli.engine.runtime.memory import is_out_of_memory, refuse_unless_fits, requested_bytes
from htfcli.engine.samples import Entries, unravel
from htfcli.errors import ConfigError, DataError, HtfError
from htfcli.files.foreign.mat_arrays import mat_arrays
from htfcli.files.foreign.text_lines import not_utf8, open_text


@dataclass(frozen=True)
class Dense:
    """A dense tensor, NaN where an entry is missing.

    Args:
        name: for messages. values: (d_0, ..., d_{N-1}) float64. dtype: their type in the file, e.g. `int16`.
        key: name of the array in a file that names its arrays, else empty.
    """

    name: str
    values: Tensor
    dtype: str = "float64"
    key: str = ""

    def entries(self) -> tuple[tuple[int, ...], Entries]:
        """Dimensions and observed entries.

        Raises:
            DataError: if there are none.
        """
        dims = tuple(self.values.shape)
        known = torch.nonzero(~torch.isnan(self.values.flatten())).flatten()
        if len(known) == 0:
            raise DataError(f"{self.name} has no observed entry: all are NaN")
        return dims, Entries(unravel(known, dims), self.values.flatten()[known])


@dataclass(frozen=True)
class Coordinates:
    """Entries of a tensor, one per row.

    Args:
        name: for messages. index: (n, N) int64, from 0. value: (n,) float64.
        line: maps a row number to the line of the file, counted from 1. first: number of the first index in the file.
    """

    name: str
    index: Tensor
    value: Tensor
    line: Callable[[int], int]
    first: int = 0

    def entries(self, dims: tuple[int, ...] | None = None) -> tuple[tuple[int, ...], Entries]:
        """Dimensions and checked entries.

        Args:
            dims: the dimensions; None for the largest index of each mode + 1.
        Raises:
            DataError: for an index out of range, a repeated index, or a value that is not finite, with its line.
            ConfigError: if the number of dimensions is wrong.
        """
        if len(self.value) == 0:
            raise DataError(f"{self.name} has no entries")
        if dims is None:
            dims = tuple(max(1, int(m) + 1) for m in self.index.amax(0))
        if len(dims) != self.index.shape[1]:
            columns = self.index.shape[1]
            raise ConfigError(f"--dims does not match {self.name}", got=f"{len(dims)} dimensions", allowed=columns)

        def place(row: int) -> str:
            return f"line {self.line(row)}"

        return dims, checked_entries(self.index, self.value, dims, self.name, place, self.first)


def read_foreign(path: Path, name: str, key: str = "") -> Dense | Coordinates:
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
    """The suffix that determines the format of a file, with that before .gz; a key of `READERS` if it can be read."""
    return ("".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix).lower()


def read_mask(path: str) -> Tensor:
    """A boolean tensor from a .npy file; True where an entry is observed.

    Raises:
        DataError: if it cannot be read or contains other values than True and False, or 0 and 1.
    """
    refuse_special(Path(path))
    dense = read_foreign(Path(path), path)
    if not isinstance(dense, Dense) or not bool(((dense.values == 0) | (dense.values == 1)).all()):
        raise DataError(f"{path} is not a mask", allowed="a dense array of True and False")
    return dense.values.bool()


def holes_at(values: Tensor, missing_value: float, name: str) -> Tensor:
    """`values` with NaN in place of a number that means missing.

    Args:
        values: (...) float64. name: of the data, for messages.
    Raises:
        ConfigError: if no value is that number.
    """
    holes = values == missing_value
    if not bool(holes.any()):
        known = values[~torch.isnan(values)]
        allowed = f"a value from {float(known.min()):.6g} to {float(known.max()):.6g}" if len(known) else None
        raise ConfigError(f"--missing-value does not occur in {name}", got=f"{missing_value:.6g}", allowed=allowed)
    return torch.where(holes, math.nan, values)


# --- dense ------------------------------------------------------------------------------------------------------------


def _dense(array: Any, name: str, key: str = "", dtype: str | None = None) -> Dense:
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} does not hold real numbers", got=f"type {array.dtype}", allowed="integers or floats")
    if array.ndim < 2:
        raise DataError(f"{name} is not a tensor", got=f"shape {array.shape}", allowed="2 modes or more")
    if array.size == 0:
        raise DataError(f"{name} is empty", got=f"shape {array.shape}")
    refuse_unless_fits(name, 8 * array.size, f"shape {list(array.shape)}")
    values = torch.from_numpy(np.array(array, dtype=np.float64, order="C"))
    infinite = torch.nonzero(torch.isinf(values.flatten())).flatten()
    if len(infinite):
        index = unravel(infinite[:1], values.shape)[0].tolist()
        raise DataError(f"{name} has an infinite value at {index}", next_step="Mark missing entries by NaN.")
    return Dense(name, values, dtype or array.dtype.name, key)


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
        return _dense(np.load(path, mmap_mode="r", allow_pickle=False), name)  # mapped, as a header may claim any size


def _npz(path: Path, name: str, key: str) -> Dense:
    with parsing(name, ".npz file"), open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        chosen = _pick(arrays.files, key, name)
        assert arrays.zip is not None
        size = sum(entry.file_size for entry in arrays.zip.infolist() if entry.filename in (chosen, f"{chosen}.npy"))
        refuse_unless_fits(name, 2 * size, "unpacked, and as float64")
        return _dense(arrays[chosen], name, chosen)


def _pt(path: Path, name: str, key: str) -> Dense:
    # indices of a sparse tensor beyond its size would be written outside of its memory
    checked = torch.sparse.check_sparse_tensor_invariants()  # type: ignore[no-untyped-call]
    with parsing(name, ".pt file of plain tensors"), checked:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    tensors = {str(k): v for k, v in (loaded if isinstance(loaded, dict) else {"": loaded}).items()}
    chosen = _pick([k for k, v in tensors.items() if isinstance(v, Tensor)], key, name)
    tensor = tensors[chosen].detach()
    refuse_unless_fits(name, 8 * tensor.numel(), f"shape {list(tensor.shape)}")
    array = tensor.to_dense().double().numpy() if tensor.is_floating_point() else tensor.numpy()
    return _dense(array, name, chosen, str(tensor.dtype).removeprefix("torch."))


def _mat(path: Path, name: str, key: str) -> Dense:
    try:
        import scipy  # noqa: F401 -- needed by the process that reads
    except ImportError:
        raise missing_library(".mat", "scipy") from None
    with parsing(name, ".mat file", next_step="Save it with -v7, not -v7.3."), mat_arrays(path) as arrays:
        chosen = _pick(arrays, key, name)
        return _dense(arrays[chosen], name, chosen)


# --- coordinates ------------------------------------------------------------------------------------------------------


def _csv(path: Path, name: str, key: str) -> Coordinates:
    return _text(path, name, ",", first=0)


def _tsv(path: Path, name: str, key: str) -> Coordinates:
    return _text(path, name, "\t", first=0)


def _tns(path: Path, name: str, key: str) -> Coordinates:
    return _text(path, name, None, first=1)


def _text(path: Path, name: str, delimiter: str | None, first: int) -> Coordinates:
    """Read a text table, whose indices count from `first`.

    The fast parser reports errors without details, so after one the lines are checked one by one.
    """
    try:
        with closing(_rows(path, name, delimiter)) as rows:
            line, fields = next(rows, (0, [""]))
            has_names = not any(_is_number(field) for field in fields)
            if has_names and next(rows, None) is None:
                raise DataError(f"{name} has no entries")
        columns = len(fields)
        if columns < 3:
            raise DataError(
                f"{name} line {line} has too few columns", got=columns, allowed="2 indices or more and a value"
            )
        dtype = np.dtype([("index", np.int64, (columns - 1,)), ("value", np.float64)])
        with open_text(path, name) as file:
            for _ in range(line if has_names else line - 1):
                next(file)
            table = np.loadtxt(_ascii(file), dtype=dtype, delimiter=delimiter, comments="#", quotechar='"', ndmin=1)
    except UnicodeDecodeError:
        raise not_utf8(path, name) from None
    except (ValueError, OverflowError) as error:
        raise _explain(path, name, delimiter, columns, has_names) or DataError(
            f"{name} cannot be read: {first_line(error)}"
        ) from None
    index = torch.from_numpy(np.ascontiguousarray(table["index"])) - first
    value = torch.from_numpy(np.ascontiguousarray(table["value"]))

    def line_of(row: int) -> int:
        with closing(_rows(path, name, delimiter)) as rows:
            return next(at for number, (at, _) in enumerate(rows, start=-has_names) if number == row)

    return Coordinates(name, index, value, line_of, first)


def _rows(path: Path, name: str, delimiter: str | None) -> Generator[tuple[int, list[str]], None, None]:
    """Yield (line number from 1, fields) of every line that is neither blank nor a comment."""
    with open_text(path, name) as file:
        for number, line in enumerate(file, start=1):
            text = line.partition("#")[0].strip()
            if text:
                fields = text.split() if delimiter is None else next(csv.reader([text], delimiter=delimiter))
                yield number, [field.strip() for field in fields]


def _ascii(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines, if they are ASCII; the fast parser reads digits of other scripts beyond the end of its table."""
    for line in lines:
        text = line if line.isascii() else line.partition("#")[0]
        if not text.isascii():
            raise ValueError("characters other than ASCII")
        yield text


def _explain(path: Path, name: str, delimiter: str | None, columns: int, has_names: bool) -> DataError | None:
    """The error for the first line that does not contain `columns - 1` integers and a number, if there is one."""
    for line, fields in islice(_rows(path, name, delimiter), int(has_names), None):
        if len(fields) != columns:
            return DataError(f"{name} line {line} has the wrong number of columns", got=len(fields), allowed=columns)
        for field in fields[:-1]:
            if not (field.isascii() and field.lstrip("+-").isdigit()) or len(field) > 18:
                return DataError(f"{name} line {line} has an index that is not a whole number", got=repr(field[:40]))
        if not _is_number(fields[-1]):
            return DataError(f"{name} line {line} has a value that is not a number", got=repr(fields[-1][:40]))
    return None


def _parquet(path: Path, name: str, key: str) -> Coordinates:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise missing_library(".parquet", "pyarrow") from None
    with parsing(name, ".parquet file"):
        refuse_rows(path, name)
        table = pq.read_table(path)
        columns = [table.column(i) for i in range(table.num_columns)]
        if len(columns) < 3:
            raise DataError(f"{name} has too few columns", got=len(columns), allowed="2 indices or more and a value")
        for column, title in zip(columns[:-1], table.column_names, strict=False):
            if not pa.types.is_integer(column.type):
                raise DataError(f"{name}: column {title} is not an index", got=str(column.type), allowed="integers")
        index = np.stack([column.to_numpy().astype(np.int64) for column in columns[:-1]], axis=1)
        value = columns[-1].to_numpy().astype(np.float64)
    return Coordinates(name, torch.from_numpy(index), torch.from_numpy(value), lambda row: row + 1)


def refuse_rows(path: Path, name: str) -> None:
    """Raise DataError if the unpacked columns of a .parquet file, which may be a small file, do not fit in memory."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    shape = f"{metadata.num_rows:,} rows of {metadata.num_columns} columns"
    refuse_unless_fits(name, 16 * metadata.num_rows * metadata.num_columns, shape)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii()


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 200 characters; the name of its class if it has none."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def missing_library(suffix: str, library: str) -> DataError:
    """The error for a format whose library is not installed."""
    return DataError(f"reading {suffix} files needs {library}", next_step="pip install 'htf[data]'.")


READERS: dict[str, Callable[[Path, str, str], Dense | Coordinates]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _pt,
    ".mat": _mat,
    ".csv": _csv,
    ".tsv": _tsv,
    ".tns": _tns,
    ".tns.gz": _tns,
    ".parquet": _parquet,
}
