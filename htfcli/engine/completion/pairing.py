"""A mode tree from the data: which modes change each other's influence most.

How a value depends on a mode of a hierarchical tensor is changed most by the mode's sibling, less by modes farther away
in the tree. It is measured twice. From observed entries: the interaction of two modes in the analysis of variance of
the ranks of |value| (sums of centred products have no means that show it, but sizes), effects of single modes taken
away. From a model that is roughly right on another tree: the log-determinant of the matricization of two modes.
Sources: Searle, Casella and McCulloch, "Variance Components" (1992); Lake, "Reconstructing evolutionary trees from DNA
and protein sequences: paralinear distances" (1994), whose distance is additive along a tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from htfcli.engine.completion.effects import cell_of, fit_effects, main_terms
from htfcli.engine.factorizations.mode_tree import ModeTree, Nested
from htfcli.engine.samples import Entries


def proposed_tree(entries: Entries, dims: Sequence[int]) -> ModeTree | None:
    """The binary tree whose siblings interact most; None if no two modes are seen to interact."""
    share, deviation = interactions(entries, dims)
    if not bool((share > 6 * deviation).any()):  # the largest of 120 random ones may reach 4 deviations
        return None
    return merged(torch.maximum(share, deviation.clamp_min(1e-300)).log())


def tree_of_values(values: Callable[[Tensor], Tensor], dims: Sequence[int], error: float) -> ModeTree:
    """The binary tree of a tensor whose values (n,) at entries (n, N) can be asked for, to a relative error.

    With V(s) = sum over j of log(s_j^2 + floor^2) / 2 of the singular values of a matricization, norm one, and r_i the
    number of those of mode i above the floor, the closeness of two modes is r_j V_i + r_i V_j - V_ij: all that is
    within the modes themselves cancels. Matricizations are sampled at 16 indices of each mode of the rows.
    """
    generator = torch.Generator().manual_seed(0)
    columns = torch.stack([torch.randint(d, (128,), generator=generator) for d in dims], 1)
    floor = (0.15 * error) ** 2  # G's trees are found from .1 to .2

    def spectrum(modes: tuple[int, ...]) -> Tensor:
        rows = torch.cartesian_prod(*(torch.randperm(dims[m], generator=generator)[:16] for m in modes))
        index = columns.repeat(len(rows), 1, 1)
        index[:, :, list(modes)] = rows.view(len(rows), 1, len(modes))
        found: Tensor = torch.linalg.svdvals(values(index.flatten(0, 1)).view(len(rows), -1)).square()
        return found / float(found.sum().clamp_min(1e-300))

    single = [spectrum((mode,)) for mode in range(len(dims))]
    rank = [int((s > floor).sum()) for s in single]
    volume = [float((s + floor).log()[:r].sum()) / 2 for s, r in zip(single, rank, strict=True)]
    closeness = torch.zeros(len(dims), len(dims), dtype=torch.float64)
    for i, j in combinations(range(len(dims)), 2):
        both = float((spectrum((i, j)) + floor).log()[: rank[i] * rank[j]].sum()) / 2
        closeness[i, j] = closeness[j, i] = rank[j] * volume[i] + rank[i] * volume[j] - both
    return merged(closeness)


def merged(closeness: Tensor) -> ModeTree:
    """Blocks of modes, single ones at first, merged two by two, so that the sum over the merged of their mean closeness
    (N, N) is large; what a mode adds to its closeness to all others counts the same for every pairing."""
    blocks: list[tuple[list[int], Nested]] = [([mode], mode) for mode in range(len(closeness))]
    while len(blocks) > 1:
        mean = torch.tensor([[float(closeness[a][:, b].mean()) for b, _ in blocks] for a, _ in blocks])
        taken = [[blocks[one] for one in pair] for pair in paired(mean)]
        joint = [pair[0] if len(pair) == 1 else (pair[0][0] + pair[1][0], [pair[0][1], pair[1][1]]) for pair in taken]
        blocks = sorted(joint, key=lambda block: min(block[0]))
    return ModeTree.from_nested(blocks[0][1])


def interactions(entries: Entries, dims: Sequence[int], most: int = 100_000) -> tuple[Tensor, Tensor]:
    """Of every two modes, the share of the variance that their interaction explains, and what it would deviate from
    zero by if there were none; both (N, N) symmetric.

    With S_t the sum of squares between the k_t cells of t that were seen, of ranks of |value| less main effects, the
    interaction of modes i and j has the sum of squares S_ij - S_i - S_j with f = k_ij - k_i - k_j + 1 degrees of
    freedom, of which noise of variance s^2 (that within the cells of i and j) takes f s^2 with a standard deviation of
    sqrt(2 f) s^2. Of `most` observations, interactions of 1e-3 of the variance are ten deviations; more are not used.
    """
    step = math.ceil(len(entries) / most)
    index = entries.index[::step]
    rank = entries.value[::step].abs().argsort().argsort().double()
    effects = fit_effects(Entries(index, rank), dims, main_terms(len(dims)), None, sweeps=4)  # nearly orthogonal ones
    left = rank - effects.at(index)
    left = (left - left.mean()) / left.std().clamp_min(1e-300)
    count = len(left)

    def between(term: tuple[int, ...]) -> tuple[float, int]:
        cell = cell_of(index, term, dims)
        cell = torch.unique(cell, return_inverse=True)[1] if math.prod(dims[m] for m in term) > count else cell
        seen = torch.bincount(cell)
        sums = torch.bincount(cell, left)
        return float((sums.square() / seen.clamp_min(1)).sum()), int((seen > 0).sum())

    single = [between((mode,)) for mode in range(len(dims))]
    share, deviation = torch.zeros(2, len(dims), len(dims), dtype=torch.float64)
    for i, j in combinations(range(len(dims)), 2):
        squares, cells = between((i, j))
        free = cells - single[i][1] - single[j][1] + 1
        if free > 0 and cells < count:
            noise = (count - squares) / (count - cells)
            share[i, j] = share[j, i] = (squares - single[i][0] - single[j][0] - free * noise) / count
            deviation[i, j] = deviation[j, i] = math.sqrt(2 * free) * noise / count
    return share, deviation


def paired(weight: Tensor) -> list[tuple[int, ...]]:
    """Numbers below n in pairs, and one alone if n is odd, of large summed weight (n, n): the heaviest pair first, then
    exchanges of two numbers as long as one helps."""
    count = len(weight)
    pairs = sorted(combinations(range(count), 2), key=lambda pair: -float(weight[pair]))
    row: list[int] = []
    for pair in pairs:
        if not set(pair) & set(row):
            row += pair
    row += sorted(set(range(count)) - set(row))

    def total(row: list[int]) -> float:
        return sum(float(weight[a, b]) for a, b in zip(row[::2], row[1::2], strict=False))

    best, better = total(row), True
    while better:
        better = False
        for a, b in combinations(range(count), 2):
            other = row.copy()
            other[a], other[b] = row[b], row[a]
            now = total(other)
            if now > best + 1e-9:
                row, best, better = other, now, True
    return [tuple(sorted(row[k : k + 2])) for k in range(0, count, 2)]
