"""A fitted and judged model, and the data it is fitted to and judged on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.samples import Entries

EXACT = 1e-9  # held-out relative error at which there is nothing left to search


NOISE = 1e-3  # a train error under which there is likely none, but a solution to be found


@dataclass
class Trial:
    """One model fitted and judged.

    Args:
        tree: its name in `trees`. start: key of `STARTS`, grown or reduced. width: the rung, 0 for widths by node.
        model: the weights at the best ridge of its path. ridge: that ridge.
        train_error, held_out_error: relative, at that ridge.
    """

    tree: str
    start: str
    width: int
    model: Factorization
    ridge: float
    train_error: float
    held_out_error: float

    def step(self, stage: str) -> dict[str, Any]:
        """Plain data for progress and report."""
        return {
            "stage": stage,
            "tree": self.tree,
            "start": self.start,
            "width": self.width,
            "ridge": self.ridge,
            "train_error": self.train_error,
            "held_out_error": self.held_out_error,
        }


@dataclass
class Split:
    """Data that models are fitted to, and data that judges them; values in the units of the fit.

    Args:
        train, held_out: the two parts, less what was subtracted from the data before the fit.
        observed: (n,) the held-out values as they were. loss: l2, l1 or huber.
        workers: the processes that share the entries.
    """

    train: Entries
    held_out: Entries
    observed: Tensor
    loss: str = "l2"
    workers: Workers | None = None

    @cached_property
    def norm(self) -> float:
        return size_of(self.observed, self.loss) or 1.0

    @property
    def left(self) -> float:
        """What subtracting left of the held-out values, over their size."""
        return size_of(self.held_out.value, self.loss) / self.norm

    def part(self, count: int) -> Split:
        """Not more than `count` of the training entries, the same ones each time; all that is held out."""
        if count >= len(self.train):
            return self
        rows = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0))[:count]
        return replace(self, train=self.train.select(rows.to(self.train.index.device)))

    def residual(self, model: Factorization) -> Tensor:
        """On what was held out, (n,)."""
        return model.values(self.held_out.index) - self.held_out.value

    def error(self, model: Factorization) -> float:
        """Error on what was held out, over its size; see `size_of`."""
        return size_of(self.residual(model), self.loss) / self.norm


def size_of(values: Tensor, loss: str = "l2") -> float:
    """Euclidean norm of residuals (n,), or for a robust loss the sum of their absolute values."""
    return float(torch.linalg.vector_norm(values, 2 if loss == "l2" else 1))


def penalty(ridge: float, model: Factorization, count: int) -> float:
    """What a solver adds for each squared weight, from a ridge in units that mean the same for tensors of any size.

    With entries of order one, balanced weight vectors have squared norms that grow like the mode dimensions, and so
    does what a ridge costs; how strong the first ridge of a path has to be grows less. The root of the dimensions'
    geometric mean served both from 4 to 60. The penalty grows with the number of observations, as the loss does.
    """
    mean = math.exp(sum(map(math.log, model.dims)) / model.order)
    return ridge * count * math.sqrt(10 / mean)
