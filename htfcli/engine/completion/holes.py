"""What the holes look like, and held-out entries that look the same.

Random entries held out say how well random holes are filled. A whole missing fibre, block or slice is another matter:
its neighbours are missing too. So cells have marks: their fibre along a mode has no observation at all, or they lie in
a gap along an ordered mode longer than chance makes them; in sparse tables, where nearly every fibre is empty, their
index in a mode has few observations. A kind of holes is some marks together. Held out like them are observed entries
that a permutation of the indices of every mode, a shift for ordered ones, takes to cells of that kind; or all but a few
entries of an index.

Axes: `n` observed entries, `N` modes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from htfcli.engine.completion.settings import Settings
from htfcli.engine.samples import row_keys

RANDOM = "random"
_BY_CHANCE = 0.05  # probability under which a gap is not left to chance; share of cells from which fibres say something


@dataclass
class Holes:
    """Kinds of cells without an observation.

    Args:
        names: of the kinds; the first is `random`. share: of the wanted entries, by kind.
        cells: (prod of dims,) uint8 kind of every cell, empty where the tensor is too large or too sparse for it.
        starved: there, per kind but the first, (mode, count): its indices have so few observations.
        counts: of observations, per mode (d_k + 1,), the last for an index never seen.

    Attributes:
        marks: the sets of marks that cells have, three bits a mode: nothing in the fibre, in a long gap between two
            observations, beyond the first or the last one; and a last one: in an area of two ordered modes.
        marked: (prod of dims,) which of them each has. kinds: the set of each kind. ordered: modes.
    """

    dims: tuple[int, ...]
    names: list[str] = field(default_factory=lambda: [RANDOM])
    share: list[float] = field(default_factory=lambda: [1.0])
    cells: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    starved: list[tuple[int, ...]] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)
    marks: list[int] = field(default_factory=list, init=False)
    marked: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int32), init=False)
    kinds: list[int] = field(default_factory=lambda: [0], init=False)
    ordered: tuple[int, ...] = field(default=(), init=False)

    def settle(self, difficulty: Sequence[float]) -> None:
        """Give cells of a rare kind, such as those of a missing year in a missing fibre, the hardest of the kinds whose
        marks they all have.

        Args:
            difficulty: of every kind, the error of what was held out like it.
        """
        chosen = []
        for mark in self.marks:
            fitting = [k for k, own in enumerate(self.kinds) if own & ~mark == 0]
            own = [k for k in fitting if self.kinds[k] == mark]
            chosen.append(max(own or fitting, key=lambda k: difficulty[k]))
        if chosen:
            self.cells = torch.tensor(chosen, dtype=torch.uint8)[self.marked]

    def kind_of(self, index: Tensor) -> Tensor:
        """Number of the kind of entries (n, N), (n,) int64."""
        kind = torch.zeros(len(index), dtype=torch.int64)
        if len(self.cells):
            known = (index >= 0).all(1)
            kind[known] = self.cells[row_keys(index[known].long(), self.dims)].long()
        for number, (mode, most) in enumerate(self.starved, 1):
            few = self.counts[mode][index[:, mode].long()] <= most
            kind = torch.where(few & (kind == 0), number, kind)
        return kind

    def fixed_modes(self, number: int) -> list[int]:
        """Modes in which the cells of one hole of a kind agree."""
        if self.starved:
            return [self.starved[number - 1][0]]
        kind, order = self.kinds[number], len(self.dims)
        area = self.ordered if kind >> (3 * order) else ()
        return [m for m in range(order) if not kind >> (3 * m) & 7 and m not in area]

    def imitated(self, index: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """Which observed entries (n, N) would be missing, were the holes of a kind elsewhere; (n,) bool."""
        if self.starved:
            mode, few = self.starved[number - 1]
            order = torch.randperm(len(index), generator=generator)
            order = order[torch.argsort(index[order, mode], stable=True)]
            of = index[order, mode].contiguous()
            left = torch.zeros(len(index), dtype=torch.bool)
            left[order] = torch.arange(len(of)) - torch.searchsorted(of, of) < few
            return ~left
        columns = []
        for mode, d in enumerate(self.dims):
            column = index[:, mode]
            if mode not in self.ordered:
                column = torch.randperm(d, generator=generator)[column]
            elif not self.kinds[number] >> (3 * mode) & 4:  # what lies at an end stays there
                column = (column + torch.randint(d, (1,), generator=generator)) % d
            columns.append(column)
        own = torch.tensor([self.kinds[number] & ~mark == 0 for mark in self.marks])  # these marks, others or not
        return own[self.marked[row_keys(torch.stack(columns, 1), self.dims)]]


def find_holes(
    index: Tensor, dims: Sequence[int], wanted: Tensor | None, ordered: Sequence[int], settings: Settings
) -> Holes:
    """Kinds of holes among the wanted entries (m, N), all unobserved ones for None, where (n, N) are observed."""
    holes, total = Holes(tuple(dims)), math.prod(dims)
    holes.ordered = tuple(ordered)
    if total <= settings.most_cells and len(index) >= _BY_CHANCE * total:
        _by_fibres(holes, index, wanted, settings)
    elif wanted is not None and len(wanted):
        _by_counts(holes, index, wanted, settings)
    return holes


def _by_fibres(holes: Holes, index: Tensor, wanted: Tensor | None, settings: Settings) -> None:
    dims, total = holes.dims, math.prod(holes.dims)
    seen = torch.zeros(total, dtype=torch.bool)
    seen[row_keys(index, dims)] = True
    asked = ~seen
    if wanted is not None:
        inside = wanted[(wanted >= 0).all(1)].long()
        asked = torch.zeros_like(seen).index_fill_(0, row_keys(inside, dims), True) & ~seen
    if not bool(asked.any()):
        return
    seen, missing = seen.view(dims), 1 - int(seen.sum()) / total
    mark = torch.zeros(dims, dtype=torch.int64)
    for mode, d in enumerate(dims[:21]):  # three bits each fit into 63
        empty = ~seen.any(mode, keepdim=True).expand(dims) & ~seen
        chance = missing ** (d - 1)  # that the fibre of an unobserved cell is empty
        if float(empty.sum()) > 2 * chance / (1 + chance) * missing * total:  # most of these are not left to chance
            mark += empty.long() << (3 * mode)
        if mode in holes.ordered:
            longest = max(math.log(_BY_CHANCE / d) / math.log(missing), 1.0)
            before, after = _around(seen, mode)
            gap, end = (after - before - 1 > longest) & ~empty & ~seen, (before < 0) | (after == d)
            mark += (gap & ~end).long() << (3 * mode + 1) | (gap & end).long() << (3 * mode + 2)
    if len(holes.ordered) == 2 and len(dims) <= 20:
        mark += _in_areas(seen, holes.ordered, missing).long() << (3 * len(dims))
    marks, marked = torch.unique(mark.flatten(), return_inverse=True)
    holes.marks, holes.marked = marks.tolist(), marked.to(torch.int32)
    count = dict(zip(holes.marks, torch.bincount(marked[asked], minlength=len(marks)).tolist(), strict=True))
    least = max(settings.fewest, settings.least_kind * int(asked.sum()))
    often = sorted((m for m in count if m and count[m] >= least), key=lambda m: (-count[m], m))
    holes.kinds = [0, *often]
    holes.settle([float(kind.bit_count()) for kind in holes.kinds])
    holes.names += [_name(kind, len(dims)) for kind in often]
    holes.share = _shares(holes, holes.cells[asked].long())


def _around(seen: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    """Per cell the index, in a mode, of the last observation up to it, -1 for none, and of the next, d for none."""
    d = seen.shape[mode]
    place = torch.arange(d).view(-1, *(1 for _ in range(mode + 1, seen.dim()))).expand(seen.shape)
    before = torch.where(seen, place, -1).cummax(mode).values
    after = torch.where(seen, place, d).flip(mode).cummin(mode).values.flip(mode)
    return before, after


def _in_areas(seen: Tensor, modes: Sequence[int], missing: float) -> Tensor:
    """Which cells lie in a square of two ordered modes without any observation that is larger than chance makes them:
    of all squares of side s, `cells missing^(s^2)` are empty by chance."""
    cells = seen.numel()
    side = max(2, math.ceil(math.sqrt(math.log(_BY_CHANCE / cells) / math.log(missing))))
    if side > min(seen.shape[m] for m in modes) // 2:
        return torch.zeros_like(seen)
    last = (-2, -1)
    planes = seen.movedim(tuple(modes), last)
    empty = 1 - torch.nn.functional.max_pool2d(planes.reshape(-1, 1, *planes.shape[-2:]).float(), side, 1)
    around = torch.nn.functional.max_pool2d(torch.nn.functional.pad(empty, (side - 1,) * 4), side, 1)
    return (around > 0).view(planes.shape).movedim(last, tuple(modes))


def _name(kind: int, order: int) -> str:
    marked = [[str(m) for m in range(order) if kind >> (3 * m) & 2**bit] for bit in range(3)]
    names = ("fibre of mode", "gap in mode", "end of mode")
    parts = [f"{name} {', '.join(modes)}" for name, modes in zip(names, marked, strict=True) if modes]
    return " and ".join(["area", *parts] if kind >> (3 * order) else parts)


def _by_counts(holes: Holes, index: Tensor, wanted: Tensor, settings: Settings) -> None:
    counts = [torch.bincount(index[:, m], minlength=d) for m, d in enumerate(holes.dims)]
    holes.counts = [torch.cat([count, count.new_zeros(1)]) for count in counts]
    for mode, count in enumerate(holes.counts):
        for most in (0, 3, 10):  # nothing, next to nothing, little: an entry's own observation is not counted
            share, chance = count[wanted[:, mode].long()] <= most, count[index[:, mode]] - 1 <= most
            if float(share.double().mean() - chance.double().mean()) > settings.least_kind:
                holes.starved.append((mode, most))
                break
    holes.names += [f"few observations of an index of mode {mode}" for mode, _ in holes.starved]
    holes.share = _shares(holes, holes.kind_of(wanted))


def _shares(holes: Holes, kind: Tensor) -> list[float]:
    shares: list[float] = (torch.bincount(kind, minlength=len(holes.names)).double() / len(kind)).tolist()
    return shares


def held_out_like(
    holes: Holes, index: Tensor, share: float, order: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Observed entries (n, N) to hold out, `share` of them the first in an order (n,) and about as many for every other
    kind of holes.

    Returns: (n,) int64 kind of what is held out, -1 for what is kept; (n,) int64 group: entries of a kind that were
        held out together.
    """
    n = len(index)
    kind, group = torch.full((n,), -1), torch.zeros(n, dtype=torch.int64)
    for number in range(1, len(holes.names)):
        fixed = holes.fixed_modes(number)
        most, got = max(1, int(share * n / (len(holes.names) - 1) ** 0.5)), 0
        for attempt in range(1 if holes.starved else 20):  # a gap often comes to lie on others
            rows = torch.nonzero(holes.imitated(index, number, generator) & (kind < 0)).flatten()
            names, of = torch.unique(
                row_keys(index[rows][:, fixed], [holes.dims[m] for m in fixed]), return_inverse=True
            )
            sizes = torch.bincount(of, minlength=len(names))
            drawn = torch.randperm(len(names), generator=generator)  # whole holes, until there are enough
            drawn = drawn[4 * sizes[drawn] <= n]  # one that takes more leaves too little to learn from
            chosen = torch.isin(of, drawn[sizes[drawn].cumsum(0) - sizes[drawn] < most - got])
            kind[rows[chosen]], group[rows[chosen]] = number, of[chosen] + attempt * n
            got += int(chosen.sum())
            if 2 * got >= most:
                break
    rows = order[kind[order] < 0][:-1][: max(1, round(share * n))]
    kind[rows], group[rows] = 0, torch.arange(len(rows))
    return kind, group
