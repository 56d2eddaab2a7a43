"""Wide factorizations as members of an average: fitted along a path of ridges on every split, then to all
observations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from htfcli.engine.completion.effects import Effects
from htfcli.engine.completion.links import value_of, working
from htfcli.engine.completion.settings import Settings
from htfcli.engine.completion.wide import WideFit, node_vectors
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares.robust import robust_weights
from htfcli.engine.samples import Entries

_CHUNK = 2**17  # entries evaluated at a time


@dataclass
class Split:
    """What members are fitted to, and what judges them, in units of the fit.

    Args:
        train, held: entries. kind, group: (held,) kind of holes, and which of them were held out together.
        weight: (train,) of the squared residuals, None for ones. effects: by name (mean, effects, pairs), of train.
    """

    train: Entries
    held: Entries
    kind: Tensor
    group: Tensor
    weight: Tensor | None
    effects: dict[str, Effects] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """How a wide factorization is fitted.

    Args:
        tree: of modes. width: of all nodes. centre: name of the effects below it, empty for none. link: of its
        values, low + span * link.
        loss: l2, huber or l1. smooth: strength of the penalty along ordered modes over the ridge. seed: of its start.
        around_one: whether its first weights are near one instead of near zero. device: where its sweeps compute.
    """

    tree: ModeTree
    width: int | Mapping[str, int] | Sequence[int]
    centre: str = ""
    link: str = "identity"
    loss: str = "l2"
    smooth: float = 0.0
    seed: int = 0
    around_one: bool = False
    device: str = "cpu"
    low: float = 0.0
    span: float = 1.0


@dataclass(frozen=True)
class Member:
    """What predicts entries: low + span * link(effects + factorization).

    Args:
        model: float64 on the CPU, None for effects alone. effects: below it, None for none. link: identity, log or
        logit.
    """

    model: Factorization | None
    effects: Effects | None
    link: str = "identity"
    low: float = 0.0
    span: float = 1.0

    def at(self, index: Tensor) -> Tensor:
        """Values of entries (n, N), an index of -1 standing for the mean of the others; (n,) float64."""
        eta = torch.zeros(len(index), dtype=torch.float64) if self.model is None else self._factorized(index)
        if self.effects is not None:
            eta = eta + self.effects.at(index)
        return self.low + self.span * value_of(eta, self.link)

    def _factorized(self, index: Tensor) -> Tensor:
        assert self.model is not None
        weights: list[Tensor] = [w for w in self.model.node_weights if w is not None]
        order, tree = self.model.order, self.model.tree
        if len(index) and bool((index < 0).any()):
            weights[:order] = [torch.cat([w, w.mean(0, keepdim=True)]) for w in weights[:order]]
        parts = []
        for rows in torch.split(index, _CHUNK):
            columns = [rows[:, mode].long() % len(weights[mode]) for mode in range(order)]  # -1 is the last row
            parts.append(node_vectors(tree, weights, columns)[-1][:, 0])
        return torch.cat([torch.empty(0, dtype=torch.float64), *(part.double() for part in parts)])


class Fit:
    """One recipe on some entries, n of them.

    Args:
        weight: (n,) of the squared residuals, None for ones. effects: below it. between: per ordered mode (d - 1,), see
            `smoothing`. begin: weights to start from, None for random ones.
    """

    def __init__(
        self,
        recipe: Recipe,
        entries: Entries,
        weight: Tensor | None,
        effects: Effects | None,
        dims: tuple[int, ...],
        between: Mapping[int, Tensor],
        begin: Factorization | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.recipe, self.effects = recipe, effects
        if recipe.link != "identity":
            entries = Entries(entries.index, (entries.value - recipe.low) / recipe.span)
        self._entries, self._weight = entries, weight
        self._base = None if effects is None else effects.at(entries.index)
        self._between = {m: recipe.smooth * b.to(dtype) for m, b in between.items()} if recipe.smooth else {}
        self._counts = [torch.bincount(entries.index[:, m].long(), minlength=d) for m, d in enumerate(dims)]
        target = entries.value if self._base is None else entries.value - self._base
        device = torch.device(recipe.device)
        if begin is None:
            model: Factorization = HierarchicalTensorFactorization(dims, recipe.width, recipe.tree, dtype=dtype)
            generator = torch.Generator().manual_seed(recipe.seed)
            size = float(target.square().mean().sqrt()) if recipe.link == "identity" else 0.1
            model.init_gaussian(model.gaussian_std(size or 1.0), generator)
            if recipe.around_one:
                _move_to_one(model, generator, float(target.mean()), size)
        else:
            model = begin.to(dtype)
        self._between = {m: b.to(device) for m, b in self._between.items()}
        index, target = entries.index.to(device), target.to(device, dtype)
        weight = None if weight is None else weight.to(device, dtype)
        self._solver = WideFit(model if device.type == "cpu" else model.to(device=device), index, target, weight)

    @property
    def train_error(self) -> float:
        """Root of the mean weighted squared residual of what is fitted."""
        return math.sqrt(self._solver.loss / max(len(self._entries), 1))

    @property
    def sweeps(self) -> int:
        return self._solver.sweeps

    def restore(self, model: Factorization) -> None:
        """Go on from these weights."""
        self._solver.model.parameters.copy_(model.parameters)
        self._solver.refresh()

    def run(self, sweeps: int, ridge: float, slow: float) -> None:
        """So many sweeps at most at a ridge."""
        if self.recipe.link == "identity" and self.recipe.loss == "l2":
            self._solver.run(sweeps, ridge, self._between, slow)
            return
        for _ in range(sweeps):
            self._reweight()
            self._solver.sweep(ridge, self._between)

    def _reweight(self) -> None:
        values = self._solver.values
        eta = values.double().cpu()
        if self.recipe.link == "identity":
            target = self._entries.value if self._base is None else self._entries.value - self._base
            weight = robust_weights(eta - target, self.recipe.loss)
            weight = weight if self._weight is None else weight * self._weight
            self._solver.set_weight(weight.to(values))
            return
        base = 0.0 if self._base is None else self._base
        target, weight = working(eta + base, self._entries.value, self.recipe.link)
        weight = weight if self._weight is None else weight * self._weight
        self._solver.set_weight(weight.to(values), (target - base).to(values))

    def member(self) -> Member:
        """What has been fitted so far; rows without any observation are the mean of the others, or zero above
        effects."""
        model = self._solver.model.to(torch.float64, "cpu")
        for mode, count in enumerate(self._counts):
            empty = count == 0
            if bool(empty.any()) and mode not in self._between:
                weight = model.node_weights[mode]
                assert weight is not None
                weight[empty] = 0.0 if self.effects is not None else weight[~empty].mean(0)
        return Member(model, self.effects, self.recipe.link, self.recipe.low, self.recipe.span)


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


@dataclass
class Snapshot:
    """A candidate at one ridge of its path: members per split, predictions (held of all splits,), errors by kind."""

    ridge: float
    members: list[Member]
    predictions: Tensor
    score: float
    train_error: float


@dataclass
class Candidate:
    """A recipe fitted on every split along a path of ridges.

    Attributes:
        best: at the ridge with the best score. random, holes: at those that are best for random holes and for others.
        still_falling: whether the error still fell with the last ridge of the path.
    """

    recipe: Recipe
    fits: list[Fit]
    best: Snapshot | None = None
    random: Snapshot | None = None
    holes: Snapshot | None = None
    still_falling: bool = False

    @property
    def score(self) -> float:
        return math.inf if self.best is None else self.best.score

    def near_exact(self, error: float) -> bool:
        """Whether the train error is under this, and what is held out follows it."""
        return self.best is not None and self.best.train_error < error and self.best.score < 3 * error

    @property
    def snapshots(self) -> list[Snapshot]:
        """One or two different ones."""
        found: dict[float, Snapshot] = {}
        for snapshot in (self.random, self.holes) if self.holes is not None else (self.best,):
            if snapshot is not None:
                found.setdefault(snapshot.ridge, snapshot)
        return list(found.values())


class Judge:
    """The held-out entries of all splits, and the error of predictions of them.

    Args:
        splits: at least one. share: of the wanted entries by kind of holes; a kind counts by it, random holes by a
            tenth at least.

    Attributes:
        half: (n,) 0 or 1, the same for entries that were held out together: each half is judged by the other.
    """

    def __init__(self, splits: Sequence[Split], share: Sequence[float]) -> None:
        self.value = torch.cat([s.held.value for s in splits])
        self.kind = torch.cat([s.kind for s in splits])
        self.group = torch.cat([s.group + number * 2**40 for number, s in enumerate(splits)])
        self.half = torch.unique(self.group, return_inverse=True)[1] % 2
        self.index = torch.cat([s.held.index for s in splits])
        self.kinds = [int(k) for k in torch.unique(self.kind)]
        part = torch.tensor([max(share[k], 0.1 if k == 0 else 0.0) for k in self.kinds], dtype=torch.float64)
        self.part = part / part.sum()
        self.others = self.part * torch.tensor([float(k > 0) for k in self.kinds], dtype=torch.float64)

    def errors(self, predictions: Tensor) -> Tensor:
        """Root mean square error of predictions (n,) of what was held out, by kind, (kinds,)."""
        miss = (predictions - self.value).square()
        return torch.stack([miss[self.kind == k].mean().sqrt() for k in self.kinds])

    def score(self, predictions: Tensor, part: Tensor | None = None) -> float:
        """Geometric mean of the errors of predictions (n,) over the kinds, weighted by their parts (kinds,)."""
        if not bool(torch.isfinite(predictions).all()):
            return math.inf
        part = self.part if part is None else part / part.sum()
        return float(torch.exp((part * self.errors(predictions).clamp_min(1e-300).log()).sum()))


def begin(
    recipe: Recipe,
    splits: Sequence[Split],
    dims: tuple[int, ...],
    between: Mapping[int, Tensor],
    dtype: torch.dtype,
    start: Callable[[Split, Effects | None], Factorization] | None = None,
) -> Candidate:
    """A recipe on every split, before its first sweep; from random weights, or from what `start` finds. `between`: per
    ordered mode (d - 1,)."""
    fits = []
    for split in splits:
        effects = split.effects[recipe.centre] if recipe.centre else None
        model = None if start is None else start(split, effects)
        fits.append(Fit(recipe, split.train, split.weight, effects, dims, between, model, dtype))
    return Candidate(recipe, fits)


def advance(
    candidate: Candidate, splits: Sequence[Split], judge: Judge, ridge: float, sweeps: int, slow: float
) -> bool:
    """Some sweeps at a ridge on every split; whether that was clearly better than before in one respect or the
    other."""
    members = []
    for fit in candidate.fits:
        fit.run(sweeps, ridge, slow)
        members.append(fit.member())
    predictions = torch.cat([m.at(s.held.index) for m, s in zip(members, splits, strict=True)])
    now = Snapshot(ridge, members, predictions, judge.score(predictions), candidate.fits[0].train_error)
    better = now.score < 0.998 * candidate.score
    if now.score < candidate.score:
        candidate.best = now
    if float(judge.others.sum()) > 0:
        for name, part in (("random", judge.part - judge.others), ("holes", judge.others)):
            score, before = judge.score(predictions, part), getattr(candidate, name)
            better = better or before is None or score < 0.998 * before.score
            if before is None or score < before.score:
                setattr(candidate, name, replace(now, score=score))
    return better


def walk(candidate: Candidate, splits: Sequence[Split], judge: Judge, settings: Settings) -> None:
    """Along rising ridges from the first one while they help, or else along falling ones, and up again from the best of
    these: the way to a solution asks for less ridge than noise does, and on the way back the solution stays."""
    assert candidate.best is not None
    first = candidate.best
    _along(candidate, splits, judge, settings, settings.ridge_step)
    if candidate.best is not first:
        return
    _restore(candidate, first)
    candidate.still_falling = _along(candidate, splits, judge, settings, settings.ridge_step**-2)
    if candidate.best is not first:
        _restore(candidate, candidate.best)
        _along(candidate, splits, judge, settings, settings.ridge_step)


def _along(candidate: Candidate, splits: Sequence[Split], judge: Judge, settings: Settings, factor: float) -> bool:
    """One ridge after another from the best one, while that helps; whether the last one still did."""
    assert candidate.best is not None
    ridge, sweeps = candidate.best.ridge * factor, settings.sweeps * (2 if factor < 1 else 1)
    while settings.least_ridge < ridge < settings.most_ridge:
        if not advance(candidate, splits, judge, ridge, sweeps, settings.slow):
            return False
        ridge *= factor
    return True


def _restore(candidate: Candidate, snapshot: Snapshot) -> None:
    """Go on from a snapshot."""
    for fit, member in zip(candidate.fits, snapshot.members, strict=True):
        assert member.model is not None
        fit.restore(member.model)


def refit(
    recipe: Recipe,
    snapshot: Snapshot,
    entries: Entries,
    weight: Tensor | None,
    effects: Effects | None,
    dims: tuple[int, ...],
    between: Mapping[int, Tensor],
    settings: Settings,
    dtype: torch.dtype,
) -> Member:
    """The recipe at its best ridge on all n observations, from where it was on the first split. `weight`: (n,);
    `between`: per ordered mode (d - 1,)."""
    fit = Fit(recipe, entries, weight, effects, dims, between, snapshot.members[0].model, dtype)
    fit.run(settings.sweeps, snapshot.ridge, settings.slow)
    return fit.member()


def wider(recipe: Recipe, factor: float) -> Recipe:
    """The same with another width, where that is a number."""
    assert isinstance(recipe.width, int)
    return replace(recipe, width=max(1, round(recipe.width * factor)))
