"""Factorizations as tensors of tensorly and back: CP, Tucker and tensor trains are hierarchical factorizations.

A CP tensor is one on the star tree. On the star of single-child nodes, `[[0], [1], [2]]`, it is a Tucker tensor whose
core is itself a CP tensor. On a chain, `[[[0, 1], 2], 3]`, it is a tensor train with cores
G_k[r, i, s] = W^(k)[i, r] W^(v)[r, s], v the node above the first k + 1 modes. All conversions are exact.

tensorly is imported only here, when one of these functions is called; arrays are of its current backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree, Nested
from htfcli.errors import ConfigError, DataError

_MOST_WEIGHTS = 2**27  # of a factorization made from a Tucker core or a train: 1 GiB


def to_tensorly(factorization: Factorization) -> Any:
    """The factorization as a CPTensor, TuckerTensor or TTTensor, whichever its mode tree is.

    Raises:
        ConfigError: if the tree is none of theirs. DataError: if tensorly is not installed.
    """
    tl = _tensorly()
    tree = factorization.tree.to_nested()
    weights = [None if w is None else w.detach().double().cpu() for w in factorization.node_weights]
    order, inner = factorization.order, factorization.tree
    root = weights[inner.root]
    if root is None:
        root = torch.ones(factorization.widths[inner.root], 1, dtype=torch.float64)
    if tree == list(range(order)):
        factors = [_of(tl, weights[mode]) for mode in range(order)]
        return tl.cp_tensor.CPTensor((_of(tl, root[:, 0]), factors))
    if tree == [[mode] for mode in range(order)]:
        parents = [inner.parent[mode] for mode in range(order)]
        core = _cp_core(root[:, 0], [_known(weights[node]) for node in parents])
        return tl.tucker_tensor.TuckerTensor((_of(tl, core), [_of(tl, weights[mode]) for mode in range(order)]))
    for modes in (list(range(order)), list(range(order))[::-1]):
        if tree in (_chain(modes), _chain([modes[1], modes[0], *modes[2:]])):
            cores = _train(factorization.tree, weights, root, modes)
            if modes[0] > 0:
                cores = [core.permute(2, 1, 0) for core in cores[::-1]]
            return tl.tt_tensor.TTTensor([_of(tl, core) for core in cores])
    raise ConfigError(
        "the mode tree is none of a tensor of tensorly",
        got=tree,
        allowed="a star (CP), [[0], [1], ...] (Tucker), a chain of modes in order (tensor train)",
        next_step="complete(..., tree='star') or tree='chain' fits one of these.",
    )


def from_tensorly(tensor: Any) -> HierarchicalTensorFactorization:
    """A CPTensor, TuckerTensor or TTTensor as a hierarchical tensor factorization of the same tensor.

    A CP tensor of rank R has width R. A Tucker core (r_0, ..., r_{N-1}) is written as a sum of the products of all its
    modes but the largest, so the root has that many components; a core of a train (r, d, s) takes r * s.

    Raises:
        DataError: if it is something else, or too large.
    """
    tl = _tensorly()
    kinds = {
        tl.cp_tensor.CPTensor: _from_cp,
        tl.tucker_tensor.TuckerTensor: _from_tucker,
        tl.tt_tensor.TTTensor: _from_train,
    }
    make = next((make for kind, make in kinds.items() if isinstance(tensor, kind)), None)
    if make is None:
        raise DataError(
            "this is no tensor of tensorly in one of the formats that are mode trees",
            got=type(tensor).__name__,
            allowed="CPTensor, TuckerTensor, TTTensor",
        )
    return make(tl, tensor)


def _from_cp(tl: Any, tensor: Any) -> HierarchicalTensorFactorization:
    weights, factors = tensor
    found = [_torch(tl, factor) for factor in factors]
    width = found[0].shape[1]
    root = torch.ones(width, dtype=torch.float64) if weights is None else _torch(tl, weights)
    return _made([len(f) for f in found], list(range(len(found))), [*found, root.reshape(width, 1)])


def _from_tucker(tl: Any, tensor: Any) -> HierarchicalTensorFactorization:
    core, factors = _torch(tl, tensor[0]), [_torch(tl, factor) for factor in tensor[1]]
    order = core.dim()
    free = max(range(order), key=lambda mode: core.shape[mode])
    others = [mode for mode in range(order) if mode != free]
    sizes = [core.shape[mode] for mode in others]
    terms = math.prod(sizes)
    _refuse_large(sum(core.shape) * terms)
    at = torch.unravel_index(torch.arange(terms), tuple(sizes))
    inner: dict[int, Tensor] = {free: core.movedim(free, 0).reshape(core.shape[free], terms)}
    for mode, index in zip(others, at, strict=True):
        inner[mode] = torch.nn.functional.one_hot(index, core.shape[mode]).double().t()
    weights = [*factors, *(inner[mode] for mode in range(order)), torch.ones(terms, 1, dtype=torch.float64)]
    return _made([len(f) for f in factors], [[mode] for mode in range(order)], weights)


def _from_train(tl: Any, tensor: Any) -> HierarchicalTensorFactorization:
    cores = [_torch(tl, core) for core in tensor.factors]
    order = len(cores)
    if order < 2 or cores[0].shape[0] != 1 or cores[-1].shape[2] != 1:
        raise DataError("a tensor train has two cores or more, and ranks one at both ends", got=tuple(tensor.rank))
    _refuse_large(sum(a.shape[2] * b.shape[2] * b.shape[1] for a, b in pairwise(cores)))
    leaves, nodes = [], []
    left, _, right = cores[1].shape
    leaves.append(cores[0][0].repeat_interleave(right, 1))  # (d_0, r s): component (r, s)
    for number, core in enumerate(cores[1:], 1):
        left, size, right = core.shape
        leaves.append(core.permute(1, 0, 2).reshape(size, left * right))
        summed = torch.eye(right, dtype=torch.float64).repeat(left, 1)  # (r s, s'): adds up over r
        further = cores[number + 1].shape[2] if number + 1 < order else 1
        nodes.append(summed.repeat_interleave(further, 1) if number + 1 < order else summed)
    return _made([core.shape[1] for core in cores], _chain(list(range(order))), [*leaves, *nodes])


def _made(dims: Sequence[int], tree: Nested, weights: Sequence[Tensor]) -> HierarchicalTensorFactorization:
    """The factorization with given matrices in node order."""
    shape = ModeTree.from_nested(tree)
    widths = {node: weights[node].shape[0] for node in shape.interior}
    model = HierarchicalTensorFactorization.blank(dims, shape, widths)
    assert isinstance(model, HierarchicalTensorFactorization)
    return model.load(dict(zip(shape.labels, weights, strict=True)))


def _train(tree: ModeTree, weights: Sequence[Tensor | None], root: Tensor, modes: Sequence[int]) -> list[Tensor]:
    """Cores (r, d, s) of a chain, in the order of its modes."""
    cores = [_known(weights[modes[0]]).unsqueeze(0)]
    for number, mode in enumerate(modes[1:], 1):
        node = tree.find(modes[: number + 1])
        assert node is not None
        above = root if node == tree.root else _known(weights[node])
        cores.append(torch.einsum("ir,rs->ris", _known(weights[mode]), above))
    return cores


def _chain(modes: Sequence[int]) -> list[Nested]:
    nested: list[Nested] = [modes[0], modes[1]]
    for mode in modes[2:]:
        nested = [nested, mode]
    return nested


def _cp_core(root: Tensor, inner: Sequence[Tensor]) -> Tensor:
    """The core sum over r of root[r] times the outer product of the columns r of (r_k, R)."""
    core = root.unsqueeze(0)  # (entries so far, R)
    for matrix in inner:
        core = (core.unsqueeze(1) * matrix.unsqueeze(0)).flatten(0, 1)
    return core.sum(1).view([len(matrix) for matrix in inner])


def _known(weight: Tensor | None) -> Tensor:
    assert weight is not None
    return weight


def _refuse_large(count: int) -> None:
    if count > _MOST_WEIGHTS:
        raise DataError(
            "the factorization would be too large", got=f"{count:.3g} weights", allowed=f"{_MOST_WEIGHTS:.3g}"
        )


def _of(tl: Any, values: Tensor | None) -> Any:
    return tl.tensor(_known(values).numpy())


def _torch(tl: Any, values: Any) -> Tensor:
    return torch.from_numpy(np.array(tl.to_numpy(values), dtype=np.float64))


def _tensorly() -> Any:
    try:
        import tensorly
    except ImportError:
        raise DataError("tensors of tensorly need tensorly", next_step="pip install tensorly.") from None
    return tensorly
