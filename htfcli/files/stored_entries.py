"""Observed entries of a tensor too large to be written in full; they stay mapped from the container they are in."""

from __future__ import annotations

from dataclasses import dataclass

from htfcli.engine.samples import Entries
from htfcli.files.own.axes import Axis, plain_axes


@dataclass(frozen=True)
class StoredEntries:
    """Data to complete of which only requested entries can be written.

    Args:
        name: for messages. dims: dimensions of the tensor. observed: its observed entries, checked.
    """

    name: str
    dims: tuple[int, ...]
    observed: Entries

    suffix = ".safetensors"
    value_name = "value"

    @property
    def axes(self) -> tuple[Axis, ...]:
        return plain_axes(self.dims)

    def entries(self) -> Entries:
        return self.observed
