"""What is averaged: effects, and wide factorizations fitted to a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.engine.completion.effects import Effects
from htfcli.engine.completion.links import IDENTITY, Link
from htfcli.engine.completion.settings import BLOCK
from htfcli.engine.completion.spectral_start import start_in_spans
from htfcli.engine.completion.splits import Sample
from htfcli.engine.completion.wide import WideFit, node_vectors
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares.robust import robust_weights
from htfcli.engine.samples import Entries


@dataclass(frozen=True)
class Recipe:
    """How a wide factorization is fitted.

    Args:
        tree: of modes. width: of all nodes. centre: kind of effects below it, empty for none. link: of its values.
        loss: l2, huber or l1. smooth: strength of the penalty along ordered modes over the ridge. seed: of its start.
        around_one: whether its first weights are near one instead of near zero. in_spans: whether those of leaves are
        in the spans that a sparse tensor's entries show. device: where its sweeps compute.
    """

    tree: ModeTree
    width: int | Mapping[str, int] | Sequence[int]
    centre: str = ""
    link: Link = IDENTITY
    loss: str = "l2"
    smooth: float = 0.0
    seed: int = 0
    around_one: bool = False
    in_spans: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Member:
    """What predicts entries: the value, by a link, at effects + factorization.

    Args:
        model: float64 on the CPU, None for effects alone. effects: below it, None for none. link: of the values.
    """

    model: Factorization | None
    effects: Effects | None
    link: Link = IDENTITY

    def at(self, index: Tensor) -> Tensor:
        """Values of entries (n, N), an index of -1 standing for the mean of the others; (n,) float64."""
        eta = torch.zeros(len(index), dtype=torch.float64) if self.model is None else self._factorized(index)
        if self.effects is not None:
            eta = eta + self.effects.at(index)
        return self.link.value(eta)

    def _factorized(self, index: Tensor) -> Tensor:
        assert self.model is not None
        weights: list[Tensor] = [w for w in self.model.node_weights if w is not None]
        order, tree = self.model.order, self.model.tree
        if len(index) and bool((index < 0).any()):
            weights[:order] = [torch.cat([w, w.mean(0, keepdim=True)]) for w in weights[:order]]
        parts = []
        for rows in torch.split(index, BLOCK // 32):
            columns = [rows[:, mode].long() % len(weights[mode]) for mode in range(order)]  # -1 is the last row
            parts.append(node_vectors(tree, weights, columns)[-1][:, 0])
        return torch.cat([torch.empty(0, dtype=torch.float64), *(part.double() for part in parts)])


class Fit:
    """One recipe on a sample.

    Args:
        between: per ordered mode (d - 1,), see `smoothing`. begin: weights to start from, None for random ones.
    """

    def __init__(
        self,
        recipe: Recipe,
        sample: Sample,
        between: Mapping[int, Tensor],
        begin: Factorization | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.recipe, self._sample = recipe, sample
        self.effects = sample.effects(recipe.centre, recipe.link) if recipe.centre else None
        self._base = 0.0 if self.effects is None else self.effects.at(sample.index)
        device = torch.device(recipe.device)
        strength = recipe.smooth
        self._between = {m: (strength * b).to(device, dtype) for m, b in between.items()} if strength else {}
        target = sample.value - self._base if recipe.centre else sample.value
        model = self._start(target, dtype) if begin is None else begin.to(dtype)
        model = model if device.type == "cpu" else model.to(device=device)
        weight = None if sample.weight is None else sample.weight.to(device, dtype)
        self._solver = WideFit(model, sample.index.to(device), target.to(device, dtype), weight)
        counts = {m: torch.bincount(sample.index[:, m].long(), minlength=d) for m, d in enumerate(model.dims)}
        self._empty = {m: c == 0 for m, c in counts.items() if m not in self._between and not bool(c.all())}

    def _start(self, target: Tensor, dtype: torch.dtype) -> Factorization:
        """Random weights, of values of the size of the target (n,)."""
        recipe = self.recipe
        model = HierarchicalTensorFactorization(self._sample.dims, recipe.width, recipe.tree, dtype=dtype)
        generator = torch.Generator().manual_seed(recipe.seed)
        size = 0.1 if recipe.link else float(target.square().mean().sqrt())
        model.init_gaussian(model.gaussian_std(size or 1.0), generator)
        if recipe.around_one:
            _move_to_one(model, generator, float(target.mean()), size)
        if recipe.in_spans:
            start_in_spans(model, Entries(self._sample.index, target), generator)
        return model

    @property
    def train_error(self) -> float:
        """Root of the mean weighted squared residual of what is fitted."""
        return math.sqrt(self._solver.loss / max(len(self._sample), 1))

    def restore(self, model: Factorization) -> None:
        """Go on from these weights."""
        self._solver.model.parameters.copy_(model.parameters)
        self._solver.refresh()

    def run(self, sweeps: int, ridge: float, slow: float) -> None:
        """So many sweeps at most at a ridge."""
        if not self.recipe.link and self.recipe.loss == "l2":
            self._solver.run(sweeps, ridge, self._between, slow)
            return
        for _ in range(sweeps):
            self._reweight()
            self._solver.sweep(ridge, self._between)

    def _reweight(self) -> None:
        values, sample = self._solver.values, self._sample
        eta = values.double().cpu() + self._base
        target, weight = self.recipe.link.working(eta, sample.value, sample.weight)
        if not self.recipe.link:
            weight = weight * robust_weights(eta - target, self.recipe.loss)
        self._solver.set_weight(weight.to(values), (target - self._base).to(values))

    def member(self) -> Member:
        """What has been fitted so far; rows without any observation are the mean of the others, or zero above
        effects."""
        model = self._solver.model.to(torch.float64, "cpu")
        for mode, empty in self._empty.items():
            weight = model.node_weights[mode]
            assert weight is not None
            weight[empty] = 0.0 if self.effects is not None else weight[~empty].mean(0)
        return Member(model, self.effects, self.recipe.link)


def _move_to_one(model: Factorization, generator: torch.Generator, mean: float, rms: float) -> None:
    """Leaves and inner matrices around one and the identity: products of many centred numbers are nearly always
    zero."""
    model.init_gaussian(0.1, generator)
    weights, tree = model.node_weights, model.tree
    size = mean if abs(mean) > 0.1 * rms else rms
    for node, weight in enumerate(weights):
        assert weight is not None
        if node < tree.order:
            weight.add_(1.0)
        elif node != tree.root:
            weight.add_(torch.eye(*weight.shape, dtype=weight.dtype))
    first = weights[0]
    root = weights[tree.root]
    assert first is not None and root is not None
    first.mul_(size / root.shape[0])
