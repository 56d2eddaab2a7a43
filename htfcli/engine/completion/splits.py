"""What members are fitted to, and the held-out observations that judge them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from htfcli.engine.completion.effects import Effects, fit_effects, main_terms, pair_terms
from htfcli.engine.completion.links import IDENTITY, Link
from htfcli.engine.completion.settings import SETTINGS
from htfcli.engine.samples import Entries


class Predictor(Protocol):
    """What predicts entries: effects, members."""

    def at(self, index: Tensor) -> Tensor:
        """Values of entries (n, N), (n,)."""
        ...


@dataclass(frozen=True)
class Sample(Entries):
    """Observations that members are fitted to, n of them, in units of the fit.

    Args:
        dims: of the tensor. weight: (n,) of the squared residuals, None for ones.
    """

    dims: tuple[int, ...]
    weight: Tensor | None = None
    _found: dict[tuple[str, Link], Effects] = field(default_factory=dict, init=False, repr=False, compare=False)

    def part(self, rows: Tensor) -> Sample:
        """The observations at positions `rows`, or where a boolean `rows` (n,) is True."""
        return Sample(self.index[rows], self.value[rows], self.dims, None if self.weight is None else self.weight[rows])

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of effects: the mean, those of single modes, and of pairs where they have few cells."""
        paired = len(self) < SETTINGS.many and len(pair_terms(self.dims, 2 * len(self))) > len(self.dims)
        return ("mean", "effects", "pairs") if paired else ("mean", "effects")

    def effects(self, kind: str, link: Link = IDENTITY) -> Effects:
        """The effects of a kind, fitted when they are first asked for."""
        if (kind, link) not in self._found:
            order = len(self.dims)
            terms = {"mean": (), "effects": main_terms(order), "pairs": pair_terms(self.dims, 2 * len(self))}[kind]
            sweeps = (20 if len(self) < SETTINGS.many else 4) * (2 if link else 1)  # with a link, each has new weights
            self._found[kind, link] = fit_effects(self, self.dims, terms, self.weight, sweeps, link)
        return self._found[kind, link]


@dataclass(frozen=True)
class Split:
    """Observations parted in two.

    Args:
        train: what members are fitted to. held: what judges them. kind, group: (held,) kind of holes, and which of
            them were held out together.
    """

    train: Sample
    held: Entries
    kind: Tensor
    group: Tensor


class Judge:
    """The held-out entries of all splits, and the error of predictions of them.

    Args:
        splits: at least one. share: of the wanted entries by kind of holes; a kind counts by it, random holes by a
            tenth at least.

    Attributes:
        half: (n,) 0 or 1, the same for entries that were held out together: each half is judged by the other.
    """

    def __init__(self, splits: Sequence[Split], share: Sequence[float]) -> None:
        self._held = [s.held.index for s in splits]
        self.value = torch.cat([s.held.value for s in splits])
        self.kind = torch.cat([s.kind for s in splits])
        self.group = torch.cat([s.group + number * 2**40 for number, s in enumerate(splits)])
        self.half = torch.unique(self.group, return_inverse=True)[1] % 2
        self.index = torch.cat(self._held)
        self.kinds = [int(k) for k in torch.unique(self.kind)]
        part = torch.tensor([max(share[k], 0.1 if k == 0 else 0.0) for k in self.kinds], dtype=torch.float64)
        self.part = part / part.sum()

    def predictions(self, fitted: Sequence[Predictor]) -> Tensor:
        """Of what was held out (n,), each split's by what was `fitted` on it."""
        return torch.cat([one.at(index) for one, index in zip(fitted, self._held, strict=True)])

    def errors(self, predictions: Tensor) -> Tensor:
        """Root mean square error of predictions (n,) of what was held out, by kind, (kinds,)."""
        miss = (predictions - self.value).square()
        return torch.stack([miss[self.kind == k].mean().sqrt() for k in self.kinds])

    def score(self, predictions: Tensor) -> float:
        """Geometric mean of the errors of predictions (n,) over the kinds, weighted by their parts."""
        if not bool(torch.isfinite(predictions).all()):
            return math.inf
        return float(torch.exp((self.part * self.errors(predictions).clamp_min(1e-300).log()).sum()))
