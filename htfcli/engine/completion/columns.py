"""What is averaged: predictions of members or of their blend, some with interpolation on top."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from htfcli.engine.completion.interpolation import Kernel

BLEND = -1  # source of a column: the average of the factorizations


@dataclass(frozen=True)
class Interpolation:
    """What a source leaves at the observed entries, and how it is interpolated.

    Args:
        kernel: of the residuals. residual: (n,). variance: of the residual.
    """

    kernel: Kernel
    residual: Tensor
    variance: float


@dataclass(frozen=True)
class Column:
    """One of the predictions that are averaged.

    Args:
        name: for the report. source: number of a member, or BLEND. interpolation: number of what is added, -1 for
        nothing.
    """

    name: str
    source: int
    interpolation: int = -1
