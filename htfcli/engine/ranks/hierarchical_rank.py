"""Hierarchical tensor ranks: singular values of matricizations, from the tensor or from its factors.

The hierarchical tensor rank of W with respect to a mode tree is the tuple rank [[W]]_v over all nodes v but the root.
On a factorization the tensor is never built. Sweeping up, the columns T^(v, .) of every node are written in an
orthonormal basis (QR of the leaf matrices, then of the children's combined small factors times the node's matrix):

    matrix with columns T^(v, r) = (basis of v, orthonormal) @ S_v,     S_v (k_v, R_parent), k_v <= R_parent

Sweeping down, the rest of the tensor is written in an orthonormal basis too, which leaves a small matrix C_v (k_v, m_v)
with the singular values of [[W]]_v. QR is backward stable, so they are right to machine precision relative to the
largest (Gram matrices would lose half the digits). Cost follows widths and order, not d^N.

Axes: `k` small dimension of a basis, `m` small dimension of the rest, `R` width, `d` mode dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from htfcli.errors import ConfigError, DataError

_SAFE_ORDER = 8  # products of so few factors stay in the range of doubles; rescaling them would only take time
_JOINT_LIMIT = 2**26  # entries of an intermediate for a matricization that is not in the tree; it is copied a few times


@dataclass
class _Part:
    """A node, or a partial product of a node's children, in an orthonormal basis.

    Args:
        small: S (k, R), the columns T^(v, .) in the basis.
        basis: (k_a, k_b, k) or (k_a, k), the basis in terms of the parts' bases; None if it is their whole product.
        parts: what it was made of. node: its number in the tree, None for a partial product.
    """

    small: Tensor
    basis: Tensor | None = None
    parts: tuple[_Part, ...] = ()
    node: int | None = None


class FactoredSpectra:
    """Norm of a factorization and spectra of every node of its own mode tree, without building the tensor.

    Args:
        factorization: any kind, order and widths; computed in its dtype on its device. Its weights must not change
            while this object is in use.

    Attributes:
        log_norm: log of the Frobenius norm; -inf for the zero tensor.
    """

    @torch.no_grad()
    def __init__(self, factorization: Factorization) -> None:
        self._factorization = factorization
        self._log_scale = 0.0
        self._root = self._sweep_up()
        norm = float(torch.linalg.vector_norm(self._root.small.double()))
        self.log_norm = math.log(norm) + self._log_scale if norm > 0 else -math.inf

    @torch.no_grad()
    def spectra(self) -> list[Spectrum]:
        """Spectra of all nodes of the mode tree, in node order, but for those that hold all modes."""
        tree, dims, cores = self._factorization.tree, self._factorization.dims, self._cores

        def compute(node: int) -> Tensor:
            values: Tensor = torch.linalg.svdvals(cores[node])
            return values.double()

        return [
            Spectrum(tree.labels[v], tree.modes[v], matricization_shape(tree.modes[v], dims), values, self._log_scale)
            for v, values in _values_by_node(tree, compute)
        ]

    def _sweep_up(self) -> _Part:
        """Bases of all nodes; returns the root, whose small factor (k_a * k_b, 1) is the tensor in its parts' bases."""
        tree, weights = self._factorization.tree, self._factorization.node_weights
        built: dict[int, _Part] = {}
        for node, children in enumerate(tree.children):
            weight = weights[node]
            if not children:
                assert weight is not None
                built[node] = self._orthonormal(weight, (), (), node)
                continue
            parts = [built.pop(c) for c in children]
            while len(parts) > 2:
                parts.sort(key=lambda part: len(part.small))
                a, b, *rest = parts
                product = _row_products(a.small, b.small)
                parts = [self._orthonormal(product, (a, b), (len(a.small), len(b.small)), None), *rest]
            ranks = tuple(len(part.small) for part in parts)
            if node == tree.root:
                left = parts[0].small if weight is None else parts[0].small * weight.t()
                core = left @ parts[1].small.t() if len(parts) == 2 else left.sum(1)
                return _Part(self._rescaled(core.reshape(-1, 1)), None, tuple(parts), node)
            assert weight is not None
            product = parts[0].small if len(parts) == 1 else _row_products(parts[0].small, parts[1].small)
            built[node] = self._orthonormal(product @ weight, tuple(parts), ranks, node)
        raise AssertionError("a tree has a root")

    def _rescaled(self, small: Tensor) -> Tensor:
        """Keep numbers near one in high orders, where products leave the range of doubles; see `_log_scale`."""
        if self._factorization.order <= _SAFE_ORDER:
            return small
        largest = float(small.abs().max()) if small.numel() else 0.0
        if largest == 0.0 or not math.isfinite(largest):
            return small
        self._log_scale += math.log(largest)
        return small / largest

    def _orthonormal(
        self, columns: Tensor, parts: tuple[_Part, ...], ranks: tuple[int, ...], node: int | None
    ) -> _Part:
        """columns (k_a * k_b, R) = basis @ small; no basis is needed while there are no more rows than columns."""
        if columns.shape[0] <= columns.shape[1]:
            return _Part(self._rescaled(columns), None, parts, node)
        if not parts:  # a leaf: only the small factor is ever used
            return _Part(self._rescaled(torch.linalg.qr(columns, mode="r").R), None, parts, node)
        basis, small = torch.linalg.qr(columns)
        return _Part(self._rescaled(small), basis.view(*ranks, -1), parts, node)

    @cached_property
    def _cores(self) -> dict[int, Tensor]:
        """C of every node from its parent's: contract the parent's basis with C and compress the side of the rest."""
        cores: dict[int, Tensor] = {}
        todo = [(self._root, self._root.small)]  # m = 1
        while todo:
            part, core = todo.pop()  # core (k, m)
            if part.node is not None:
                cores[part.node] = core
            if not part.parts:
                continue
            spread = core if part.basis is None else part.basis.flatten(0, -2) @ core  # (k_a * k_b, m)
            if len(part.parts) == 1:
                todo.append((part.parts[0], _compress(spread)))
                continue
            a, b = part.parts
            joint = spread.view(len(a.small), len(b.small), -1)  # (k_a, k_b, m)
            todo.append((a, _compress(joint.flatten(1))))
            todo.append((b, _compress(joint.transpose(0, 1).flatten(1))))
        return cores


def _values_by_node(tree: ModeTree, compute: Callable[[int], Tensor]) -> Iterator[tuple[int, Tensor]]:
    """(node, singular values) of every node that does not hold all modes, in node order.

    Nodes with the same modes, or with complementary ones, share their singular values: computed once.
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


def _row_products(a: Tensor, b: Tensor) -> Tensor:
    """Row (i, j) is a[i, :] * b[j, :]: (k_a, R), (k_b, R) -> (k_a * k_b, R)."""
    return (a.unsqueeze(1) * b.unsqueeze(0)).flatten(0, 1)


def _compress(core: Tensor) -> Tensor:
    """A (k, min(k, m)) matrix with the same left singular vectors and singular values as `core` (k, m)."""
    if core.shape[1] <= core.shape[0]:
        return core
    small: Tensor = torch.linalg.qr(core.t(), mode="r").R
    return small.t()


@torch.no_grad()
def factored_spectrum(factorization: Factorization, modes: Sequence[int]) -> Spectrum:
    """Spectrum of a matricization [[W]]_I that need not be in the mode tree, without building the tensor.

    Every node's columns are kept as matrices X[:, :, r] (a, b) between the part of I under the node and the part of the
    rest, both sides compressed by QR. For a set I that the tree cuts in many places a and b grow towards their full
    size.

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
        else:
            first, *others = (built.pop(c) for c in children)
            joint = first
            for other in others:
                a, b, width = joint.shape
                c, d, _ = other.shape
                if a * b * c * d * width > _JOINT_LIMIT:
                    raise DataError(
                        f"matricization {label_of(rows)} cuts the mode tree in too many places",
                        got=f"an intermediate of {a * b * c * d * width:.3g} entries",
                        allowed=f"{_JOINT_LIMIT:.3g}",
                        next_step="Measure nodes of the tree, or a smaller factorization.",
                    )
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


def _compress_side(joint: Tensor) -> Tensor:
    """Replace the first axis of (a, b, R) by an orthonormal basis of at most b * R vectors."""
    a, b, width = joint.shape
    if a <= b * width:
        return joint
    small: Tensor = torch.linalg.qr(joint.reshape(a, b * width), mode="r").R
    return small.reshape(-1, b, width)


def spectra_of(thing: Factorization | Tensor, tree: ModeTree | None = None) -> list[Spectrum]:
    """Spectra of the nodes of a mode tree, in node order, but for those that hold all modes (the root, for one).

    Args:
        thing: a factorization, or a dense tensor (d_0, ..., d_{N-1}).
        tree: the mode tree; a factorization's own or the balanced binary one if None.
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

    Those of a factorization that are in its own tree, or complementary to one that is, cost little.

    Args:
        thing: a factorization, or a dense tensor (d_0, ..., d_{N-1}). mode_sets: the sets I.
    Raises:
        ConfigError: if a set is not some but not all of the modes. DataError: if one needs too much memory.
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
    """The hierarchical tensor rank: rank [[W]]_v of every node v but the root, in node order.

    Args:
        thing: a factorization, or a dense tensor (d_0, ..., d_{N-1}).
        tree: the mode tree; a factorization's own or the balanced binary one if None.
        tolerance: singular values above this times the largest count.
    """
    return tuple(spectrum.rank(tolerance) for spectrum in spectra_of(thing, tree))
