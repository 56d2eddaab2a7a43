"""A graph cut into two parts of given sizes, with little weight across: a spectral start, improved by swaps.

With s = -1 on the first part and 1 on the second, the cut is good where E(s) = -s' W s / 2 - p' s is small, W being the
weights and p a pull of each node towards the second part. Sources: Fiedler, "A property of eigenvectors of nonnegative
symmetric matrices and its application to graph theory" (1975); Kernighan and Lin, "An efficient heuristic procedure for
partitioning graphs" (1970).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Booleans = np.ndarray[Any, np.dtype[np.bool_]]

_DENSE = 1024  # nodes up to which weights are a full matrix, whose eigenvectors are computed directly
_PASSES = 6  # of swaps; the last ones gain little
_UNLUCKY = 64  # swaps without gain after which a pass ends
_SMALL = 64  # nodes up to which random starts are tried too
_STARTS = 3  # random ones
_TOLERANCE = 1e-2  # of the eigenvector of a large graph, which only has to order its nodes roughly


def bisect(
    weights: Any, pull: Floats, share: int, generator: np.random.Generator, known: Booleans | None = None
) -> Booleans:
    """Which nodes (n,) are in the first part, of `share` nodes.

    Args:
        weights: (n, n) sparse, symmetric, without diagonal. pull: (n,) of each node to the second part. generator: of
            random starts. known: (n,) a cut to improve, instead of beginning anew.
    """
    count = len(pull)
    if count == 2 and share == 1:
        return np.array([pull[0] <= pull[1], pull[0] > pull[1]])
    dense = weights.toarray() if count <= _DENSE else None
    rows = _Rows(weights, dense)
    if known is not None:
        starts = [known]
    else:
        fiedler = _fiedler(weights, dense, generator)
        fiedler = fiedler if fiedler @ pull >= 0 else -fiedler
        starts = [_first(fiedler, share)]
        if np.abs(pull).max(initial=0) > 0:
            starts.append(_first(pull, share))
        if count <= _SMALL:
            starts += [_first(generator.random(count), share) for _ in range(_STARTS)]
    found = [_improved(rows, pull, start) for start in starts]
    return min(found, key=lambda one: one[0])[1]


def _first(score: Floats, share: int) -> Booleans:
    """The `share` nodes of lowest score."""
    chosen = np.zeros(len(score), dtype=bool)
    chosen[np.argsort(score, kind="stable")[:share]] = True
    return chosen


def _fiedler(weights: Any, dense: Floats | None, generator: np.random.Generator) -> Floats:
    """The second eigenvector (n,) of the normalized adjacency matrix."""
    degree = np.asarray(weights.sum(axis=1)).ravel()
    scale = 1 / np.sqrt(np.where(degree > 0, degree, 1))
    if dense is not None:
        _, vectors = np.linalg.eigh(dense * scale[:, None] * scale)
    else:
        from scipy.sparse import diags
        from scipy.sparse.linalg import eigsh

        matrix = diags(scale) @ weights @ diags(scale)
        start = generator.random(len(degree))
        _, vectors = eigsh(matrix, k=2, which="LA", tol=_TOLERANCE, v0=start)
    second: Floats = vectors[:, -2] * scale
    return second


class _Rows:
    """Rows of the weights, full or sparse."""

    def __init__(self, weights: Any, dense: Floats | None) -> None:
        self.weights, self.dense = weights, dense

    def times(self, s: Floats) -> Floats:
        product: Floats = (self.weights if self.dense is None else self.dense) @ s
        return product

    def add(self, to: Floats, row: int, factor: float) -> None:
        """Add a row times a factor to a vector."""
        if self.dense is not None:
            to += factor * self.dense[row]
        else:
            span = slice(self.weights.indptr[row], self.weights.indptr[row + 1])
            to[self.weights.indices[span]] += factor * self.weights.data[span]


def _improved(rows: _Rows, pull: Floats, first: Booleans) -> tuple[float, Booleans]:
    """A cut improved by passes of Kernighan and Lin: swaps of the best pair, each node once, up to the best moment."""
    s = np.where(first, -1.0, 1.0)
    for _ in range(_PASSES):
        better, s = _pass(rows, pull, s)
        if not better:
            break
    return float(-s @ rows.times(s) / 2 - pull @ s), s < 0


def _pass(rows: _Rows, pull: Floats, s: Floats) -> tuple[bool, Floats]:
    field = rows.times(s) + pull
    best, s = s, s.copy()
    change = lowest = 0.0
    free = np.ones(len(s), dtype=bool)
    unlucky = 0
    scale = 1e-12 * float(np.abs(field).sum() + 1e-300)
    for _ in range(min(int((s < 0).sum()), int((s > 0).sum()))):
        held = s * field  # half of what E gains when a node changes sides
        one = int(np.where(free & (s < 0), held, np.inf).argmin())
        beside = held.copy()
        rows.add(beside, one, 2.0)
        other = int(np.where(free & (s > 0), beside, np.inf).argmin())
        change += held[one] + beside[other]
        for node in (one, other):
            rows.add(field, node, -2 * s[node])
            s[node], free[node] = -s[node], False
        if change < lowest - scale:
            lowest, best, unlucky = change, s.copy(), 0
        else:
            unlucky += 1
            if unlucky >= _UNLUCKY:
                break
    return lowest < 0, best
