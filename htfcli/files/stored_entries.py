"""Observed entries in our own container, of a tensor too large to be written out: they stay mapped from the file."""

from __future__ import annotations

from dataclasses import dataclass

from htfcli.engine.samples import Entries
from htfcli.files.own.axes import Axis, plain_axes


@dataclass(frozen=True)
class StoredEntries:
    """Data to complete of which only entries that are asked for can be written.

    Args:
        name: for messages. dims: of the tensor. observed: its entries, checked.
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
