"""CP (canonical polyadic) factorization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from htfcli.config.tensors import DEFAULT_WIDTH, FitConfig
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.mode_tree import ModeTree


class CPFactorization(Factorization):
    """A sum of rank-one tensors: W = sum over r of w_0^r (x) w_1^r (x) ... (x) w_{N-1}^r.

    Args:
        dims: mode dimensions (d_0, ..., d_{N-1}).
        width: number of components R.
        dtype, device: of the weights, which are zero at first.

    Weights are named `factor0` (d_0, R), `factor1` (d_1, R), ...; component r is column r of each.
    """

    kind = "cp"
    root_weighted = False

    def __init__(
        self,
        dims: Sequence[int],
        width: int,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        tree = ModeTree.named("star", len(dims))
        super().__init__(dims, tree, {tree.root: width}, dtype=dtype, device=device)

    @classmethod
    def from_config(
        cls, config: FitConfig, dims: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> CPFactorization:
        return cls(dims, config.width if isinstance(config.width, int) else DEFAULT_WIDTH, dtype=dtype, device=device)

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        return {f"factor{n}": view for n, view in enumerate(self.views(vector)[: self.order]) if view is not None}
