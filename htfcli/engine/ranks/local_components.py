"""Local components: their norms, the balance between their weight vectors, and their growth as predicted by theory.

The local component (v, r) of an interior node v is row r of W^(v) with column r of each child's matrix: L_v = 1 +
number of children vectors. Its norm sigma^(v, r) is the product of theirs. Under gradient flow on phi(W) from
unbalancedness zero

    d/dt sigma^(v,r) = L_v sigma^(v,r)^(2 - 2/L_v) < -grad phi(W), C^(v,r) >

with C^(v,r) the component's direction in the tensor. The tensor is linear in row r of W^(v), so the derivative needs
only the weights and their gradient: sigma <grad phi(W), C> = <d phi / d W^(v)[r, :], W^(v)[r, :]>.

CP has no output weights: L = N and the norm is the product of the N column norms. The components of a matrix
factorization are the singular values of the product, L its depth. With dense cores, the component (v, r) of any node v
but the root is column r of its matrix together with slice r of its parent's core, so that L = 2.
Source: Razin, Maman and Cohen (ICML 2022), dynamics of local component norms; Arora et al. (NeurIPS 2019) for matrices.
The argument for dense cores is that of the former with two vectors per component.
"""

from __future__ import annotations

from functools import cached_property, reduce
from itertools import pairwise

import torch
from torch import Tensor

from htfcli.engine.factorizations.balance import slices
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra
from htfcli.engine.ranks.matricization import Spectrum, matricization_shape


def local_components(factorization: Factorization) -> Components:
    """The components of a factorization at its current weights."""
    if factorization.dense_cores:
        return CoreComponents(factorization)
    if isinstance(factorization, MatrixFactorization):
        return MatrixComponents(factorization)
    return LocalComponents(factorization)


class LocalComponents:
    """Local components of a CP or hierarchical tensor factorization at its current weights.

    Args:
        factorization: its weights must not change while this object is in use.

    Attributes:
        nodes: interior nodes, all of which have components.
    """

    def __init__(self, factorization: Factorization) -> None:
        self._factorization = factorization
        self._tree = factorization.tree
        self.nodes: list[int] = list(self._tree.interior)

    def length(self, node: int) -> int:
        """L_v, the number of weight vectors per component of `node`."""
        return len(self._tree.children[node]) + (self._factorization.node_weights[node] is not None)

    def norms(self, node: int, components: Tensor | None = None) -> Tensor:
        """sigma^(v, r), (R_v,) in the order of the weights; or only those of the given `components`, in float64."""
        if components is None:
            return reduce(torch.mul, self._squares[node]).sqrt()
        own, *columns = self._vectors(node)
        squares = [] if own is None else [own.index_select(0, components).double().square().sum(1)]
        squares += [c.index_select(1, components).double().square().sum(0) for c in columns if c is not None]
        return reduce(torch.mul, squares).sqrt()

    def predicted_derivatives(self, node: int, gradient: Tensor) -> Tensor:
        """d sigma / dt of every component of `node` under gradient flow, as the theorem predicts.

        Args:
            node: interior node. gradient: (p,) gradient of the loss, laid out like `parameters`.
        Returns: (R_v,) in the order of the weights; 0 where sigma is 0.
        """
        carrier = node if self._factorization.node_weights[node] is not None else self._tree.children[node][0]
        weight, grad = self._factorization.node_weights[carrier], self._factorization.views(gradient)[carrier]
        assert weight is not None and grad is not None
        slope = (weight * grad).sum(1 if carrier == node else 0)  # sigma * <grad phi(W), C>
        return _rate(self.norms(node), slope, self.length(node))

    def spectra(self) -> list[Spectrum]:
        """Spectra of all nodes except the root, in node order."""
        return FactoredSpectra(self._factorization).spectra()

    @property
    def unbalancedness(self) -> float:
        """The largest difference of squared norms between two weight vectors of a component. Units: weights squared."""
        gaps = [torch.stack(squares) for squares in self._squares.values()]  # (L_v, R_v) each
        return float(torch.stack([(g.amax(0) - g.amin(0)).max() for g in gaps]).max())

    def _vectors(self, node: int) -> list[Tensor | None]:
        """The matrix whose rows are weight vectors (None for a root without weights), then those whose columns are."""
        weights = self._factorization.node_weights
        return [weights[node], *(weights[child] for child in self._tree.children[node])]

    @cached_property
    def _squares(self) -> dict[int, list[Tensor]]:
        """Per node the squared norms of the weight vectors: L_v tensors of shape (R_v,), the node's own rows first."""
        squares = {}
        for node in self.nodes:
            own, *columns = self._vectors(node)
            squares[node] = [] if own is None else [own.square().sum(1)]
            squares[node] += [c.square().sum(0) for c in columns if c is not None]
        return squares


class MatrixComponents:
    """Components of a deep matrix factorization: the singular values of its product, with L its depth.

    Args:
        factorization: its weights must not change while this object is in use.

    Attributes:
        nodes: the root alone.
    """

    def __init__(self, factorization: MatrixFactorization) -> None:
        self._factorization = factorization
        self.nodes: list[int] = [factorization.tree.root]

    def length(self, node: int) -> int:
        """L, the depth."""
        return self._factorization.depth

    def norms(self, node: int, components: Tensor | None = None) -> Tensor:
        """Singular values of the product, (k,) descending; or only those at the given positions, in float64."""
        if components is None:
            return self._svd[1]
        values: Tensor = torch.linalg.svdvals(product_of([layer.double() for layer in layers_of(self._factorization)]))
        return values[components]

    def predicted_derivatives(self, node: int, gradient: Tensor) -> Tensor:
        """d sigma_k / dt under gradient flow: L sigma_k^(2 - 2/L) <-G, u_k v_k^T>, G the gradient at the product.

        G comes from the gradient at layer0: with W = layer0 @ rest, v_k = rest^T layer0^T u_k / sigma_k and
        d phi / d layer0 = G rest^T, sigma_k u_k^T G v_k = u_k^T (d phi / d layer0) layer0^T u_k.

        Args:
            gradient: (p,) of the loss, laid out like `parameters`.
        """
        first, grad = self._factorization.weights["layer0"], self._factorization.named(gradient)["layer0"]
        u, norms = self._svd
        return _rate(norms, ((u.t() @ grad) * (u.t() @ first)).sum(1), self.length(node))

    def spectra(self) -> list[Spectrum]:
        """Spectra of all nodes except the root; each holds one mode, so all have the same singular values."""
        tree, dims, values = self._factorization.tree, self._factorization.dims, self._svd[1].double()
        return [
            Spectrum(tree.labels[v], tree.modes[v], matricization_shape(tree.modes[v], dims), values)
            for v in range(tree.root)
        ]

    @property
    def unbalancedness(self) -> float:
        """The largest Frobenius norm of layer_k^T layer_k - layer_{k+1} layer_{k+1}^T. Units: weights squared."""
        layers = layers_of(self._factorization)
        gaps = [torch.linalg.matrix_norm(a.t() @ a - b @ b.t()) for a, b in pairwise(layers)]
        return float(torch.stack(gaps).max())

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor]:
        u, norms, _ = torch.linalg.svd(product_of(layers_of(self._factorization)), full_matrices=False)
        return u, norms


class CoreComponents:
    """Components of a factorization with dense cores: a column of a node's matrix and a slice of its parent's core.

    W[:, r] of node v and the slice r of its parent's core along v enter the tensor only as a product, so gradient flow
    keeps the difference of their squared norms, and that of W^T W and the Gram matrix of the slices: the
    unbalancedness. From zero, sigma^(v, r) = (norm of column r) * (norm of slice r) obeys

        d/dt sigma^(v,r) = 2 sigma^(v,r) < -grad phi(W), C^(v,r) >

    with sigma C the part of the tensor that goes through column r of node v. Columns and slices that vanish together
    lower the rank of the matricization [[W]]_v.

    Args:
        factorization: its weights must not change while this object is in use.

    Attributes:
        nodes: all nodes but the root.
    """

    def __init__(self, factorization: Factorization) -> None:
        self._factorization = factorization
        self.nodes: list[int] = list(range(factorization.tree.root))

    def length(self, node: int) -> int:
        """L, the number of weight vectors per component: 2."""
        return 2

    def norms(self, node: int, components: Tensor | None = None) -> Tensor:
        """sigma^(v, r), (R_v,) in the order of the columns; or only those of the given `components`, in float64."""
        columns, rows = self._vectors(node)
        if components is not None:
            columns = columns.index_select(1, components).double()
            rows = rows.index_select(0, components).double()
        norms: Tensor = torch.linalg.vector_norm(columns, dim=0) * torch.linalg.vector_norm(rows, dim=1)
        return norms

    def predicted_derivatives(self, node: int, gradient: Tensor) -> Tensor:
        """d sigma / dt of every component of `node` under gradient flow.

        Args:
            node: any but the root. gradient: (p,) gradient of the loss, laid out like `parameters`.
        Returns: (R_v,) in the order of the columns; 0 where sigma is 0.
        """
        weight, grad = self._vectors(node)[0], self._factorization.views(gradient)[node]
        assert grad is not None
        return _rate(self.norms(node), (weight * grad).sum(0), self.length(node))

    def spectra(self) -> list[Spectrum]:
        """Spectra of all nodes except the root, in node order."""
        return FactoredSpectra(self._factorization).spectra()

    @property
    def unbalancedness(self) -> float:
        """The largest Frobenius norm of W^T W minus the slices' Gram matrix, over nodes. Units: weights squared."""
        gaps = []
        for node in self.nodes:
            columns, rows = self._vectors(node)
            gaps.append(torch.linalg.matrix_norm(columns.t() @ columns - rows @ rows.t()))
        return float(torch.stack(gaps).max())

    def _vectors(self, node: int) -> tuple[Tensor, Tensor]:
        """The matrix of a node (rows, R), and the slices of its parent's core as rows (R, ...)."""
        weight = self._factorization.node_weights[node]
        assert weight is not None
        return weight, slices(self._factorization, node).flatten(1)


def _rate(norms: Tensor, slope: Tensor, length: int) -> Tensor:
    """-L sigma^(2 - 2/L) * slope / sigma, and 0 where sigma is 0."""
    rate = -length * norms.pow(1 - 2 / length) * slope
    return torch.where(norms > 0, rate, torch.zeros_like(rate))


def layers_of(factorization: MatrixFactorization) -> list[Tensor]:
    """The matrices whose product the factorization is, first factor first."""
    return [factorization.weights[f"layer{k}"] for k in range(factorization.depth)]


def product_of(layers: list[Tensor]) -> Tensor:
    """The product (d_0, d_1) of matrices (d_0, h_1), (h_1, h_2), ..., (h_{L-1}, d_1)."""
    return reduce(torch.matmul, layers)


Components = LocalComponents | MatrixComponents | CoreComponents
