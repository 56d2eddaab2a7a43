"""What `htf complete` can be told; it needs none of it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from htfcli.config.base import Config, Device, Dims, Seed, Tree, Widths


class CompleteConfig(Config):
    """`htf complete`: how a tensor with holes is filled. The defaults find everything from the data."""

    tree: Tree = Field("auto", description="Mode tree: auto (found from the data), a name, or nested lists.")
    arity: int | None = Field(None, description="Children per node of a named tree.")
    width: Widths | None = Field(
        None, description="Local components per node: one number, one a level from the leaves up (far above the rank)."
    )
    loss: Literal["auto", "l2", "l1", "huber", "poisson", "logistic"] = Field(
        "auto",
        description="Loss: l2; huber or l1 where there are outliers; poisson for counts, logistic for two values; auto "
        "lets held-out observations decide.",
    )
    min: float | None = Field(None, description="Never predict below this (the data must not be below it).")
    max: float | None = Field(None, description="Never predict above this (the data must not be above it).")
    integers: bool = Field(False, description="Predict whole numbers.")
    nonnegative: bool = Field(False, description="Never predict below zero (the data must not be below it).")
    held_out: float = Field(0.1, gt=0, lt=1, description="Share of the observations that choices are checked on.")
    effort: Literal["quick", "normal", "thorough"] = Field(
        "normal", description="How much is tried: quick, normal or thorough."
    )
    seconds: float | None = Field(None, gt=0, description="Seconds at most for the search (what it needs).")
    device: Device = Field("auto", description="auto or cpu: completion computes on the CPU.")
    threads: int | None = Field(None, ge=1, description="CPU threads (torch's choice).")
    seed: Seed = Field(0, description="Seed of everything random.")
    dims: Dims | None = Field(None, description="Dimensions of coordinate data (largest index + 1).")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tree == "auto" and self.arity is not None:
            raise ValueError(f"arity: only for a named tree (got tree auto, arity {self.arity})")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min: must be below max (got min {self.min}, max {self.max})")
        return self
