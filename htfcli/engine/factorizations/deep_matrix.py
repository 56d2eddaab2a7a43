"""Deep matrix factorization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.mode_tree import ModeTree, Nested
from htfcli.errors import ConfigError


class MatrixFactorization(Factorization):
    """A product of matrices, W = layer0 @ layer1 @ ... @ layer{L-1}: a linear network of depth L.

    As a mode tree: mode 0 under a chain of single-child nodes, next to mode 1, with root weights fixed to ones. Its
    components are the singular values of the product.

    Args:
        dims: (d_0, d_1).
        depth: number of matrices L, at least 2.
        widths: inner dimensions, one for all or L - 1 of them from left to right; min(d_0, d_1) if None.
        dtype, device: of the weights, which are zero at first.

    Raises:
        ConfigError: if there are not two modes, the depth is below 2 or the widths do not match it.

    Weights are named `layer0` (d_0, h_1), `layer1` (h_1, h_2), ..., `layer{L-1}` (h_{L-1}, d_1).
    """

    kind = "matrix"
    root_weighted = False

    def __init__(
        self,
        dims: Sequence[int],
        depth: int = 2,
        widths: int | Sequence[int] | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(dims) != 2:
            raise ConfigError("a matrix factorization needs two modes", got=len(dims), allowed=2)
        if depth < 2:
            raise ConfigError("the depth of a matrix factorization is too small", got=depth, allowed="2 or more")
        inner = min(dims) if widths is None else widths
        inner = [inner] * (depth - 1) if isinstance(inner, int) else list(inner)
        if len(inner) != depth - 1:
            raise ConfigError(
                "the widths do not match the depth", got=len(inner), allowed=f"1 or {depth - 1} for depth {depth}"
            )
        left: Nested = 0
        for _ in range(depth - 2):
            left = [left]
        tree = ModeTree.from_nested([left, 1])
        super().__init__(dims, tree, dict(zip(tree.interior, inner, strict=True)), dtype=dtype, device=device)

    @classmethod
    def from_config(
        cls, config: FitConfig, dims: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> MatrixFactorization:
        assert not isinstance(config.width, dict)
        return cls(dims, config.depth, config.width, dtype=dtype, device=device)

    @property
    def depth(self) -> int:
        """Number of matrices in the product."""
        return len(self.tree.children) - 1

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        first, last, *middle = self.views(vector)[:-1]  # modes 0 and 1, then the chain above mode 0; the root is last
        layers = [first, *middle, last.t() if last is not None else None]
        return {f"layer{k}": layer for k, layer in enumerate(layers) if layer is not None}
