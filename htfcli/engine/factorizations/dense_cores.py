"""Tucker, tensor train and hierarchical Tucker: factorizations with a dense core at every interior node.

Every node v but the root has a width R_v, its number of columns T^(v, .). Leaves have matrices (d_n, R_n), and a node
with children c_1, ..., c_k has a core G^(v) (R_{c_1}, ..., R_{c_k}, R_v), the root one without the last axis:

    T^(n, r) = W^(n)[:, r]
    T^(v, r) = sum over r_1, ..., r_k of G^(v)[r_1, ..., r_k, r] T^(c_1, r_1) (x) ... (x) T^(c_k, r_k)

A hierarchical tensor factorization is the case in which all cores vanish except where r_1 = ... = r_k. As a matrix, the
core has its leading axes flattened, the last child's fastest: (R_{c_1} * ... * R_{c_k}, R_v).

Sources: Hackbusch and Kuehn (2009) and Grasedyck (2010) for the hierarchical Tucker format, Oseledets (2011) for tensor
trains; Hariz et al. (AISTATS 2024) for deep Tucker factorizations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.factorization import Factorization, widths_by_node
from htfcli.engine.factorizations.mode_tree import ModeTree, Nested, tree_of
from htfcli.errors import ConfigError


class HierarchicalTuckerFactorization(Factorization):
    """Hierarchical Tucker: a dense core at every interior node of any mode tree.

    Args:
        dims: mode dimensions (d_0, ..., d_{N-1}).
        widths: numbers of columns R_v of all nodes but the root: one number, one per level from the leaves up, or by
            node label. Where no label names it, a width is reduced to the largest rank that the dimensions allow at its
            node.
        tree: the mode tree; balanced binary if None.
        dtype, device: of the weights, which are zero at first.

    Raises:
        ConfigError: if tree, dims and widths do not fit each other.

    Weights are named by node label: `{0}` (d_0, R_0), `{0,1}` (R_0, R_1, R), and the root's (R_left, R_right).
    """

    kind = "hierarchical-tucker"
    dense_cores = True

    def __init__(
        self,
        dims: Sequence[int],
        widths: int | Sequence[int] | Mapping[str, int],
        tree: ModeTree | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        tree = tree or ModeTree.named("balanced", len(dims))
        found = widths_by_node(tree, widths, self.sized(tree))
        if len(dims) == tree.order:  # else refused below
            named = set(widths) if isinstance(widths, Mapping) else set()
            total = math.prod(dims)
            for node in found:
                if tree.labels[node] not in named:
                    rows = math.prod(dims[mode] for mode in tree.modes[node])
                    found[node] = min(found[node], rows, total // max(rows, 1) if node != tree.root else 1)
        super().__init__(dims, tree, found, dtype=dtype, device=device)

    @classmethod
    def from_config(
        cls, config: FitConfig, dims: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> Factorization:
        tree = tree_of(config.tree, len(dims), config.arity)
        return HierarchicalTuckerFactorization(dims, config.widths, tree, dtype=dtype, device=device)

    @classmethod
    def sized(cls, tree: ModeTree) -> range:
        return range(tree.root)

    @classmethod
    def matrix_shapes(cls, dims: Sequence[int], tree: ModeTree, widths: Mapping[int, int]) -> list[tuple[int, int]]:
        return [
            (math.prod(widths[c] for c in children) if children else dims[node], widths.get(node, 1))
            for node, children in enumerate(tree.children)
        ]

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        found = {}
        for node, view in enumerate(self.views(vector)):
            assert view is not None
            children = self.tree.children[node]
            core = view.view(*(self.widths[c] for c in children), -1) if children else view
            found[self.tree.labels[node]] = core.squeeze(-1) if node == self.tree.root else core
        return found


class TuckerFactorization(HierarchicalTuckerFactorization):
    """Tucker: one core for all modes, W = G x_0 A_0 x_1 A_1 ... with A_n the product of `depth` matrices.

    Args:
        dims, widths, dtype, device: see `HierarchicalTuckerFactorization`; levels of widths are those of the `depth`
            matrices of a mode, the one with the mode's index first.
        depth: number of matrices per mode, 1 for the usual Tucker decomposition; more for a deep Tucker factorization.

    Raises:
        ConfigError: if the depth is not positive, or the widths do not match it.
    """

    kind = "tucker"

    def __init__(
        self,
        dims: Sequence[int],
        widths: int | Sequence[int] | Mapping[str, int],
        depth: int = 1,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if depth < 1:
            raise ConfigError("the depth of a Tucker factorization is too small", got=depth, allowed="1 or more")
        modes: list[Nested] = list(range(len(dims)))
        for _ in range(depth - 1):
            modes = [[mode] for mode in modes]
        tree = ModeTree.from_nested(modes) if len(dims) > 1 else ModeTree.named("star", len(dims))
        super().__init__(dims, widths, tree, dtype=dtype, device=device)

    @classmethod
    def from_config(
        cls, config: FitConfig, dims: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> Factorization:
        return TuckerFactorization(dims, config.widths, config.depth, dtype=dtype, device=device)


class TensorTrainFactorization(HierarchicalTuckerFactorization):
    """Tensor train: a core for each mode after the first, on the mode tree `chain`.

    The cores of the usual form (R_{k-1}, d_k, R_k) are those of the tree times the matrices of their modes. Widths at
    least as large as the dimensions leave the matrices no restriction.

    Args:
        dims, widths, dtype, device: see `HierarchicalTuckerFactorization`.
    """

    kind = "tensor-train"

    def __init__(
        self,
        dims: Sequence[int],
        widths: int | Sequence[int] | Mapping[str, int],
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(dims, widths, ModeTree.named("chain", len(dims)), dtype=dtype, device=device)

    @classmethod
    def from_config(
        cls, config: FitConfig, dims: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> Factorization:
        return TensorTrainFactorization(dims, config.widths, dtype=dtype, device=device)
