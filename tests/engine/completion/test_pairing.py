"""Mode trees found from data whose modes come in any order."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.completion.pairing import interactions, paired, proposed_tree, tree_of_values
from htfcli.engine.completion.trees import candidate_trees
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.samples import Entries
from tests.problems import generator

PLANTED = ([[0, 5], [2, 7]], [[1, 6], [3, 4]])
DIMS = (4,) * 8


def drawn(count=6000, seed=0, dims=DIMS):
    return torch.stack([torch.randint(d, (count,), generator=generator(seed + m)) for m, d in enumerate(dims)], 1)


def target(seed, noise=0.0, width=3):
    model = HierarchicalTensorFactorization(DIMS, width, ModeTree.from_nested(list(PLANTED)))
    model.init_gaussian(1.0, generator(seed))
    index = drawn(seed=seed)
    value = model.values(index)
    value = value / value.square().mean().sqrt()
    return model, Entries(index, value + noise * torch.randn(len(value), generator=generator(seed), dtype=value.dtype))


@pytest.mark.parametrize("seed", range(3))
def test_the_planted_tree_is_proposed(seed):
    _, entries = target(seed, noise=0.02)
    found = proposed_tree(entries, DIMS)
    assert found == ModeTree.from_nested(list(PLANTED))
    candidates = candidate_trees("auto", entries, DIMS)
    assert candidates[0] == found
    assert ModeTree.named("balanced", 8) in candidates


@pytest.mark.parametrize("seed", range(3))
def test_values_of_a_tensor_show_its_tree(seed):
    model, _ = target(seed)
    size = float(model.dense().square().mean().sqrt())
    noise = generator(seed)

    def values(index):
        exact = model.values(index) / size
        return exact + 1e-2 * torch.randn(len(index), generator=noise, dtype=exact.dtype)

    assert tree_of_values(values, DIMS, 1e-2) == ModeTree.from_nested(list(PLANTED))


def test_no_tree_is_proposed_from_noise_or_equal_values():
    dims = (4, 5, 3, 4, 6)
    index = drawn(3000, dims=dims)
    noise = torch.randn(3000, generator=generator(1), dtype=torch.float64)
    assert proposed_tree(Entries(index, noise), dims) is None
    assert proposed_tree(Entries(index, 3 + torch.zeros_like(noise)), dims) is None


def test_an_interaction_is_the_share_of_the_variance_of_ranks_that_it_explains():
    index = drawn(20_000, dims=(2, 2, 3))
    sign = (2 * index[:, 0] - 1) * (2 * index[:, 1] - 1)
    noise = torch.randn(20_000, generator=generator(2), dtype=torch.float64)
    share, deviation = interactions(Entries(index, 50 + sign + noise), (2, 2, 3))
    above = torch.special.ndtr(torch.tensor(2.0).sqrt())  # chance that a draw around 1 exceeds one around -1
    assert float(share[0, 1]) == pytest.approx(12 * float(above / 2 - 0.25) ** 2, abs=0.02)  # ranks have variance 1/12
    assert float(share[[0, 1], 2].abs().max()) < 5 * float(deviation.max())


def test_few_modes_are_paired_in_all_ways_and_no_tree_is_proposed():
    index = drawn(300, dims=(4, 4, 4, 4))
    entries = Entries(index, torch.ones(300, dtype=torch.float64))
    assert len(candidate_trees("auto", entries, (4,) * 4)) == 5


def test_pairs_of_largest_weight_and_one_alone():
    weight = torch.zeros(5, 5)
    for a, b, w in ((0, 1, 3.0), (0, 2, 2.9), (1, 3, 2.9), (2, 3, 0.1)):  # the heaviest pair leaves bad ones over
        weight[a, b] = weight[b, a] = w
    assert sorted(paired(weight)) == [(0, 2), (1, 3), (4,)]
