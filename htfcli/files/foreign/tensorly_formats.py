"""Factorizations as tensors of tensorly and back: CP, Tucker and tensor trains.

With dense cores, a factorization on the star tree is a Tucker tensor, and one on a chain, `[[[0, 1], 2], 3]`, a tensor
train, whose cores are those of the nodes times the matrices of their modes.

A hierarchical tensor factorization on the star tree is a CP tensor. On the star of single-child nodes,
`[[0], [1], [2]]`, it is a Tucker tensor whose core is itself a CP tensor. On a chain it is a tensor train with cores
G_k[r, i, s] = W^(k)[i, r] W^(v)[r, s], v the node above the first k + 1 modes. All conversions are exact.

tensorly is imported only here, when one of these functions is called; arrays are of its current backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from htfcli.engine.factorizations.dense_cores import TensorTrainFactorization, TuckerFactorization
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree, Nested
from htfcli.engine.ranks.distance import collapsed
from htfcli.errors import ConfigError, DataError


def to_tensorly(factorization: Factorization) -> Any:
    """The factorization as a CPTensor, TuckerTensor or TTTensor, whichever its mode tree is.

    Raises:
        ConfigError: if the tree is none of theirs. DataError: if tensorly is not installed.
    """
    tl = _tensorly()
    if factorization.dense_cores:
        return _with_cores(tl, collapsed(factorization.to(torch.float64, "cpu")))
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
    raise _none_of_theirs(tree)


def _with_cores(tl: Any, model: Factorization) -> Any:
    """The Tucker tensor or tensor train that a factorization with dense cores is."""
    tree, order = model.tree.to_nested(), model.order
    leaves = [_known(weight) for weight in model.node_weights[:order]]
    if tree == list(range(order)):
        core = model.core(model.tree.root).squeeze(-1)
        return tl.tucker_tensor.TuckerTensor((_of(tl, core), [_of(tl, leaf) for leaf in leaves]))
    modes = list(range(order))
    if tree not in (_chain(modes), _chain([1, 0, *modes[2:]])):
        raise _none_of_theirs(tree)
    cores, left = [leaves[0].unsqueeze(0)], 0
    for mode in modes[1:]:
        node = model.tree.parent[mode]
        core = model.core(node).movedim(model.tree.children[node].index(left), 0)
        cores.append(torch.einsum("qrs,ir->qis", core, leaves[mode]))
        left = node
    return tl.tt_tensor.TTTensor([_of(tl, core) for core in cores])


def _none_of_theirs(tree: Nested | list[Nested]) -> ConfigError:
    return ConfigError(
        "the mode tree is none of a tensor of tensorly",
        got=tree,
        allowed="a star (CP), [[0], [1], ...] (Tucker), a chain of modes in order (tensor train)",
        next_step="complete(..., tree='star') or tree='chain' fits one of these.",
    )


def from_tensorly(tensor: Any) -> Factorization:
    """A CPTensor, TuckerTensor or TTTensor as a factorization of the same tensor and of the same ranks.

    A CP tensor becomes a hierarchical tensor factorization of its rank on a star, a Tucker tensor one with the same
    dense core. In a tensor train, the cores become those of a chain, and the matrices of all modes but the first are
    identities.

    Raises:
        DataError: if it is something else.
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


def _from_cp(tl: Any, tensor: Any) -> Factorization:
    weights, factors = tensor
    found = [_torch(tl, factor) for factor in factors]
    width = found[0].shape[1]
    root = torch.ones(width, dtype=torch.float64) if weights is None else _torch(tl, weights)
    tree = ModeTree.named("star", len(found))
    model = HierarchicalTensorFactorization([len(f) for f in found], width, tree)
    return model.load(dict(zip(tree.labels, [*found, root.reshape(width, 1)], strict=True)))


def _from_tucker(tl: Any, tensor: Any) -> Factorization:
    core, factors = _torch(tl, tensor[0]), [_torch(tl, factor) for factor in tensor[1]]
    return _made(TuckerFactorization, factors, [core])


def _from_train(tl: Any, tensor: Any) -> Factorization:
    cores = [_torch(tl, core) for core in tensor.factors]
    if len(cores) < 2 or cores[0].shape[0] != 1 or cores[-1].shape[2] != 1:
        raise DataError("a tensor train has two cores or more, and ranks one at both ends", got=tuple(tensor.rank))
    identities = [torch.eye(core.shape[1], dtype=torch.float64) for core in cores[1:]]
    cores[-1] = cores[-1].squeeze(2)
    return _made(TensorTrainFactorization, [cores[0].squeeze(0), *identities], cores[1:])


def _made(
    kind: type[TuckerFactorization | TensorTrainFactorization], leaves: Sequence[Tensor], cores: Sequence[Tensor]
) -> Factorization:
    """The factorization with the given matrices and cores, in node order."""
    dims = [len(leaf) for leaf in leaves]
    labels = ModeTree.named("star" if kind is TuckerFactorization else "chain", len(dims)).labels
    widths = [weight.shape[-1] for weight in (*leaves, *cores[:-1])]  # the last core is the root's
    model = kind(dims, dict(zip(labels[:-1], widths, strict=True)))
    return model.load(dict(zip(labels, [*leaves, *cores], strict=True)))


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
