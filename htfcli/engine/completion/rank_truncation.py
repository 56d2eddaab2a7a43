"""A factorization brought to its own ranks: as many components as its tensor needs, not as it happens to have.

Leaving out the weakest of too many components changes the tensor, as they overlap. Here the matricizations are cut
off instead (a hierarchical singular value decomposition), which changes it by no more than what is cut off; then the
small tensor that joins the frames at every node is written as a sum of as few products as it takes. Where a narrow
exact solution exists, a wide model that is close to it leads there.

Source: Grasedyck, Hierarchical singular value decomposition of tensors, SIAM J. Matrix Anal. Appl. 31 (2010).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares.levenberg_marquardt import LevenbergMarquardt
from htfcli.engine.ranks.orthonormal_bases import OrthonormalBases
from htfcli.engine.samples import Entries, unravel

CORE_LIMIT = 4096  # entries of the tensor at one node; a star tree of many modes would have R^N
DENSE_LIMIT = 2**18  # entries of a tensor that is written out to see it on other trees
_SIMILAR = 4  # numbers that a tensor takes on a tree, over the fewest on any, up to which its cores are decomposed
_NEAR = 10.0  # what writing a tensor on another tree may change, over the tolerance
_STARTS = 3  # of the decomposition at a node
_STEPS = 40
_ACCEPTED = 3.0  # a core's relative residual over the tolerance, under which its width is enough


@torch.no_grad()
def reduced(model: Factorization, tolerance: float, generator: torch.Generator) -> Factorization | None:
    """A model of nearly the same tensor, with the widths that its ranks ask for.

    Args:
        model: any kind with output weights. tolerance: singular values under this times the largest of their
        matricization are cut off. generator: for the starts of the small decompositions.
    Returns: a new model, its widths not above the given one's; None where a node has too many children.
    """
    here = model.to(device="cpu")  # many small decompositions
    frames = None if here.node_weights[model.tree.root] is None else _frames_of_model(here, tolerance)
    if frames is None:
        return None
    return _joined(frames, here, model.widths, tolerance, generator).to(device=model.parameters.device)


@dataclass
class _Frames:
    """Orthonormal frames of the leading singular vectors at every node, and the core tensors between them.

    Args:
        leaves: per leaf (d, r). cores: per interior node (r_c for each child, r_v), the last axis 1 at the root.
        scales: (r_v,), singular values over the largest, by which the last axis of a core is multiplied, so that what
        matters most is fitted best.
    """

    tree: ModeTree
    leaves: dict[int, Tensor] = field(default_factory=dict)
    cores: dict[int, Tensor] = field(default_factory=dict)
    scales: dict[int, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Numbers that the tensor takes."""
        return sum(part.numel() for part in [*self.leaves.values(), *self.cores.values()])


def _joined(
    frames: _Frames, like: Factorization, most: Mapping[int, int], tolerance: float, generator: torch.Generator
) -> Factorization:
    """The model of a tensor in its frames, every core a sum of at most `most` products."""
    tree = frames.tree
    parts: dict[int, list[Tensor]] = {}  # per node: its children's (r_c, R_v), and its own (r_v, R_v)
    for node in tree.interior:
        parts[node] = _components(frames.cores[node], most[node], tolerance, generator)
    widths = {v: parts[v][-1].shape[1] for v in tree.interior}
    narrow = type(like).blank(like.dims, tree, widths, dtype=like.parameters.dtype)
    for node, target in enumerate(narrow.node_weights):
        assert target is not None
        parent = tree.parent[node]
        across = None if parent < 0 else parts[parent][tree.children[parent].index(node)]
        own = frames.leaves[node] if node < tree.order else (parts[node][-1] / frames.scales[node].unsqueeze(1)).t()
        target.copy_(own if across is None else own @ across)
    return narrow


def _within(columns: Tensor, bases: list[Tensor]) -> Tensor:
    """Columns (d_1 d_2 ..., r) in the bases (d_k, r_k) of their parts: (r_1, r_2, ..., r)."""
    core = columns.reshape(*(base.shape[0] for base in bases), -1)
    for place, base in enumerate(bases):
        core = torch.tensordot(base, core, dims=([0], [place])).movedim(0, place)
    return core


def _rank(values: Tensor, tolerance: float) -> int:
    return max(1, int((values > tolerance * values[0]).sum()))


def _frames_of_model(model: Factorization, tolerance: float) -> _Frames | None:
    """The same without the tensor, for the model's own tree: singular vectors in a basis at every node."""
    tree, bases = model.tree, OrthonormalBases(model, leaves=True)
    for node in tree.interior:
        weight = model.node_weights[node]
        assert weight is not None
        if math.prod(bases.dimension(child) for child in tree.children[node]) * weight.shape[1] > CORE_LIMIT:
            return None
    cores = [bases.over_children(node) for node in range(len(tree.children))]
    return _cut(tree, {node: core.flatten(0, -2) for node, core in enumerate(cores)}, tolerance)


def _cut(tree: ModeTree, bases: dict[int, Tensor], tolerance: float) -> _Frames:
    """Down the tree: the singular vectors of every child in its basis; then up: cores between the cut frames."""
    frames = _Frames(tree)
    spread = {tree.root: torch.ones(1, 1, dtype=bases[tree.root].dtype)}  # what the rest makes of a node's columns
    leading: dict[int, tuple[Tensor, Tensor]] = {}
    for node in reversed(tree.interior):
        children = tree.children[node]
        core = (bases[node] @ spread[node]).reshape(*(bases[c].shape[1] for c in children), -1)
        for place, child in enumerate(children):
            u, values, _ = torch.linalg.svd(core.movedim(place, 0).flatten(1), full_matrices=False)
            rank = _rank(values, tolerance)
            leading[child] = u[:, :rank], values[:rank]
            spread[child] = u * values
    for node, base in bases.items():
        if node < tree.order:
            frames.leaves[node] = base @ leading[node][0]
            continue
        u, values = leading.get(node, (spread[node], spread[node][0]))
        frames.scales[node] = values / values[0]
        core = _within(base, [leading[c][0] for c in tree.children[node]])
        frames.cores[node] = core @ (u * frames.scales[node])
    return frames


def _components(core: Tensor, most: int, tolerance: float, generator: torch.Generator) -> list[Tensor]:
    """Factors (r, R) of a core's axes, the sum of products of whose columns is the core; R as small as will do."""
    shape = core.shape
    least = min(most, max(shape))
    if sum(size > 1 for size in shape) <= 2:
        return _of_matrix(core, most)
    index = unravel(torch.arange(core.numel()), tuple(shape))
    norm = float(torch.linalg.vector_norm(core)) or 1.0
    entries = Entries(index, core.reshape(-1) / norm)
    best, lowest = [torch.zeros(0)], math.inf
    for width in range(least, most + 1):
        for _ in range(_STARTS):
            small = HierarchicalTensorFactorization(shape, width, ModeTree.named("star", len(shape)))
            small.init_gaussian(1.0, generator)
            solver = LevenbergMarquardt(small, entries, ridge=1e-10)
            solver.run(_STEPS, tolerance=(0.1 * tolerance) ** 2)
            if solver.loss < lowest:
                weights = [w for w in small.node_weights if w is not None]
                best, lowest = [*weights[:-2], norm * weights[-2] * weights[-1].t()], solver.loss
            if math.sqrt(lowest) < _ACCEPTED * tolerance:
                return best
    return best


def _of_matrix(core: Tensor, most: int) -> list[Tensor]:
    """The same for a core with at most two axes longer than one: singular vectors."""
    long = [axis for axis, size in enumerate(core.shape) if size > 1]
    first = long[0] if long else 0
    last = long[1] if len(long) > 1 else core.dim() - 1 if first != core.dim() - 1 else 0
    u, values, v = torch.linalg.svd(core.reshape(core.shape[first], core.shape[last]), full_matrices=False)
    rank = min(most, len(values))
    factors = [torch.ones(size, rank, dtype=core.dtype) for size in core.shape]
    factors[first], factors[last] = u[:, :rank], v[:rank].t() * values[:rank]
    return factors
