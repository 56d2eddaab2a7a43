"""Hierarchical tensor ranks: singular values of matricizations, from the tensor or from its factors.

The hierarchical tensor rank of W with respect to a mode tree is the tuple rank [[W]]_v over all nodes v but the root.
On a factorization the tensor is never built: a sweep up the tree writes the columns of every node in an orthonormal
basis (see `OrthonormalBases`), and a sweep down does the same with the rest of the tensor. This leaves a small matrix
C_v (k_v, m_v) with the singular values of [[W]]_v, which are accurate to machine precision relative to the largest.
Costs depend on widths and order, not on d^N.

Axes: `k` dimension of a basis, `m` that of the rest, `R` width, `d` mode dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from htfcli.config.tensors import DEFAULT_TOLERANCE
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.mode_tree import ModeTree, label_of
from htfcli.engine.ranks.matricization import (
    Spectrum,
    checked_modes,
    dense_spectrum,
    matricization_shape,
)
from htfcli.engine.ranks.orthonormal_bases import OrthonormalBases
from htfcli.errors import ConfigError, DataError

_JOINT_LIMIT = 2**26  # entries of an intermediate for a matricization outside the tree: 512 MiB, copied a few times


class FactoredSpectra:
    """Norm of a factorization and spectra of all nodes of its own mode tree, without building the tensor.

    Args:
        factorization: any kind, order and widths; computed in its dtype on its device. Its weights must not change
            while this object is in use.

    Attributes:
        log_norm: log of the Frobenius norm; -inf for the zero tensor.
    """

    @torch.no_grad()
    def __init__(self, factorization: Factorization) -> None:
        self._factorization = factorization
        self._bases = OrthonormalBases(factorization)
        norm = float(torch.linalg.vector_norm(self._bases.root.small.double()))
        self.log_norm = math.log(norm) + self._bases.log_scale if norm > 0 else -math.inf

    @torch.no_grad()
    def spectra(self) -> list[Spectrum]:
        """Spectra of all nodes of the mode tree, in node order, except those that hold all modes."""
        tree, dims, cores = self._factorization.tree, self._factorization.dims, self._cores

        def compute(node: int) -> Tensor:
            values: Tensor = torch.linalg.svdvals(cores[node])
            return values.double()

        scale = self._bases.log_scale
        return [
            Spectrum(tree.labels[v], tree.modes[v], matricization_shape(tree.modes[v], dims), values, scale)
            for v, values in _values_by_node(tree, compute)
        ]

    @cached_property
    def _cores(self) -> dict[int, Tensor]:
        """C of every node: the parent's C times its basis, with the side of the rest compressed."""
        cores: dict[int, Tensor] = {}
        todo = [(self._bases.root, self._bases.root.small)]  # m = 1
        while todo:
            part, core = todo.pop()  # core (k, m)
            if part.node is not None:
                cores[part.node] = core
            if not part.parts:
                continue
            spread = core if part.basis is None else part.basis.flatten(0, -2) @ core
            joint = spread.reshape(*(len(below.small) for below in part.parts), -1)  # (k of each part, m)
            for axis, below in enumerate(part.parts):
                todo.append((below, _compress(joint.movedim(axis, 0).flatten(1))))
        return cores


def _values_by_node(tree: ModeTree, compute: Callable[[int], Tensor]) -> Iterator[tuple[int, Tensor]]:
    """(node, singular values) of every node that does not hold all modes, in node order.

    Nodes with the same or complementary modes share their singular values, which are computed once.
    """
    known: dict[frozenset[int], Tensor] = {}
    everything = frozenset(range(tree.order))
    for node, modes in enumerate(tree.modes):
        if len(modes) == tree.order:
            continue
        side = frozenset(modes)
        if side not in known:
            known[side] = known[everything - side] = compute(node)
        yield node, known[side]


def _compress(core: Tensor) -> Tensor:
    """A (k, min(k, m)) matrix with the same left singular vectors and singular values as `core` (k, m)."""
    if core.shape[1] <= core.shape[0]:
        return core
    small: Tensor = torch.linalg.qr(core.t(), mode="r").R
    return small.t()


@torch.no_grad()
def factored_spectrum(factorization: Factorization, modes: Sequence[int]) -> Spectrum:
    """Spectrum of a matricization [[W]]_I that need not be in the mode tree, without building the tensor.

    The columns of every node are kept as matrices X[:, :, r] (a, b) between the modes of I under the node and the
    others, both sides compressed by QR. If the tree cuts I in many places, a and b grow towards their full size.

    Args:
        factorization: any kind. modes: the set I.
    Raises:
        DataError: if an intermediate has more than `_JOINT_LIMIT` entries.
    """
    rows = checked_modes(modes, factorization.order)
    tree, weights = factorization.tree, factorization.node_weights
    inside, log_scale = set(rows), 0.0
    built: dict[int, Tensor] = {}  # (a, b, R)
    for node, children in enumerate(tree.children):
        weight = weights[node]
        if not children:
            assert weight is not None
            joint = weight.unsqueeze(1) if node in inside else weight.unsqueeze(0)
        elif factorization.dense_cores:
            joint = _through_core(factorization.core(node), [built.pop(c) for c in children], rows)
        else:
            first, *others = (built.pop(c) for c in children)
            joint = first
            for other in others:
                _refuse_large(math.prod(joint.shape) * math.prod(other.shape[:2]), rows)
                a, b, width = joint.shape
                c, d, _ = other.shape
                joint = torch.einsum("abr,cdr->acbdr", joint, other).reshape(a * c, b * d, width)
            joint = joint.sum(2, keepdim=True) if weight is None else torch.matmul(joint, weight)
        joint = _compress_side(joint)
        joint = _compress_side(joint.transpose(0, 1)).transpose(0, 1)
        largest = float(joint.abs().max())
        if 0 < largest < math.inf:
            log_scale += math.log(largest)
            joint = joint / largest
        built[node] = joint
    values = torch.linalg.svdvals(built[tree.root].squeeze(2)).double()
    return Spectrum(label_of(rows), rows, matricization_shape(rows, factorization.dims), values, log_scale)


def _through_core(core: Tensor, children: Sequence[Tensor], modes: Sequence[int]) -> Tensor:
    """A dense core times the columns of its children, each (a, b, R) between the modes of I and the others."""
    joint = core.unsqueeze(0).unsqueeze(0)  # (a, b, R of the children that are left, R_parent)
    for child in children:
        c, d, _ = child.shape
        _refuse_large(math.prod(joint.shape) // joint.shape[2] * c * d, modes)
        joint = torch.einsum("abr...,cdr->acbd...", joint, child).flatten(2, 3).flatten(0, 1)
    return joint


def _refuse_large(entries: int, modes: Sequence[int]) -> None:
    if entries > _JOINT_LIMIT:
        raise DataError(
            f"matricization {label_of(modes)} cuts the mode tree in too many places",
            got=f"an intermediate of {entries:.3g} entries",
            allowed=f"{_JOINT_LIMIT:.3g}",
            next_step="Measure nodes of the tree, or a smaller factorization.",
        )


def _compress_side(joint: Tensor) -> Tensor:
    """Replace the first axis of (a, b, R) by an orthonormal basis of at most b * R vectors."""
    a, b, width = joint.shape
    if a <= b * width:
        return joint
    small: Tensor = torch.linalg.qr(joint.reshape(a, b * width), mode="r").R
    return small.reshape(-1, b, width)


def spectra_of(thing: Factorization | Tensor, tree: ModeTree | None = None) -> list[Spectrum]:
    """Spectra of the nodes of a mode tree, in node order, except those that hold all modes (such as the root).

    Args:
        thing: a factorization, or a dense tensor (d_0, ..., d_{N-1}).
        tree: the mode tree; if None, that of the factorization, or balanced binary for a dense tensor.
    Raises:
        ConfigError: if the tree has another order. DataError: if a matricization needs too much memory.
    """
    if isinstance(thing, Tensor):
        return _dense_spectra(thing, tree or ModeTree.named("balanced", thing.dim()))
    if tree is None or tree == thing.tree:
        return FactoredSpectra(thing).spectra()
    _check_order(tree, thing.order)
    found = spectra_at(thing, [modes for modes in tree.modes if len(modes) < tree.order])
    labels = [tree.labels[v] for v, modes in enumerate(tree.modes) if len(modes) < tree.order]
    return [replace(spectrum, label=label) for spectrum, label in zip(found, labels, strict=True)]


def spectra_at(thing: Factorization | Tensor, mode_sets: Sequence[Sequence[int]]) -> list[Spectrum]:
    """Spectra of given matricizations [[W]]_I, in the mode tree or not.

    For a factorization, sets in its own tree and their complements are cheap.

    Args:
        thing: a factorization, or a dense tensor (d_0, ..., d_{N-1}). mode_sets: the sets I.
    Raises:
        ConfigError: if a set is empty or holds all modes. DataError: if one needs too much memory.
    """
    if isinstance(thing, Tensor):
        return [dense_spectrum(thing, modes) for modes in mode_sets]
    wanted = [checked_modes(modes, thing.order) for modes in mode_sets]
    rest = [tuple(m for m in range(thing.order) if m not in modes) for modes in wanted]
    tree = thing.tree
    known: dict[tuple[int, ...], Spectrum] = {}
    if any(tree.find(modes) is not None for modes in (*wanted, *rest)):
        known = {spectrum.modes: spectrum for spectrum in FactoredSpectra(thing).spectra()}
    spectra = []
    for modes, others in zip(wanted, rest, strict=True):
        twin = known.get(modes) or known.get(others)
        if twin is None:
            spectra.append(factored_spectrum(thing, modes))
        else:
            shape = matricization_shape(modes, thing.dims)
            spectra.append(replace(twin, label=label_of(modes), modes=modes, shape=shape))
    return spectra


def _dense_spectra(tensor: Tensor, tree: ModeTree) -> list[Spectrum]:
    _check_order(tree, tensor.dim())

    def compute(node: int) -> Tensor:
        return dense_spectrum(tensor, tree.modes[node]).singular_values

    return [
        Spectrum(tree.labels[v], tree.modes[v], matricization_shape(tree.modes[v], tensor.shape), values)
        for v, values in _values_by_node(tree, compute)
    ]


def _check_order(tree: ModeTree, order: int) -> None:
    if tree.order != order:
        raise ConfigError("the mode tree does not fit the tensor", got=f"{tree.order} modes", allowed=order)


def hierarchical_rank(
    thing: Factorization | Tensor, tree: ModeTree | None = None, tolerance: float = DEFAULT_TOLERANCE
) -> tuple[int, ...]:
    """The hierarchical tensor rank: rank [[W]]_v of every node v except the root, in node order.

    Args:
        thing: a factorization, or a dense tensor (d_0, ..., d_{N-1}).
        tree: the mode tree; if None, that of the factorization, or balanced binary for a dense tensor.
        tolerance: singular values larger than this times the largest are counted.
    """
    return tuple(spectrum.rank(tolerance) for spectrum in spectra_of(thing, tree))
