"""What the holes look like, and held-out entries that look the same.

Random entries held out say how well random holes are filled. A whole missing fibre, block or slice is another matter:
its neighbours are missing too. Here every cell without an observation gets a kind: along which modes its fibre has no
observation at all, and along which ordered modes it lies in a gap longer than chance makes them. Held-out entries of a
kind are the cells of that kind moved elsewhere, by a permutation of the indices of every mode, a shift for ordered
ones, as far as observations are there. In sparse tables, where nearly every fibre is empty, a kind is an index with few
observations.

Axes: `n` observed entries, `N` modes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from htfcli.engine.completion.settings import Settings
from htfcli.engine.samples import row_keys, unravel

RANDOM = "random"


@dataclass
class Holes:
    """Kinds of cells without an observation.

    Args:
        names: of the kinds; the first is `random`. share: of the wanted entries, by kind.
        cells: (prod of dims,) uint8 kind of every cell, empty where the tensor is too large or too sparse for it.
        codes, kept: of every cell, and of the kinds; see `_by_fibres`. starved: per kind but the first (mode,
        count): its indices have so few observations. counts: per mode (d_k,).
    """

    dims: tuple[int, ...]
    names: list[str] = field(default_factory=lambda: [RANDOM])
    share: list[float] = field(default_factory=lambda: [1.0])
    cells: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    starved: list[tuple[int, int]] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)
    open_modes: list[tuple[int, ...]] = field(default_factory=lambda: [()])
    ordered: tuple[int, ...] = ()
    codes: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int32))
    kept: list[int] = field(default_factory=lambda: [0])

    def settle(self, difficulty: Sequence[float]) -> None:
        """Give cells of a rare kind, such as those of a missing year in a missing fibre, the hardest of the kinds whose
        marks they all have.

        Args:
            difficulty: of every kind, the error of what was held out like it.
        """
        if len(self.codes) == 0:
            return
        codes = torch.unique(self.codes)
        table = torch.zeros(int(codes.max()) + 1, dtype=torch.uint8)
        for code in codes.tolist():
            fitting = [k for k, own in enumerate(self.kept) if own & ~code == 0]
            own = self.kept.index(code) if code in self.kept else max(fitting, key=lambda k: difficulty[k])
            table[code] = own
        self.cells = table[self.codes.long()]

    def kind_of(self, index: Tensor) -> Tensor:
        """Number of the kind of entries (n, N), (n,) int64."""
        kind = torch.zeros(len(index), dtype=torch.int64)
        if len(self.cells):
            known = (index >= 0).all(1)
            kind[known] = self.cells[row_keys(index[known].long(), self.dims)].long()
        for number, (mode, most) in enumerate(self.starved, 1):
            few = torch.cat([self.counts[mode], torch.zeros(1, dtype=torch.int64)])[index[:, mode].long()] <= most
            kind = torch.where(few & (kind == 0), number, kind)
        return kind


def find_holes(
    index: Tensor, dims: Sequence[int], wanted: Tensor | None, ordered: Sequence[int], settings: Settings
) -> Holes:
    """Kinds of holes among the wanted entries (m, N), all unobserved ones for None, where (n, N) are observed."""
    holes, total = Holes(tuple(dims), ordered=tuple(ordered)), math.prod(dims)
    if total <= settings.most_cells and len(index) >= 0.05 * total:
        _by_fibres(holes, index, wanted, settings)
    else:
        _by_counts(holes, index, wanted, settings)
    return holes


def _by_fibres(holes: Holes, index: Tensor, wanted: Tensor | None, settings: Settings) -> None:
    dims, order = holes.dims, len(holes.dims)
    seen = torch.zeros(math.prod(dims), dtype=torch.bool)
    seen[row_keys(index, dims)] = True
    seen = seen.view(dims)
    fill = len(index) / seen.numel()
    code = torch.zeros(dims, dtype=torch.int64)  # two bits a mode: 1 no observation in the fibre, 2 a long gap
    for mode, d in enumerate(dims):
        empty = ~seen.any(mode, keepdim=True)
        by_chance = (1 - fill) ** (d - 1)  # a cell without observation has an empty fibre
        share = float((empty.expand(dims) & ~seen).sum()) / max(seen.numel() - len(index), 1)
        if by_chance > 0.05 and share < by_chance + 0.25:
            continue
        code += empty.expand(dims).long() << (2 * mode)
        if mode in holes.ordered:
            longest = math.log(0.05 / d) / math.log(max(1 - fill, 1e-6)) if fill < 1 else 0.0
            code += ((_gaps(seen, mode) > max(longest, 1.0)) & ~empty & ~seen).long() << (2 * mode + 1)
    flat, unseen = code.flatten(), ~seen.flatten()
    asked = unseen if wanted is None else torch.zeros_like(unseen)
    if wanted is not None:
        inside = (wanted >= 0).all(1)
        asked[row_keys(wanted[inside].long(), dims)] = True
        asked &= unseen
    codes, counts = torch.unique(flat[asked], return_counts=True)
    count = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    least = max(8.0, settings.least_kind * sum(count.values()))
    often = sorted((c for c in count if c and count[c] >= least), key=lambda c: (-count[c], c))
    kept = [0, *often[: settings.most_kinds]]
    holes.codes, holes.kept = torch.where(unseen, flat, 0).to(torch.int32), kept
    holes.settle([float(c.bit_count()) for c in kept])
    holes.names = [RANDOM] + [_name(c, order) for c in kept[1:]]
    holes.open_modes = [tuple(m for m in range(order) if c >> (2 * m) & 3) for c in kept]
    total = max(int(asked.sum()), 1)
    holes.share = (torch.bincount(holes.cells[asked].long(), minlength=len(kept)).double() / total).tolist()


def _gaps(seen: Tensor, mode: int) -> Tensor:
    """Per cell the number of unobserved cells in a row, along a mode, that it is one of."""
    d = seen.shape[mode]
    shape = [1] * seen.dim()
    shape[mode] = d
    place = torch.arange(d).view(shape).expand(seen.shape)
    before = torch.where(seen, place, -1).cummax(mode).values
    after = d - 1 - torch.where(seen, d - 1 - place, -1).flip(mode).cummax(mode).values.flip(mode)
    return after - before - 1


def _name(code: int, order: int) -> str:
    empty = [m for m in range(order) if code >> (2 * m) & 1]
    gaps = [m for m in range(order) if code >> (2 * m) & 2]
    parts = ([f"fibre of mode {', '.join(map(str, empty))}"] if empty else []) + [f"gap in mode {m}" for m in gaps]
    return " and ".join(parts)


def _by_counts(holes: Holes, index: Tensor, wanted: Tensor | None, settings: Settings) -> None:
    holes.counts = [torch.bincount(index[:, m].long(), minlength=d) for m, d in enumerate(holes.dims)]
    if wanted is None or len(wanted) == 0:
        return
    shares = []
    for mode, count in enumerate(holes.counts):
        of_wanted = torch.cat([count, count.new_zeros(1)])[wanted[:, mode].long()]
        of_seen = count[index[:, mode].long()] - 1
        for most in (0, 3, 10):
            share = float((of_wanted <= most).double().mean())
            if share - float((of_seen <= most).double().mean()) > settings.least_kind and share > settings.least_kind:
                shares.append((mode, most))
                break
    holes.starved = shares[: settings.most_kinds]
    holes.names += [f"few observations of an index of mode {mode}" for mode, _ in holes.starved]
    holes.open_modes += [tuple(m for m in range(len(holes.dims)) if m != mode) for mode, _ in holes.starved]
    kind = holes.kind_of(wanted)
    holes.share = (torch.bincount(kind, minlength=len(holes.names)).double() / len(wanted)).tolist()


def held_out_like(holes: Holes, index: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Observed entries to hold out, `share` of them at random and about as many for every other kind of holes.

    Returns: (n,) int64 kind of what is held out, -1 for what is kept; (n,) int64 group: entries of a kind that were
        held out together.
    """
    n = len(index)
    kind, group = torch.full((n,), -1), torch.zeros(n, dtype=torch.int64)
    for number in range(1, len(holes.names)):
        most = max(1, int(share * n / max(1, len(holes.names) - 1) ** 0.5))
        found = _starved(holes, index, number, most, generator) if holes.starved else None
        if found is None:
            found = _moved(holes, index, number, most, kind, generator)
        rows, groups = found
        kind[rows], group[rows] = number, groups
    free = torch.nonzero(kind < 0).flatten()
    count = min(max(1, round(share * n)), len(free) - 1)
    rows = free[torch.randperm(len(free), generator=generator)[:count]]
    kind[rows] = 0
    group[rows] = torch.arange(len(rows))
    return kind, group


def _moved(
    holes: Holes, index: Tensor, number: int, most: int, kind: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Observed entries under the cells of a kind, moved elsewhere; some whole groups of them, `most` entries or so."""
    dims = holes.dims
    keys, order = torch.sort(row_keys(index, dims))
    own = holes.kept[number]
    cells = torch.nonzero((holes.codes & own) == own).flatten()  # with those that have further marks besides
    cells = unravel(cells, dims)
    fixed = [m for m in range(len(dims)) if m not in holes.open_modes[number]]
    rows_found, groups_found, got, offset = [], [], 0, 0
    taken = kind >= 0
    for _ in range(20):
        moved = cells.clone()
        for mode, d in enumerate(dims):
            if mode in holes.ordered:
                moved[:, mode] = (moved[:, mode] + int(torch.randint(d, (1,), generator=generator))) % d
            else:
                moved[:, mode] = torch.randperm(d, generator=generator)[moved[:, mode]]
        key = row_keys(moved, dims)
        at = torch.searchsorted(keys, key).clamp_(max=len(keys) - 1)
        rows = order[at[keys[at] == key]]
        rows = torch.unique(rows[~taken[rows]])
        if len(rows) == 0:
            continue
        of = row_keys(index[rows][:, fixed], [dims[m] for m in fixed]) if fixed else torch.zeros_like(rows)
        names, of = torch.unique(of, return_inverse=True)
        sizes = torch.bincount(of)
        drawn = torch.randperm(len(names), generator=generator)
        enough = int((sizes[drawn].cumsum(0) < most - got).sum()) + 1
        chosen = torch.zeros(len(names), dtype=torch.bool)
        chosen[drawn[:enough]] = True
        keep = chosen[of]
        if got and got + int(keep.sum()) > 2 * most:
            continue
        rows, of = rows[keep], of[keep]
        taken[rows] = True
        rows_found.append(rows)
        groups_found.append(of + offset)
        offset += len(names)
        got += len(rows)
        if got >= 0.8 * most:
            break
    if not rows_found:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    return torch.cat(rows_found), torch.cat(groups_found)


def _starved(
    holes: Holes, index: Tensor, number: int, most: int, generator: torch.Generator
) -> tuple[Tensor, Tensor] | None:
    """All but a few entries of some indices."""
    mode, few = holes.starved[number - 1]
    count = holes.counts[mode]
    rich = torch.nonzero(count > few + 4).flatten()
    if len(rich) < 4:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    drawn = rich[torch.randperm(len(rich), generator=generator)]
    enough = int(((count[drawn] - few).cumsum(0) < most).sum()) + 1
    drawn = drawn[: min(enough, max(2, len(rich) // 4))]
    chosen = torch.zeros(len(count), dtype=torch.bool)
    chosen[drawn] = True
    rows = torch.nonzero(chosen[index[:, mode].long()]).flatten()
    rows = rows[torch.randperm(len(rows), generator=generator)]
    of = index[rows, mode].long()
    order = torch.argsort(of, stable=True)
    rows, of = rows[order], of[order]
    start = torch.searchsorted(of, of)
    held = torch.arange(len(of)) - start >= few
    return rows[held], of[held]
