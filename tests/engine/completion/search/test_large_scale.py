"""The search of large problems: sparse targets found, narrow widths preferred, the usual search where nothing shows."""

from __future__ import annotations

import pytest
import torch

from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion import complete as completion
from htfcli.engine.completion.complete import complete
from htfcli.engine.completion.search.large_scale import enough_to_search, is_large
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.observations.observations import sample_entries
from htfcli.engine.samples import Entries
from tests.problems import generator

DIMS = (140, 110, 80)
COUNT, UNSEEN = 40_000, 5_000


def observed(model, noise, offset=0.0):
    """Noisy training entries of a target scaled to mean square one, and other entries as they are."""
    index = sample_entries(model.dims, COUNT + UNSEEN, generator(1))
    value = model.values(index)
    value = value / value.square().mean().sqrt() + offset
    noisy = value[:COUNT] + noise * torch.randn(COUNT, generator=generator(2), dtype=torch.float64)
    return Entries(index[:COUNT].clone(), noisy), Entries(index[COUNT:], value[COUNT:])


def error(found, unseen):
    return float((found.predictor.values(unseen.index) - unseen.value).norm() / unseen.value.norm())


@pytest.fixture
def no_race(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the usual search was asked for")

    monkeypatch.setattr(completion, "Race", refuse)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_noisy_sparse_target_is_found_with_its_width(rank, no_race):
    train, unseen = observed(CPFactorization(DIMS, rank).init_gaussian(1.0, generator(0)), noise=0.1)
    found = complete(train, DIMS, CompleteConfig())
    parameters = rank * sum(DIMS)
    assert error(found, unseen) < 1.3 * 0.1 * (parameters / COUNT) ** 0.5 + 1e-3
    assert set(found.report["widths"].values()) == {rank}
    assert found.report["held_out_error"] < 1.1 * 0.1 / 1.01**0.5
    assert found.report["warnings"] == []


def test_an_exact_target_is_found_exactly(no_race):
    train, unseen = observed(CPFactorization(DIMS, 2).init_gaussian(1.0, generator(0)), noise=0.0)
    assert error(complete(train, DIMS, CompleteConfig()), unseen) < 1e-7


def test_a_tree_that_the_data_need_is_taken(no_race):
    tree = ModeTree.from_nested([[0, 1], [2, 3]])
    dims = (80,) * 4
    model = HierarchicalTensorFactorization(dims, [2, 2], tree).init_gaussian(1.0, generator(0))
    index = sample_entries(dims, 125_000, generator(1))
    value = model.values(index)
    value = value / value.square().mean().sqrt()
    found = complete(Entries(index[:120_000].clone(), value[:120_000]), dims, CompleteConfig(max_width=3))
    assert found.report["tree"] == [[0, 1], [2, 3]]
    assert error(found, Entries(index[120_000:], value[120_000:])) < 0.01  # a star of three components: 0.13


def test_effects_are_subtracted_where_they_are_most_of_the_data(no_race):
    train, unseen = observed(CPFactorization(DIMS, 2).init_gaussian(1.0, generator(0)), noise=0.1, offset=5.0)
    assert error(complete(train, DIMS, CompleteConfig()), unseen) < 0.01


def test_the_usual_search_takes_over_where_nothing_shows(monkeypatch):
    asked = []

    class Asked(completion.Race):
        def run(self, more_trees):
            asked.append(len(self.split.train))
            return super().run(more_trees)

    monkeypatch.setattr(completion, "Race", Asked)
    index = sample_entries(DIMS, 25_000, generator(1))
    noise = Entries(index, torch.randn(25_000, generator=generator(2), dtype=torch.float64))
    found = complete(noise, DIMS, CompleteConfig(max_width=1, tree="star", centre="none"))
    assert asked
    assert found.report["held_out_error"] > 0.9
    assert any("hardly beats a constant" in warning for warning in found.report["warnings"])


def test_what_is_large():
    assert not is_large(10**6, (30, 30, 30)) and not is_large(10_000, (2000, 1500, 1000))
    assert is_large(10**5, (200, 150, 100))
    assert enough_to_search((2000, 1500, 1000)) == 300 * 4500
    assert enough_to_search((10**5, 10**4, 100)) == 40 * 110_100
