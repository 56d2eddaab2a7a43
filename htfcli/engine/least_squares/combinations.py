"""Below a dense core, the vectors of a node spread over all combinations of its components with its siblings'."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from htfcli.engine.factorizations.mode_tree import ModeTree


class Combinations:
    """Components of nodes in the combinations that a parent's core lists, the last child's fastest.

    Args:
        tree: the mode tree. columns: number of columns of every node. dense_cores: whether interior nodes have dense
            cores; if not, components meet one to one, and nothing is spread.

    Attributes:
        count: combinations at all interior nodes together.
    """

    def __init__(self, tree: ModeTree, columns: Sequence[int], dense_cores: bool) -> None:
        self.count = 0
        # Combinations of the siblings before a node, its own columns, and combinations of the siblings after it
        self._places: dict[int, tuple[int, int, int]] = {}
        for node in tree.interior if dense_cores else ():
            children = tree.children[node]
            sizes = [columns[child] for child in children]
            self.count += math.prod(sizes)
            if len(children) > 1:
                for k, child in enumerate(children):
                    self._places[child] = math.prod(sizes[:k]), sizes[k], math.prod(sizes[k + 1 :])

    def spread(self, node: int, vectors: Tensor) -> Tensor:
        """Vectors (..., b, R) of a node as a factor of its parent's product: (..., b, combinations)."""
        if node not in self._places:
            return vectors
        outer, own, inner = self._places[node]
        entries = vectors.shape[:-1]
        return vectors.view(*entries, 1, own, 1).expand(*entries, outer, own, inner).reshape(*entries, -1)

    def collected(self, node: int, slopes: Tensor) -> Tensor:
        """Slopes at what `spread` made of a node, (..., b, combinations), summed to those at it, (..., b, R)."""
        if node not in self._places:
            return slopes
        return slopes.reshape(*slopes.shape[:-1], *self._places[node]).sum((-3, -1))
