"""Settings of `htf measure-recovery`: random low-rank tensors, what is observed, and how they are completed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from htfcli.config.base import Config, Seed, Tree, Widths
from htfcli.config.tensors import TargetConfig


class RecoveryConfig(Config):
    """How often random low-rank tensors are recovered exactly from some of their entries."""

    target: Literal["htf", "cp", "matrix"] = Field("htf", description="Factorization of the tensors.")
    order: int = Field(4, ge=2, le=64, description="Number of modes.")
    dim: int = Field(4, ge=2, description="Dimension of every mode.")
    width: Widths = Field(2, description="Local components per node, of the tensors and of what is fitted to them.")
    tree: Tree = Field("balanced", description="Mode tree of an htf target: a name, or nested lists.")
    ratio: float = Field(1.5, gt=0, description="Observed entries over degrees of freedom.")
    problems: int = Field(20, ge=1, description="Random tensors, each with its own observed entries.")
    method: Literal["second-order", "gradient", "tensorly"] = Field(
        "second-order",
        description="Levenberg-Marquardt from random starts, gradient descent from near zero, or tensorly's CP.",
    )
    starts: int = Field(40, ge=1, description="Random starts per tensor at most (second-order).")
    iterations: int = Field(3000, ge=1, description="Iterations of gradient descent.")
    seed: Seed = Field(0, description="Seed of all random numbers.")

    def tensor(self, number: int) -> TargetConfig:
        """Settings of one of the random tensors."""
        htf = {"tree": self.tree} if self.target == "htf" else {}
        values = {"target": self.target, "order": self.order, "dim": self.dim, "width": self.width, **htf}
        return TargetConfig.checked({**values, "seed": self.seed + number})
