"""A start from the spectra of a sparse tensor: leaves in the subspaces that pairs of entries show.

Two observed entries that differ in mode k alone multiply to an unbiased sample of an entry of the Gram matrix of the
mode-k matricization. All such pairs, its diagonal left out, where noise does not average out, have top eigenvectors
close to the span of mode k's vectors as soon as there are some more pairs than the mode has indices: with d^(N/2)
entries of a tensor of order N, far fewer than it takes a random start to be drawn to a solution (Montanari & Sun 2018;
Cai, Li, Poor & Chen 2019). From random leaves in these subspaces a few sweeps of any mode tree reach one.

Axes: `n` entries, `d` mode dimension, `K` dimension of a subspace.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.samples import Entries, row_keys

_CLIP = 4.0  # times the median size, to which values are cut off: without it heavy tails hide all of CP rank 3 in 400^3


def start_in_spans(model: Factorization, entries: Entries, generator: torch.Generator) -> Factorization:
    """A random model with its leaves (d, R) replaced, in place, by random ones in the spans of their modes."""
    for mode, leaf in enumerate(model.node_weights[: model.order]):
        assert leaf is not None
        span = leading_vectors(entries, model.dims, mode, leaf.shape[1], generator)
        if span is not None:
            drawn = span @ torch.randn(span.shape[1], leaf.shape[1], generator=generator, dtype=span.dtype)
            leaf.copy_(drawn * (leaf.norm() / drawn.norm()))
    return model


def leading_vectors(
    entries: Entries, dims: Sequence[int], mode: int, most: int, generator: torch.Generator
) -> Tensor | None:
    """The span of a mode's vectors, as far as pairs of entries show it.

    Products of pairs are the square of heavy tails, and a few of them would be the leading eigenvectors; so values are
    cut off first, which turns the subspaces little. Indices are weighted by one over the root of their number of pairs,
    so that those observed often do not drown the others.

    Args:
        entries: n of them, on the CPU. dims: of the tensor. mode: k. most: K. generator: for the first vector.
    Returns: (d, K) float64, eigenvectors times what their eigenvalues exceed the last of them by, which is noise where
        K is above the rank. None where there is no pair, and where the mode has no more than K indices.
    """
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import LinearOperator, eigsh

    d, others = dims[mode], [m for m in range(len(dims)) if m != mode]
    key = row_keys(entries.index[:, others].long(), [dims[m] for m in others])
    fibre = torch.unique(key, return_inverse=True)[1]
    row, shape = entries.index[:, mode].numpy(), (d, int(fibre.max()) + 1)
    seen = csr_array((np.ones(len(row)), (row, fibre.numpy())), shape)
    pairs = seen @ seen.sum(0) - seen.sum(1)  # of each index with any other
    if d <= most or not pairs.any():
        return None
    limit = _CLIP * (float(entries.value.abs().median()) or float(entries.value.square().mean().sqrt()))
    value = entries.value.double().clamp(-limit, limit).numpy() / np.sqrt(pairs.clip(1))[row]
    matrix = csr_array((value, (row, fibre.numpy())), shape)
    across, diagonal = matrix.T.tocsr(), matrix.power(2).sum(1)
    gram = LinearOperator(shape=(d, d), matvec=lambda x: matrix @ (across @ x) - diagonal * x, dtype=np.float64)
    start = torch.randn(d, generator=generator, dtype=torch.float64).numpy()
    # vectors that are a hundredth of an eigenvalue off are no worse a start
    values, vectors = eigsh(gram, most, which="LA", v0=start, tol=0.1)
    return torch.from_numpy(vectors * (values - values.min()))
