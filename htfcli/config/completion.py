"""Settings of a completion; none of them is needed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from htfcli.config.base import Config, Device, Dims, Seed, Tree, Widths


class CompleteConfig(Config):
    """How a tensor with holes is filled. The defaults find everything from the data."""

    tree: Tree = Field("auto", description="Mode tree: auto (several are averaged), a name, or nested lists.")
    arity: int | None = Field(None, description="Children per node of a named tree.")
    width: Widths | None = Field(
        None,
        description="Local components per node: one number, or one per level from the leaves up. Default: far above "
        "the rank.",
    )
    loss: Literal["auto", "l2", "l1", "huber", "poisson", "logistic"] = Field(
        "auto",
        description="Loss: l2, huber or l1 (outliers), poisson (counts), logistic (two values); auto lets held-out "
        "observations decide.",
    )
    min: float | None = Field(None, description="Never predict below X.")
    max: float | None = Field(None, description="Never predict above X.")
    integers: bool = Field(False, description="Predict whole numbers.")
    nonnegative: bool = Field(False, description="Never predict below zero: --min 0.")
    held_out: float = Field(0.1, gt=0, lt=1, description="Hold out this fraction of the observations, to judge by.")
    effort: Literal["quick", "normal", "thorough"] = Field(
        "normal", description="Try fewer or more trees, widths and sweeps."
    )
    seconds: float | None = Field(None, gt=0, description="Stop trying models after this many seconds.")
    device: Device = Field(
        "auto",
        description="auto is the CPU, faster for small tables. cuda computes the sweeps of wide factorizations there.",
    )
    threads: int | None = Field(None, ge=1, description="CPU threads. Default: torch's choice.")
    seed: Seed = Field(0, description="Seed of all random numbers.")
    dims: Dims | None = Field(None, description="Dimensions of a table of numbered indices. Default: its labels.")

    @property
    def place(self) -> str:
        """The name of the device on which sweeps are computed."""
        return "cpu" if self.device == "auto" else self.device

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tree == "auto" and self.arity is not None:
            raise ValueError(f"arity: only for a named tree (got tree auto, arity {self.arity})")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min: must be below max (got min {self.min}, max {self.max})")
        return self
