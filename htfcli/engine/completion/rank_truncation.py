"""A factorization brought to its own ranks: as many components as its tensor needs, not as it happens to have.

Leaving out the weakest of too many components changes the tensor, as they overlap. Here the matricizations are cut
off instead (a hierarchical singular value decomposition), which changes it by no more than what is cut off; then the
small tensor that joins the frames at every node is written as a sum of as few products as it takes. Where a narrow
exact solution exists, a wide model that is close to it leads there.

Source: Grasedyck, Hierarchical singular value decomposition of tensors, SIAM J. Matrix Anal. Appl. 31 (2010).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.least_squares.levenberg_marquardt import LevenbergMarquardt
from htfcli.engine.ranks.orthonormal_bases import OrthonormalBases
from htfcli.engine.samples import Entries, unravel

_CORE_LIMIT = 4096  # entries of the tensor at one node; a star tree of many modes would have R^N


@torch.no_grad()
def reduced(model: Factorization, tolerance: float, generator: torch.Generator) -> Factorization | None:
    """A model of nearly the same tensor, with the widths that its ranks ask for.

    Args:
        model: any kind with output weights. tolerance: singular values under this times the largest of their
        matricization are cut off. generator: for the starts of the small decompositions.
    Returns: a new model, its widths not above the given one's; None where a node has too many children.
    """
    here, tree = model.to(device="cpu"), model.tree  # many small decompositions
    if here.node_weights[tree.root] is None:
        return None
    bases = OrthonormalBases(here, leaves=True)
    for node in tree.interior:
        wide = 1 if node == tree.root else here.widths[tree.parent[node]]
        if math.prod(bases.dimension(child) for child in tree.children[node]) * wide > _CORE_LIMIT:
            return None
    cores = [bases.over_children(node) for node in range(len(tree.children))]

    one = torch.ones(1, 1, dtype=here.parameters.dtype)
    frame, scale = {tree.root: one}, {tree.root: one[0]}  # (k, r) in the basis, (r,) singular values over the largest
    spread = {tree.root: one}  # (k, ...): what the rest of the tensor makes of a node's basis
    for node in reversed(tree.interior):
        core = cores[node] @ spread[node]
        for place, child in enumerate(tree.children[node]):
            u, values, _ = torch.linalg.svd(core.movedim(place, 0).flatten(1), full_matrices=False)
            rank = max(1, int((values > tolerance * values[0]).sum()))
            frame[child], scale[child] = u[:, :rank], values[:rank] / values[0]
            spread[child] = u * values

    parts: dict[int, list[Tensor]] = {}  # per node: its children's (r_c, R_v), and its own (r_v, R_v)
    for node in tree.interior:
        core = cores[node] @ (frame[node] * scale[node])  # so that what matters most is fitted best
        for place, child in enumerate(tree.children[node]):
            core = torch.tensordot(frame[child], core, dims=([0], [place])).movedim(0, place)
        parts[node] = _components(core, model.widths[node], tolerance, generator)
    widths = {node: part[-1].shape[1] for node, part in parts.items()}
    narrow = type(here).blank(here.dims, tree, widths, dtype=here.parameters.dtype)
    for node, target in enumerate(narrow.node_weights):
        assert target is not None
        own = cores[node] @ frame[node] if node < tree.order else (parts[node][-1] / scale[node].unsqueeze(1)).t()
        parent = tree.parent[node]
        target.copy_(own if parent < 0 else own @ parts[parent][tree.children[parent].index(node)])
    return narrow.to(device=model.parameters.device)


def _components(core: Tensor, most: int, tolerance: float, generator: torch.Generator) -> list[Tensor]:
    """Factors (r, R) of a core's axes, the sum of products of whose columns is the core; R as small as will do."""
    long = [axis for axis, size in enumerate(core.shape) if size > 1]
    if len(long) <= 2:
        return _of_matrix(core, [*long, *(axis for axis in range(core.dim()) if axis not in long)][:2], most)
    norm = float(torch.linalg.vector_norm(core))
    entries = Entries(unravel(torch.arange(core.numel()), core.shape), core.flatten() / norm)
    best, lowest = list[Tensor](), math.inf
    for width in range(min(most, max(core.shape)), most + 1):
        for _ in range(3):  # one start ends in a local minimum now and then
            small = HierarchicalTensorFactorization(core.shape, width, ModeTree.named("star", core.dim()))
            small.init_gaussian(1.0, generator)
            solver = LevenbergMarquardt(small, entries, ridge=1e-10)  # against components that cancel
            solver.run(40, tolerance=(0.1 * tolerance) ** 2)
            if solver.loss < lowest:
                weights = [w for w in small.node_weights if w is not None]
                best, lowest = [*weights[:-2], norm * weights[-2] * weights[-1].t()], solver.loss
            if math.sqrt(lowest) < 3 * tolerance:  # what was cut off at the three nodes of a core
                return best
    return best


def _of_matrix(core: Tensor, axes: list[int], most: int) -> list[Tensor]:
    """The same for a core with at most two axes longer than one: singular vectors."""
    u, values, v = torch.linalg.svd(core.reshape([core.shape[axis] for axis in axes]), full_matrices=False)
    rank = min(most, len(values))
    factors = [core.new_ones(size, rank) for size in core.shape]
    factors[axes[0]], factors[axes[1]] = u[:, :rank], v[:rank].t() * values[:rank]
    return factors
