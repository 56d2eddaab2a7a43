"""Hierarchical tensor factorization on any mode tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.factorization import Factorization, widths_by_node
from htfcli.engine.factorizations.mode_tree import ModeTree, tree_of


class HierarchicalTensorFactorization(Factorization):
    """Hierarchical tensor factorization (HTF).

    With T^(n, r) = W^(n)[:, r] at leaves and

        T^(v, r) = sum over r' of W^(v)[r', r] * (outer product over children c of T^(c, r'))

    at interior nodes, axes put in ascending order, the tensor is T^(root, 0).
    Source: Razin, Maman and Cohen (ICML 2022), hierarchical tensor factorization.

    Args:
        dims: mode dimensions (d_0, ..., d_{N-1}).
        widths: numbers of local components: one number, one per level from the leaves up, or by node label.
        tree: the mode tree; balanced binary if None.
        dtype, device: of the weights, which are zero at first.

    Raises:
        ConfigError: if tree, dims and widths do not fit each other.

    Weights are named by node label: `{0}` (d_0, R), `{0,1}` (R, R'), and the root's (R_root, 1).
    """

    kind = "htf"

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
        super().__init__(dims, tree, widths_by_node(tree, widths), dtype=dtype, device=device)

    @classmethod
    def from_config(
        cls, config: FitConfig, dims: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> HierarchicalTensorFactorization:
        return cls(dims, config.widths, tree_of(config.tree, len(dims), config.arity), dtype=dtype, device=device)
