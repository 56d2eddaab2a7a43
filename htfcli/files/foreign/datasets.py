"""netCDF files and zarr folders: variables on labelled dimensions, read and written by xarray."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.cells import Values, masked
from htfcli.files.foreign.readers import missing_library, parsing, refuse_absent
from htfcli.files.own.axes import Axis
from htfcli.files.own.container import atomic_write, refuse_terminal
from htfcli.files.own.folders import atomic_folder

if TYPE_CHECKING:
    from htfcli.files.foreign.arrays import ArrayTensor
    from htfcli.files.foreign.frame_labels import Mode


@dataclass(frozen=True)
class DatasetTensor:
    """Variables of a netCDF file or zarr folder, as one tensor.

    Args:
        name: for messages. suffix: `.nc` or `.zarr`. array: the variables that are completed.
    """

    name: str
    suffix: str
    array: ArrayTensor

    @property
    def value_name(self) -> str:
        return self.array.value_name

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.array.axes

    @property
    def modes(self) -> tuple[Mode, ...]:
        return self.array.modes

    @property
    def dims(self) -> tuple[int, ...]:
        return self.array.dims

    @property
    def remarks(self) -> tuple[str, ...]:
        return self.array.remarks

    @property
    def values(self) -> Tensor:
        return self.array.values

    def observed_at(self, mask: Tensor) -> DatasetTensor:
        """The same tensor, with entries missing where `mask` is False.

        Raises:
            ConfigError: if the mask has another shape.
        """
        return self._with(masked(self.values, mask))

    def without(self, missing_value: float) -> DatasetTensor:
        """The same tensor, with entries of this value missing.

        Raises:
            ConfigError: if there are none.
        """
        refuse_absent(self.values.numpy(), missing_value, self.name)
        return self._with(torch.where(self.values == missing_value, torch.nan, self.values))

    def _with(self, values: Tensor) -> DatasetTensor:
        return replace(self, array=replace(self.array, values=values))

    def entries(self) -> Entries:
        return self.array.observed()[0]

    def asked(self) -> Tensor:
        """Indices (n, N) of the entries that are missing, in the order in which `write` asks for them."""
        return self.array.asked()

    def lacking(self) -> int:
        """Number of missing entries."""
        return self.array.missing

    def write(self, destination: str, values: Values, *, everywhere: bool = False, own_type: bool = True) -> None:
        """Write the file with its missing entries filled in; coordinates and attributes are kept.

        Args:
            destination: a file, for zarr a folder. values: maps indices (n, N) to values (n,).
            everywhere: replace observed entries too. own_type: write whole numbers as such, not as float64.
        """
        if destination == "-":
            refuse_terminal()
            raise ConfigError(f"a {self.suffix} file cannot be written to stdout", next_step="Name a file with -o.")
        found: Any = self.array.filled(values, everywhere=everywhere) if own_type else self.array.like(values)
        if not own_type:
            found = found.copy()
            for variable in found.data_vars.values():  # what packs whole numbers would round deviations
                variable.encoding = {}
        if self.suffix == ".zarr":
            with atomic_folder(destination, replace=True) as folder, _library(self.suffix):
                found.to_zarr(folder, mode="w", consolidated=False)
            return
        with atomic_write(Path(destination)) as path, _library(self.suffix):
            found.to_netcdf(path)


class _library:  # noqa: N801 -- reads as a statement
    """Errors of a library that is not installed, as ours; warnings of libraries about their formats are not shown."""

    def __init__(self, suffix: str) -> None:
        self.suffix, self.quiet = suffix, warnings.catch_warnings()

    def __enter__(self) -> None:
        self.quiet.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.quiet.__exit__(kind, error, trace)
        if isinstance(error, ImportError):
            raise missing_library(self.suffix, "xarray, netCDF4 and zarr") from None


def read_dataset(path: Path, name: str, key: str = "", variables: list[str] | None = None) -> DatasetTensor:
    """Read the variables of a netCDF file or zarr folder that are to be completed.

    Args:
        path: the file or folder. name: in messages. key: the only variable to complete. variables: several of them.
    Raises:
        DataError: if it cannot be read. ConfigError: if there is no such variable.
    """
    suffix = path.suffix.lower()
    with _library(suffix):
        import xarray as xr

        from htfcli.files.foreign.xarrays import read_xarray

        with parsing(name, f"{suffix} file"):
            if suffix == ".zarr":
                data = xr.open_zarr(path, consolidated=False, chunks=None).load()
            else:
                data = xr.load_dataset(path)
    if not data.data_vars:
        raise DataError(f"{name} has no variables")
    value = key or variables
    return DatasetTensor(name, ".nc" if suffix == ".nc4" else suffix, read_xarray(data, value=value or None))
