"""Spectral starts: Gram matrices against pairs counted one by one, cores against dense least squares, overlaps."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from htfcli.engine.completion.search import spectral_start
from htfcli.engine.completion.search.spectral_start import (
    SpectralStart,
    core_of,
    core_sizes,
    leaf_subspace,
    sampled_gram,
    some,
)
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.observations.observations import sample_entries
from htfcli.engine.samples import Entries, unravel
from tests.problems import generator


def sparse_target(dims, rank, count, noise=0.0):
    """A CP target with entries of mean square one, and some of them observed."""
    model = CPFactorization(dims, rank).init_gaussian(1.0, generator(1))
    index = sample_entries(dims, count, generator(2))
    value = model.values(index)
    scale = float(value.square().mean().sqrt())
    model.scale(1 / scale)
    return model, Entries(index, value / scale + noise * torch.randn(count, generator=generator(3)).double())


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_the_gram_matrix_sums_pairs_that_differ_in_one_mode_alone(mode):
    dims = (5, 4, 6)
    index = sample_entries(dims, 60, generator(0))
    entries = Entries(index, torch.randn(60, generator=generator(1), dtype=torch.float64))
    expected, counts = torch.zeros(dims[mode], dims[mode], dtype=torch.float64), torch.zeros(dims[mode])
    others = [m for m in range(3) if m != mode]
    for a, b in combinations(range(60), 2):
        if torch.equal(index[a, others], index[b, others]):
            i, j = int(index[a, mode]), int(index[b, mode])
            for row, column in ((i, j), (j, i)):
                expected[row, column] += entries.value[a] * entries.value[b]
                counts[row] += 1
    gram, found = sampled_gram(entries, dims, mode)
    torch.testing.assert_close(gram.to_dense(), expected, rtol=0, atol=1e-14)
    assert torch.equal(found.float(), counts)


def test_a_dense_tensor_has_the_gram_matrix_of_its_matricization_without_the_diagonal():
    dims = (6, 5, 4)
    tensor = torch.randn(dims, generator=generator(0), dtype=torch.float64)
    entries = Entries(unravel(torch.arange(120), dims), tensor.flatten())
    matrix = tensor.movedim(1, 0).flatten(1)
    expected = matrix @ matrix.t()
    expected.fill_diagonal_(0.0)
    torch.testing.assert_close(sampled_gram(entries, dims, 1)[0].to_dense(), expected, rtol=0, atol=1e-13)


def test_without_pairs_there_is_no_subspace_to_speak_of():
    entries = Entries(torch.tensor([[0, 0, 0], [1, 1, 1], [2, 2, 2]]), torch.ones(3, dtype=torch.float64))
    found = leaf_subspace(entries, (3, 3, 3), 0, 2, generator(0))
    assert found.pairs == 0 and found.rank == 0
    assert bool(torch.isfinite(found.basis).all())


@pytest.mark.parametrize("written_out", [True, False])
def test_subspaces_are_near_those_of_the_target_and_their_rank_is_seen(written_out, monkeypatch):
    if not written_out:
        monkeypatch.setattr(spectral_start, "_DENSE_GRAM", 10)
    dims = (80, 60, 50)
    model, entries = sparse_target(dims, 3, 20_000, noise=0.1)
    for mode in range(3):
        found = leaf_subspace(entries, dims, mode, 6, generator(0))
        assert found.rank == 3
        true = torch.linalg.qr(model.node_weights[mode]).Q
        assert float(torch.linalg.svdvals(true.t() @ found.basis[:, :3])[-1]) > 0.9
        torch.testing.assert_close(found.basis.t() @ found.basis, torch.eye(6, dtype=torch.float64))


def test_power_iteration_finds_the_extreme_eigenvalues():
    matrix = torch.randn(60, 60, generator=generator(0), dtype=torch.float64)
    matrix = matrix + matrix.t()
    matrix[:5, :5] += 40 * torch.eye(5, dtype=torch.float64)
    expected = torch.linalg.eigvalsh(matrix)
    values, vectors, noise = spectral_start._extreme(matrix.to_sparse_coo().coalesce(), 4, generator(1))
    torch.testing.assert_close(values, expected.flip(0)[:4], rtol=1e-6, atol=0)
    torch.testing.assert_close(matrix @ vectors, vectors * values, rtol=0, atol=1e-2)
    assert noise == pytest.approx(-float(expected[0]), rel=0.05)


def test_the_core_is_the_least_squares_solution(monkeypatch):
    monkeypatch.setattr(spectral_start, "_CORE_GOAL", 1e-24)
    dims = (7, 6, 5)
    bases = [torch.linalg.qr(torch.randn(d, 2, generator=generator(d), dtype=torch.float64)).Q for d in dims]
    index = sample_entries(dims, 150, generator(0))
    entries = Entries(index, torch.randn(150, generator=generator(1), dtype=torch.float64))
    rows = torch.einsum("na,nb,nc->nabc", *(b[index[:, m]] for m, b in enumerate(bases))).flatten(1)
    ridge = spectral_start._CORE_RIDGE * float(rows.square().sum(0).mean())
    normal = rows.t() @ rows + ridge * torch.eye(8, dtype=torch.float64)
    expected = torch.linalg.solve(normal, rows.t() @ entries.value).view(2, 2, 2)
    torch.testing.assert_close(core_of(entries, bases), expected, rtol=1e-9, atol=1e-10)


def test_cores_stay_small():
    assert core_sizes([6, 4, 9], [6, 4, 8]) == [6, 4, 8]
    sizes = core_sizes([12] * 5, [16] * 5, most=1000)
    assert 500 < torch.tensor(sizes).prod() <= 1000


@pytest.mark.parametrize("tree", ["star", "balanced", [[0, 2], 1]], ids=str)
def test_a_model_begins_near_the_target_whatever_the_tree(tree):
    dims = (60, 50, 40)
    model, entries = sparse_target(dims, 3, 20_000)
    start = SpectralStart(entries, dims, generator(0))
    assert start.found
    nodes = ModeTree.named(tree, 3) if isinstance(tree, str) else ModeTree.from_nested(tree)
    small, misfit = start.fit_core(nodes, 3)
    core = small.dense()
    assert misfit == pytest.approx(float((core - start.core).norm() / start.core.norm()), rel=1e-6)
    begun = start.lifted(small)
    assert isinstance(begun, HierarchicalTensorFactorization) and begun.dims == dims
    truth = model.dense()
    assert float((begun.dense() - truth).norm() / truth.norm()) < 0.4


def test_some_entries_are_distinct_and_not_more_than_asked_for():
    entries = Entries(torch.arange(1000).unsqueeze(1), torch.arange(1000.0))
    part = some(entries, 300, generator(0))
    assert 200 < len(part) <= 300
    assert len(torch.unique(part.value)) == len(part)
    assert torch.equal(part.index[:, 0].double(), part.value.double())
    assert some(entries, 1000, generator(0)) is entries
