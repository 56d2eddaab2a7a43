"""Base class of all factorizations: a mode tree with weight matrices.

CP is a hierarchical tensor factorization on the star tree and a deep matrix factorization one on a chain of
single-child nodes, both with the root's weights fixed to ones. Tucker, tensor train and hierarchical Tucker have a
dense core at every interior node instead (see `dense_cores`). So all share evaluation, gradients and ranks; a kind adds
the shapes and names of its weights.

Axes: `d` mode dimension, `R` width of a node, `n` entries, `N` order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.evaluation import Evaluation
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.runtime.memory import refuse_unless_fits
from htfcli.engine.samples import Entries, Sample, check_range
from htfcli.errors import ConfigError, DataError

_CHUNK = 2**20  # entries evaluated at a time, so that temporaries stay small
DENSE_LIMIT = 2**28  # numbers in a dense tensor or in a table on the way to it; 2 GiB in float64


class Factorization:
    """A tensor given by weight matrices on a mode tree.

    Every node v except the root has a matrix W^(v): a leaf of mode n (d_n, R_parent), an interior node (R_v, R_parent).
    The root has (R_root, 1), or fixed ones where the kind has no output weights. With e_n = W^(n)[index_n, :] at leaves
    and e_v = (elementwise product of the children's e) @ W^(v) above them, the entry is e_root. With dense cores, the
    product is the Kronecker product of the children's e, and W^(v) is a core with its leading axes flattened.

    Args:
        dims: mode dimensions (d_0, ..., d_{N-1}).
        tree: the mode tree over N modes.
        widths: of the nodes in `sized`: (interior node -> R_v), the number of local components of each.
        dtype: float32 or float64. device: where the weights live.

    Attributes:
        parameters: (p,) all weights in one vector; the matrices are views of it.
        node_weights: per node its matrix; None for a root without weights.

    Raises:
        ConfigError: if there are fewer than two modes, the tree has another order, or a dimension or width is not
            positive. DataError: if the weights do not fit in memory.
    """

    kind: ClassVar[str]
    root_weighted: ClassVar[bool] = True
    dense_cores: ClassVar[bool] = False

    def __init__(
        self,
        dims: Sequence[int],
        tree: ModeTree,
        widths: Mapping[int, int],
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(dims) < 2:
            raise ConfigError("a factorization needs at least two modes", got=f"dims {list(dims)}")
        if len(dims) != tree.order:
            raise ConfigError("the mode tree does not fit the tensor", got=f"{tree.order} modes", allowed=len(dims))
        if any(d < 1 for d in dims):
            raise ConfigError("a mode dimension is not positive", got=list(dims), allowed="1 or more")
        for node, width in widths.items():
            if width < 1:
                label = tree.labels[node]
                raise ConfigError(f"the width of node {label} is not positive", got=width, allowed="1 or more")
        self.dims = tuple(int(d) for d in dims)
        self.tree = tree
        self.widths = dict(widths)
        self._shapes = self.matrix_shapes(self.dims, tree, self.widths)
        count = sum(r * c for r, c in self._shapes)
        if torch.device(device).type == "cpu":
            refuse_unless_fits("the factorization", count * dtype.itemsize, f"{count:,} weights", "Lower the widths.")
        self._set_parameters(torch.zeros(count, dtype=dtype, device=device))

    def _set_parameters(self, parameters: Tensor) -> None:
        self.parameters = parameters
        self.node_weights = self.views(parameters)

    @classmethod
    def from_config(
        cls, config: FitConfig, dims: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> Factorization:
        """The factorization of a tensor (d_0, ..., d_{N-1}) that a configuration describes, with zero weights."""
        raise NotImplementedError

    @classmethod
    def sized(cls, tree: ModeTree) -> range:
        """The nodes of a tree that have a width, in the order in which a description lists them."""
        return tree.interior

    @classmethod
    def matrix_shapes(cls, dims: Sequence[int], tree: ModeTree, widths: Mapping[int, int]) -> list[tuple[int, int]]:
        """Shape of every node's matrix, in node order; (0, 1) for a root without weights."""
        shapes = []
        for node, parent in enumerate(tree.parent):
            rows = dims[node] if node < tree.order else widths[node]
            columns = 1 if parent < 0 else widths[parent]
            shapes.append((rows, columns) if parent >= 0 or cls.root_weighted else (0, 1))
        return shapes

    # --- weights ----------------------------------------------------------------------------------------------------

    def views(self, vector: Tensor) -> list[Tensor | None]:
        """Per node the part of `vector` that belongs to its matrix, shaped like it; None for a root without weights.

        Args:
            vector: (p,), the parameters, their gradient, or anything else with one number per parameter; or (runs, p)
                for several factorizations, of which the parts are (runs, rows, columns).
        """
        views: list[Tensor | None] = []
        start = 0
        for rows, columns in self._shapes:
            part = vector[..., start : start + rows * columns]
            views.append(part.view(*vector.shape[:-1], rows, columns) if rows else None)
            start += rows * columns
        return views

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weight matrices by name (views of `parameters`)."""
        return self.named(self.parameters)

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The parts of `vector` (p,) by weight name."""
        return {
            label: view for label, view in zip(self.tree.labels, self.views(vector), strict=True) if view is not None
        }

    def core(self, node: int) -> Tensor:
        """The dense core of an interior node, (R_c for each child c, R_parent), a view; 1 stands for R of the root."""
        weight = self.node_weights[node]
        assert weight is not None and self.dense_cores
        return weight.view(*(self.widths[child] for child in self.tree.children[node]), -1)

    def load(self, weights: Mapping[str, Tensor]) -> Self:
        """Copy named weights in.

        Raises:
            DataError: if a weight is missing or unknown, has the wrong shape, or is not finite.
        """
        own = self.weights
        for name in sorted(set(own) ^ set(weights)):
            problem = "is missing from" if name in own else "does not belong to"
            raise DataError(f"weight {name} {problem} this {self.kind} factorization")
        for name, view in own.items():
            if tuple(weights[name].shape) != tuple(view.shape):
                got, allowed = tuple(weights[name].shape), tuple(view.shape)
                raise DataError(f"weight {name} has the wrong shape", got=got, allowed=allowed)
            if not torch.isfinite(weights[name]).all():
                raise DataError(f"weight {name} has NaN or infinite values")
            view.copy_(weights[name])
        return self

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """A copy with another dtype or on another device."""
        return self._with(self.parameters.to(dtype=dtype, device=device, copy=True))

    def stacked(self, runs: int) -> Self:
        """Several factorizations of this shape as one batch: zero parameters (runs, p)."""
        return self._with(self.parameters.new_zeros(runs, len(self.parameters)))

    def _with(self, parameters: Tensor) -> Self:
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._set_parameters(parameters)
        return other

    # --- initialization ---------------------------------------------------------------------------------------------

    def init_gaussian(self, std: float, generator: torch.Generator) -> Self:
        """Draw every weight from a centred Gaussian with standard deviation `std`, in place.

        Drawn in float64 on the CPU whatever the dtype and device, so that a seed gives the same weights everywhere.
        """
        draw = torch.randn(len(self.parameters), generator=generator, dtype=torch.float64)
        self.parameters.copy_(draw.mul_(std))
        return self

    def gaussian_std(self, rms: float) -> float:
        """Standard deviation of Gaussian weights at which entries have root mean square `rms`.

        The mean square of an entry is std^(2K) times the product of all widths, K the number of weight matrices.
        """
        matrices = sum(1 for rows, _ in self._shapes if rows)
        return math.exp((2 * math.log(rms) - sum(math.log(r) for r in self.widths.values())) / (2 * matrices))

    def scale(self, factor: float) -> Self:
        """Multiply the tensor by a positive factor, in place, spread evenly over the weight matrices."""
        return self.scale_log(math.log(factor))

    def scale_log(self, log_factor: float) -> Self:
        """Multiply the tensor by e^log_factor, which may be outside the range of a double."""
        matrices = sum(1 for weight in self.node_weights if weight is not None)
        self.parameters.mul_(math.exp(log_factor / matrices))
        return self

    # --- values -----------------------------------------------------------------------------------------------------

    @property
    def order(self) -> int:
        """Number of modes N."""
        return len(self.dims)

    @property
    def entries(self) -> int:
        """Number of entries of the tensor."""
        return math.prod(self.dims)

    @torch.no_grad()
    def values(self, index: Tensor) -> Tensor:
        """Entries of the tensor.

        Args:
            index: (n, N) int64 or int32.
        Returns: (n,) in the factorization's dtype.
        Raises:
            DataError: if an index is out of range.
        """
        check_range(index, self.dims)
        chunks = torch.split(index, _CHUNK)
        return torch.cat(
            [self.measure(Entries(chunk.long(), self.parameters.new_empty(len(chunk)))) for chunk in chunks]
        )

    @torch.no_grad()
    def measure(self, sample: Sample) -> Tensor:
        """What the sample would observe of this tensor, (n,); the values in the sample are not used."""
        evaluation = self.evaluation(sample)
        values = evaluation.forward()
        if evaluation.order is None:
            return values.clone()
        return torch.empty_like(values).index_copy_(0, evaluation.order, values)

    @torch.no_grad()
    def dense(self) -> Tensor:
        """The whole tensor, (d_0, ..., d_{N-1}).

        Raises:
            DataError: if it, or a table on the way to it, has more than `DENSE_LIMIT` numbers.
        """
        widest = max([rows for rows, _ in self._shapes[self.order : -1]], default=1)
        largest = max(self.entries, self.entries // max(self.dims) * max(widest, *self.widths.values()))
        if largest > DENSE_LIMIT:
            raise DataError(
                "the tensor is too large to write out",
                got=f"{_power(largest)} numbers",
                allowed=f"{DENSE_LIMIT:.2g}",
                next_step="Evaluate the entries you need, or work with the factorization itself.",
            )
        return self.evaluation().forward().contiguous()

    def evaluation(self, sample: Sample | None = None, gradients: Sequence[Tensor | None] | None = None) -> Evaluation:
        """Repeated evaluation at a sample, or of the whole tensor, as the weights change in place; see `Evaluation`."""
        return Evaluation(self.tree, self.node_weights, self.dims, sample, gradients, dense_cores=self.dense_cores)

    # --- description (a file holds it and the named weights) ----------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Everything except the weights, as plain data."""
        return {
            "kind": self.kind,
            "dims": list(self.dims),
            "children": [list(self.tree.children[v]) for v in self.tree.interior],
            "widths": [self.widths[v] for v in self.sized(self.tree)],
        }

    @classmethod
    def blank(
        cls, dims: Sequence[int], tree: ModeTree, widths: Mapping[int, int], dtype: torch.dtype = torch.float64
    ) -> Factorization:
        """A factorization of this kind with zero weights on a given tree, whatever its constructor takes."""
        blank = cls.__new__(cls)
        Factorization.__init__(blank, dims, tree, widths, dtype=dtype)
        return blank


def check_state(state: Mapping[str, Tensor], model: Factorization, needed: set[str]) -> None:
    """Check that a saved state has the `parameters` (p,) of this model and all the `needed` tensors.

    Raises:
        DataError: if it does not.
    """
    shape = state["parameters"].shape if "parameters" in state else None
    if shape != model.parameters.shape or not needed <= set(state):
        raise DataError("the checkpoint does not fit the model", got=shape, allowed=model.parameters.shape)


def widths_by_node(
    tree: ModeTree, widths: int | Sequence[int] | Mapping[str, int], nodes: Sequence[int] | None = None
) -> dict[int, int]:
    """Widths of all interior nodes, or of given ones.

    Args:
        tree: the mode tree.
        widths: one number for all nodes; or one per level, from the lowest of the nodes up; or by node label (`{0,1}`),
            with `default` for the others.
        nodes: which have a width, lowest first; the interior ones if None.
    Returns: node -> width.
    Raises:
        ConfigError: if levels or labels do not fit the tree.
    """
    nodes = tree.interior if nodes is None else nodes
    if isinstance(widths, int):
        return dict.fromkeys(nodes, widths)
    if isinstance(widths, Mapping):
        unknown = set(widths) - {tree.labels[v] for v in nodes} - {"default"}
        if unknown:
            labels = ", ".join(tree.labels[v] for v in nodes)
            raise ConfigError("a width is given for a node the tree does not have", got=sorted(unknown), allowed=labels)
        missing = [tree.labels[v] for v in nodes if tree.labels[v] not in widths]
        if missing and "default" not in widths:
            raise ConfigError("no width is given for some nodes", got=missing, next_step="Add 'default'.")
        return {v: widths.get(tree.labels[v], widths.get("default", 0)) for v in nodes}
    if not isinstance(widths, Sequence):
        raise ConfigError("not widths", got=widths, allowed="a whole number, one per level, or one per node")
    lowest, levels = tree.height[nodes[0]], max(tree.height)  # as many levels below the root as above the leaves
    if len(widths) != levels:
        raise ConfigError("the widths do not match the levels of the tree", got=len(widths), allowed=f"1 or {levels}")
    return {v: widths[tree.height[v] - lowest] for v in nodes}


def _power(number: int) -> str:
    """A large integer in short form, even beyond the range of a double."""
    return f"{number:.3g}" if number < 10**15 else f"10^{len(str(number)) - 1}"
