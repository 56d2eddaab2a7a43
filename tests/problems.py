"""Problems with known answers, and slow independent references that the engine is compared with."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.dense_cores import HierarchicalTuckerFactorization
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.samples import Entries, MatrixMeasurements, RankOneMeasurements, Sample

GOLDEN = Path(__file__).parent / "golden"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reference_tensor(model: Factorization, weights: list[Tensor | None]) -> Tensor:
    """The tensor by its definition: outer products summed over components, axes put in order at the end.

    Built from differentiable operations on the whole tensors, entry tables and merging play no part in it. With dense
    cores, the components of a node are all combinations of its children's columns.
    """
    tree = model.tree
    built: dict[int, tuple[Tensor, list[int]]] = {}  # T^(v, .) as (d..., R_parent), and the modes of its axes
    for node, children in enumerate(tree.children):
        weight = weights[node]
        if not children:
            assert weight is not None
            built[node] = (weight, [node])
            continue
        product, modes = built[children[0]]
        for child in children[1:]:
            other, more = built[child]
            if model.dense_cores:
                product = torch.tensordot(product.unsqueeze(-1), other.unsqueeze(-1), dims=([-1], [-1]))
                columns = len(modes)  # the axis of the columns so far, now between both tensors' modes
                product = product.movedim(columns, -2).flatten(-2)
            else:
                product = product.reshape(*product.shape[:-1], *[1] * len(more), product.shape[-1]) * other
            modes = modes + more
        built[node] = (product.sum(-1, keepdim=True) if weight is None else product @ weight, modes)
    tensor, modes = built[tree.root]
    return tensor.squeeze(-1).permute(*[modes.index(m) for m in range(tree.order)])


def reference_values(tensor: Tensor, sample: Sample) -> Tensor:
    """What a sample observes of a dense tensor, differentiable."""
    if isinstance(sample, Entries):
        return tensor[sample.index.unbind(1)]
    if isinstance(sample, MatrixMeasurements):
        return torch.einsum("nij,ij->n", sample.matrices, tensor)
    letters = "abcdefghij"[: tensor.dim()]
    return torch.einsum(f"{letters},{','.join('n' + a for a in letters)}->n", tensor, *sample.vectors)


def random_sample(kind: str, dims: tuple[int, ...], count: int, seed: int) -> Sample:
    g = generator(seed)
    value = torch.randn(count, generator=g, dtype=torch.float64)
    if kind == "entries":
        total = int(np.prod(dims))
        position = torch.randperm(total, generator=g)[:count]
        return Entries(torch.stack(torch.unravel_index(position, dims), 1), value[: len(position)])
    if kind == "matrices":
        return MatrixMeasurements(torch.randn(count, *dims, generator=g, dtype=torch.float64), value)
    return RankOneMeasurements(tuple(torch.randn(count, d, generator=g, dtype=torch.float64) for d in dims), value)


@st.composite
def nested_trees(draw: st.DrawFn, max_order: int = 5) -> list:
    """Any mode tree: random grouping of shuffled modes, single-child nodes and star nodes included."""
    nodes: list = list(draw(st.permutations(range(draw(st.integers(2, max_order))))))
    while len(nodes) > 1:
        size = draw(st.integers(2, len(nodes)))
        group = [[node] if draw(st.integers(0, 3)) == 3 else node for node in nodes[:size]]
        nodes = [*nodes[size:], group]
    return [nodes[0]] if draw(st.integers(0, 7)) == 7 else nodes[0]  # sometimes a root with a single child


@st.composite
def factorizations(draw: st.DrawFn, max_order: int = 5) -> Factorization:
    """Small random factorizations of all kinds, float64, with Gaussian weights."""
    seed = draw(st.integers(0, 2**16))
    kind = draw(st.sampled_from(["htf", "htf", "cp", "matrix", "hierarchical-tucker", "hierarchical-tucker"]))
    if kind == "matrix":
        dims = [draw(st.integers(1, 5)) for _ in range(2)]
        depth = draw(st.integers(2, 4))
        model: Factorization = MatrixFactorization(dims, depth, [draw(st.integers(1, 4)) for _ in range(depth - 1)])
    elif kind == "cp":
        dims = [draw(st.integers(1, 4)) for _ in range(draw(st.integers(2, max_order)))]
        model = CPFactorization(dims, draw(st.integers(1, 4)))
    elif kind == "hierarchical-tucker":
        tree = ModeTree.from_nested(draw(nested_trees(max_order)))
        dims = [draw(st.integers(1, 4)) for _ in range(tree.order)]
        widths = {tree.labels[v]: draw(st.integers(1, 3)) for v in range(tree.root)}
        model = HierarchicalTuckerFactorization(dims, widths, tree)
    else:
        tree = ModeTree.from_nested(draw(nested_trees(max_order)))
        dims = [draw(st.integers(1, 4)) for _ in range(tree.order)]
        widths = {tree.labels[v]: draw(st.integers(1, 4)) for v in tree.interior}
        model = HierarchicalTensorFactorization(dims, widths, tree)
    return model.init_gaussian(1.0, generator(seed))


# --- golden files -----------------------------------------------------------------------------------------------------


def golden_htf(name: str, moment: str) -> HierarchicalTensorFactorization:
    """The factorization stored in a golden file under `init`, `final` or `grad0`."""
    data = np.load(GOLDEN / name)
    levels = json.loads(str(data["mode_tree_json"]))
    nested: dict[tuple[int, ...], object] = {(n,): n for (n,) in levels[0]}
    for below, level in pairwise(levels):
        for node in level:
            nested[tuple(node)] = [nested[tuple(c)] for c in below if set(c) <= set(node)]
    tree = ModeTree.from_nested(nested[tuple(levels[-1][0])])
    weights = {}
    for height, level in enumerate(levels):
        for position, node in enumerate(level):
            last = height == len(levels) - 1
            key = f"{moment}/output" if last else f"{moment}/layer{height}_factor{position}"
            weights[tree.labels[tree.find(node)]] = torch.from_numpy(data[key])
    widths = {tree.labels[v]: len(weights[tree.labels[v]]) for v in tree.interior}
    return HierarchicalTensorFactorization(data["dims"].tolist(), widths, tree).load(weights)


def golden_cp(moment: str) -> CPFactorization:
    data = np.load(GOLDEN / "cp_order3.npz")
    weights = {f"factor{n}": torch.from_numpy(data[f"{moment}/factor{n}"]) for n in range(3)}
    return CPFactorization(data["dims"].tolist(), weights["factor0"].shape[1]).load(weights)


def golden_matrix(moment: str) -> MatrixFactorization:
    data = np.load(GOLDEN / "mf_depth3.npz")
    weights = {f"layer{k}": torch.from_numpy(data[f"{moment}/layer{k}"]) for k in range(3)}
    return MatrixFactorization((6, 6), 3, 6).load(weights)


def golden_entries(name: str) -> Entries:
    data = np.load(GOLDEN / name)
    return Entries(torch.from_numpy(data["observed_index"]).long(), torch.from_numpy(data["observed_value"]))
