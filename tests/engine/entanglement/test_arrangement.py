"""Balanced cuts against all cuts, and orders of features whose neighbours are known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from htfcli.engine.entanglement.arrangement import arrange, correlation_graph
from htfcli.engine.entanglement.bisection import bisect
from htfcli.engine.entanglement.correlations import surrogates
from htfcli.engine.entanglement.features import FeatureData, canonical_partitions

sparse = pytest.importorskip("scipy.sparse")


def energy(weights, pull, first):
    s = np.where(first, -1.0, 1.0)
    return -s @ weights @ s / 2 - pull @ s


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "share"), [(2, 1), (3, 1), (7, 3), (10, 5)])
def test_cuts_are_the_best_of_all(seed, count, share):
    generator = np.random.default_rng(seed)
    weights = generator.random((count, count)) ** 4
    weights = np.triu(weights, 1) + np.triu(weights, 1).T
    pull = generator.normal(size=count) if seed % 2 else np.zeros(count)
    found = bisect(sparse.csr_matrix(weights), pull, share, np.random.default_rng(0))
    assert found.sum() == share
    every = [np.isin(np.arange(count), chosen) for chosen in combinations(range(count), share)]
    assert energy(weights, pull, found) == pytest.approx(min(energy(weights, pull, one) for one in every))


def test_two_groups_of_a_large_sparse_graph_are_cut_apart():
    generator = np.random.default_rng(0)
    group = generator.permutation(2000) < 1000
    rows = generator.integers(0, 2000, 30000)
    columns = np.where(generator.random(30000) < 0.9, 0, 1)  # a tenth of the edges lead across
    inside, outside = np.flatnonzero(group), np.flatnonzero(~group)
    same = np.where(
        group[rows], inside[generator.integers(0, 1000, 30000)], outside[generator.integers(0, 1000, 30000)]
    )
    other = np.where(
        group[rows], outside[generator.integers(0, 1000, 30000)], inside[generator.integers(0, 1000, 30000)]
    )
    weights = sparse.coo_matrix(
        (np.ones(30000), (rows, np.where(columns == 0, same, other))), shape=(2000, 2000)
    ).tocsr()
    weights = (weights + weights.T).tocsr()
    weights.setdiag(0)
    found = bisect(weights, np.zeros(2000), 1000, np.random.default_rng(1))
    assert max((found == group).mean(), (found != group).mean()) > 0.99


def smooth(samples, *shape, seed=0):
    """Values on a line or grid, correlated with their neighbours: moving averages of noise."""
    size = [n + 2 for n in shape]
    found = torch.randn(samples, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for axis, n in enumerate(shape, start=1):
        found = sum(found.narrow(axis, step, n) * weight for step, weight in enumerate((0.7, 1, 0.7)))
    return FeatureData("x", found.flatten(1)[:, :, None], shape, common_scale=True)


def shuffled(data, seed=0):
    return torch.randperm(data.features, generator=torch.Generator().manual_seed(seed))


def surrogate(data, level):
    found = surrogates(data, list(canonical_partitions(data.shape, [level])))
    return sum(found) / len(found)


@pytest.mark.parametrize("shape", [(32,), (8, 8), (7, 10)])
def test_shuffled_features_come_back_together(shape):
    data = smooth(400, *shape)
    other = data.rearranged(shuffled(data))
    order = arrange(other)
    assert torch.equal(order.sort().values, torch.arange(data.features))
    back = other.rearranged(order)
    for level in (1, 2):
        lost, won = surrogate(other, level) - surrogate(data, level), surrogate(other, level) - surrogate(back, level)
        assert lost > 0
        assert won > 0.8 * lost
    assert torch.equal(arrange(other), order)


def test_features_with_channels_and_constant_ones_are_placed_too():
    data = smooth(200, 16)
    values = torch.cat([data.values, data.values + 0.1 * torch.randn(200, 16, 1, dtype=torch.float64)], dim=2)
    values[:, 3] = 1.0
    data = FeatureData("x", values, (16,))
    assert torch.equal(arrange(data).sort().values, torch.arange(16))
    graph = correlation_graph(data).toarray()
    assert np.array_equal(graph, graph.T)
    assert not graph[3].any()
    columns = np.corrcoef(values[:, [0, 1]].reshape(200, 4).T.numpy())
    assert graph[0, 1] == pytest.approx(np.abs(columns[:2, 2:]).mean() ** 2, rel=1e-5)


def test_more_features_than_all_pairs_are_edges(monkeypatch):
    monkeypatch.setattr("htfcli.engine.entanglement.arrangement.ALL_PAIRS", 50)
    data = smooth(300, 100)
    other = data.rearranged(shuffled(data))
    graph = correlation_graph(other)
    assert graph.nnz < 100 * 60
    back = other.rearranged(arrange(other))
    assert surrogate(back, 2) < surrogate(other, 2) - 0.8 * (surrogate(other, 2) - surrogate(data, 2))
