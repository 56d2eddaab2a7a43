"""`complete` on problems with known answers, and on data where there is little or nothing to find."""

from __future__ import annotations

import pytest
import torch

from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion import complete as completion
from htfcli.engine.completion.complete import complete
from htfcli.engine.completion.search.initialization import start_gaussian
from htfcli.engine.completion.search.ridge_path import fit_path
from htfcli.engine.completion.search.trial import Split
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError
from tests.engine.completion.search.test_candidate_trees import groups
from tests.engine.least_squares.test_levenberg_marquardt import TREES, problem
from tests.problems import generator


@pytest.fixture(autouse=True)
def _small_budget(monkeypatch):
    """A tenth of the work that a search may do."""
    monkeypatch.setattr(completion, "WORK", 1.5e9)


def everywhere(dims):
    return torch.cartesian_prod(*(torch.arange(d) for d in dims))


def error(done, target):
    """Relative, over all entries."""
    index = everywhere(target.dims)
    wanted = target.values(index)
    return float((done.predictor.values(index) - wanted).norm() / wanted.norm())


def entries_of(tensor):
    """All entries of a dense tensor that are not NaN."""
    index = everywhere(tensor.shape)
    value = tensor.double().flatten()
    return Entries(index[~value.isnan()], value[~value.isnan()])


# --- clean data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["balanced", "star", "chain", "crossed"])
def test_clean_data_are_recovered(name):
    target, entries, _ = problem(TREES[name], 2, observed=0.6)
    done = complete(entries, target.dims)
    assert error(done, target) < 1e-8
    assert done.report["held_out_error"] < 1e-7
    assert set(done.report["widths"].values()) == {2}
    assert {rank for node, rank in done.report["hierarchical_rank"].items() if "," not in node} == {2}
    assert done.report["warnings"] == []
    if name == "crossed":
        assert groups(done.report["tree"]) == groups([[0, 2], [1, 3]])


@pytest.mark.parametrize("size", [1e300, 1e-300, -1e300])
def test_values_of_any_size(size):
    target, entries, _ = problem(TREES["star"], 2, observed=0.6)
    done = complete(Entries(entries.index, entries.value * size), target.dims)
    wanted = target.values(everywhere(target.dims))
    got = done.predictor.values(everywhere(target.dims)) / size
    assert float((got - wanted).norm() / wanted.norm()) < 1e-10
    assert done.report["held_out_error"] < 1e-7
    assert float(done.spread(entries.index).max()) < 1e-6 * abs(size)


def test_a_fully_observed_tensor():
    target, _, _ = problem(TREES["star"], 2)
    done = complete(entries_of(target.dense()), target.dims)
    assert error(done, target) < 1e-8
    assert done.report["unobserved"] == []


def test_a_matrix():
    target, entries, _ = problem(ModeTree.named("star", 2), 2, observed=0.8, dims=(20, 18))
    done = complete(entries, target.dims)
    assert error(done, target) < 1e-8
    assert done.report["hierarchical_rank"] == {"{0}": 2, "{1}": 2}


def test_order_10():
    dims = (2,) * 10
    target, entries, _ = problem(ModeTree.named("half", 10), 1, observed=0.4, dims=dims)
    assert error(complete(entries, dims), target) < 1e-8


def test_the_tree_and_widths_asked_for():
    target, entries, _ = problem(TREES["star"], 2, observed=0.8, noise=0.1)
    config = CompleteConfig(tree=[[0, 3], [1, 2]], width=[3, 2], splits=1)
    done = complete(entries, target.dims, config)
    assert done.report["tree"] == [[0, 3], [1, 2]]
    assert done.report["widths"] == {"{0,3}": 3, "{1,2}": 3, "{0,1,2,3}": 2}
    assert {step["tree"] for step in done.report["steps"]} == {"[[0, 3], [1, 2]]"}
    with pytest.raises(ConfigError, match="does not fit"):
        complete(entries, target.dims, CompleteConfig(tree=[[0, 1], 2]))


def test_the_widths_asked_for_hold_where_centring_helps():
    """Centring is tried with them too, not with the widest of them at every node."""
    target, entries, _ = problem(TREES["balanced"], 1, observed=0.7, noise=0.1)
    entries = Entries(entries.index, entries.value + 50.0 + 5.0 * entries.index[:, 1])
    done = complete(entries, target.dims, CompleteConfig(tree="balanced", width=[1, 2], splits=1))
    assert done.report["centre"] != "none"
    assert done.report["widths"] == {"{0,1}": 1, "{2,3}": 1, "{0,1,2,3}": 2}


def test_max_width():
    target, entries, _ = problem(TREES["star"], 3, observed=0.8, noise=0.1)
    done = complete(entries, target.dims, CompleteConfig(max_width=2, splits=1, tree="star"))
    assert max(step["width"] for step in done.report["steps"]) <= 2


# --- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["star", "balanced"])
def test_noise_costs_little_more_than_the_oracle(name):
    """The held-out error is within a tenth of what the true tree and width give when fitted by hand, and the error of
    the tensor itself within twice."""
    target, entries, _ = problem(TREES[name], 2, observed=0.8, noise=0.2, seed=3)
    done = complete(entries, target.dims)
    index, values = everywhere(target.dims), []
    rest = entries.select(torch.randperm(len(entries), generator=generator(1)))
    parts = Split(rest.select(torch.arange(430)), rest.select(torch.arange(430, 480)), rest.value[430:480])
    for seed in range(4):
        model = HierarchicalTensorFactorization(target.dims, 2, TREES[name])
        start_gaussian(model, entries.value, generator(seed))
        trial, _ = fit_path(model, parts)
        values.append((trial.held_out_error, trial.model.values(index)))
    wanted = target.values(index)
    by_hand = float((min(values, key=lambda v: v[0])[1] - wanted).norm() / wanted.norm())
    oracle = (0.2**2 + by_hand**2) ** 0.5 / (0.2**2 + 1) ** 0.5  # of noisy entries that were not seen
    assert done.report["held_out_error"] < 1.1 * oracle + done.report["held_out_error_spread"]
    assert error(done, target) < 2.0 * by_hand
    assert len(done.ensemble) == 4
    spread = float(done.spread(index).square().mean().sqrt())
    assert 0.01 < spread < 0.3


@pytest.mark.parametrize("loss", ["auto", "huber", "l1"])
def test_outliers(loss):
    """One observation in fifty is absurd: a robust loss does not follow it, and one is found. (With l2 the error is
    0.2.)"""
    target, entries, _ = problem(TREES["star"], 2, observed=0.8, noise=0.02, seed=3)
    value = entries.value.clone()
    value[torch.randperm(len(value), generator=generator(1))[: len(value) // 50]] += 5.0
    given = {"tree": "star"} if loss == "auto" else {"splits": 1, "tree": "balanced", "max_width": 3}
    done = complete(Entries(entries.index, value), target.dims, CompleteConfig(loss=loss, **given))
    assert error(done, target) < 0.03
    assert done.report["loss"] == {"auto": "huber"}.get(loss, loss)
    said = [w for w in done.report["warnings"] if "observations lie far from what the others say" in w]
    assert len(said) == (loss == "auto")


@pytest.mark.parametrize("loss", ["auto", "l2"])
def test_noise_and_a_loss_that_is_asked_for_make_no_outliers(loss):
    target, entries, _ = problem(TREES["star"], 2, observed=0.8, noise=0.1, seed=3)
    value = entries.value.clone()
    if loss == "l2":
        value[torch.randperm(len(value), generator=generator(1))[: len(value) // 50]] += 5.0
    config = CompleteConfig(loss=loss, splits=1, tree="balanced", max_width=3)
    done = complete(Entries(entries.index, value), target.dims, config)
    assert done.report["loss"] == "l2"
    assert not any("far from" in w for w in done.report["warnings"])


# --- effects, floor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", ["none", "mean", "modes"])
def test_centring_is_undone(centre):
    """Entries are predicted as they are, whatever was subtracted from them, however small what is left."""
    target, entries, _ = problem(TREES["star"], 1, observed=0.9)
    entries = Entries(entries.index, entries.value + 100.0 + entries.index[:, 0])
    done = complete(entries, target.dims, CompleteConfig(centre=centre, splits=1, tree="star"))
    index = everywhere(target.dims)
    wanted = target.values(index) + 100.0 + index[:, 0]
    assert float((done.predictor.values(index) - wanted).norm() / wanted.norm()) < 1e-8
    assert done.report["centre"] == centre
    assert (done.predictor.effects.mean != 0) == (centre != "none")
    assert len(done.predictor.effects.by_mode) == (4 if centre == "modes" else 0)
    held_out = done.report["held_out"]
    assert held_out["predicted"] == pytest.approx(held_out["observed"], rel=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_an_offset_changes_nothing_but_the_offset(offset):
    """What is left after centring is fitted at its own size, so that a ridge means the same."""
    target, entries, _ = problem(TREES["balanced"], 2, observed=0.8, noise=0.1, seed=2)
    mean = float(entries.value.mean())
    moved = Entries(entries.index, entries.value - mean + offset)
    config = CompleteConfig(centre="mean", tree="balanced", max_width=2, splits=1)
    done = complete(moved, target.dims, config)
    index = everywhere(target.dims)
    wanted = target.values(index) - mean
    assert float((done.predictor.values(index) - offset - wanted).norm() / wanted.norm()) < 0.08


def test_nonnegative():
    index = everywhere((6, 5, 4))
    value = torch.randn(120, generator=generator(), dtype=torch.float64).abs()
    config = CompleteConfig(nonnegative=True, splits=1, max_width=2, tree="star")
    done = complete(Entries(index[:90], value[:90]), (6, 5, 4), config)
    assert float(done.predictor.values(index).min()) >= 0.0
    assert done.predictor.floor == 0.0
    value[3] = -1.5
    with pytest.raises(
        DataError, match=r"the data are to be non-negative and are not \(got -1.5\). Leave out --nonnegative"
    ):
        complete(Entries(index, value), (6, 5, 4), config)


# --- little or nothing to find ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("constant", [7.0, 0.0, -1e300])
def test_a_constant_tensor(constant):
    index = everywhere((4, 3, 2))
    done = complete(Entries(index[::2], torch.full((12,), constant, dtype=torch.float64)), (4, 3, 2))
    assert done.predictor.values(index).tolist() == pytest.approx([constant] * 24)
    assert (done.report["solver"], done.report["warnings"]) == ("mean", [])
    assert done.report["train_error"] < 1e-12


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_observations(count):
    """Their mean, and plainly said."""
    index = everywhere((3, 2))[[0, 3, 4]][:count]
    value = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)[:count]
    done = complete(Entries(index, value), (3, 2))
    assert done.predictor.values(everywhere((3, 2))).tolist() == pytest.approx([float(value.mean())] * 6)
    said = [f"only {count} entries are observed: their mean is all that can be said"] if count > 1 else []
    assert done.report["warnings"] == said
    assert done.report["held_out_error"] is None
    gaps = {gap["mode"]: gap["indices"] for gap in done.report["unobserved"]}
    assert gaps == ({0: [1, 2], 1: [1]} if count == 1 else {})


def test_nothing_observed_and_values_that_are_no_numbers():
    empty = Entries(torch.empty(0, 2, dtype=torch.int64), torch.empty(0, dtype=torch.float64))
    for index in ([[0, 4], [1, 1]], [[-1, 0], [1, 1]], [[0, 1, 2], [1, 1, 1]]):
        with pytest.raises(
            DataError, match=r"has an index out of range \(got .*, allowed 0-2 x 0-3\)|do not have the order"
        ):
            complete(Entries(torch.tensor(index), torch.ones(2, dtype=torch.float64)), (3, 4))
    with pytest.raises(DataError, match="no entry is observed: there is nothing to complete from"):
        complete(empty, (2, 2))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(DataError, match="an observed value is NaN or infinite"):
            complete(Entries(everywhere((2, 2)), torch.tensor([1.0, 2.0, bad, 4.0])), (2, 2))


def test_a_slice_without_observation_is_the_mean_slice():
    target, entries, _ = problem(TREES["star"], 2, observed=0.8)
    entries = entries.select(entries.index[:, 1] != 2)
    done = complete(entries, target.dims, CompleteConfig(centre="none"))
    assert done.report["unobserved"] == [{"mode": 1, "indices": [2]}]
    tensor = done.predictor.values(everywhere(target.dims)).view(target.dims)
    seen = [0, 1, 3, 4, 5]
    wanted = target.dense()[:, seen]
    assert float((tensor[:, seen] - wanted).norm() / wanted.norm()) < 1e-8
    assert torch.allclose(tensor[:, 2], tensor[:, seen].mean(1))


def test_pure_noise_is_doubted():
    index = everywhere((6, 6, 6))[torch.randperm(216, generator=generator())[:150]]
    done = complete(
        Entries(index, torch.randn(150, generator=generator(1), dtype=torch.float64)),
        (6, 6, 6),
        CompleteConfig(max_width=2),
    )
    assert any("hardly beats a constant" in text for text in done.report["warnings"])
    assert done.report["r2"] < 0.2


def test_too_few_observations_are_doubted():
    """A width asked for that the data cannot carry."""
    target, entries, _ = problem(TREES["star"], 4, observed=0.1)
    config = CompleteConfig(tree="balanced", width=8, splits=1, centre="none")
    said = complete(entries, target.dims, config).report["warnings"]
    assert any("have fewer observations than the 8 they need" in text for text in said)
    assert any("node {0,1} has 64 weights, more than the 60 observations" in text for text in said)
    assert any("is far above the train error" in text for text in said)


# --- how it runs ------------------------------------------------------------------------------------------------------


def test_the_same_seed_is_the_same_result():
    target, entries, _ = problem(TREES["star"], 2, observed=0.4, noise=0.2, dims=(4, 5, 3, 4))
    index = everywhere(target.dims)
    config = CompleteConfig(max_width=2, splits=1, tree="balanced")
    first, second = (complete(entries, target.dims, config) for _ in range(2))
    assert torch.equal(first.predictor.values(index), second.predictor.values(index))
    assert first.report["steps"] == second.report["steps"]
    other = complete(entries, target.dims, config.model_copy(update={"seed": 1}))
    assert not torch.equal(first.predictor.values(index), other.predictor.values(index))


def test_stopping_early_keeps_the_best_so_far():
    target, entries, _ = problem(TREES["balanced"], 3, observed=0.8, noise=0.1)
    steps = []
    done = complete(entries, target.dims, CompleteConfig(splits=1), steps.append, lambda: len(steps) >= 3)
    search = [step for step in done.report["steps"] if step["stage"] == "search"]
    assert len(search) == 3
    assert torch.isfinite(done.predictor.values(everywhere(target.dims))).all()
    assert steps == done.report["steps"]


def test_progress_is_plain_data():
    target, entries, _ = problem(TREES["star"], 1, observed=0.8)
    steps = []
    done = complete(entries, target.dims, on_progress=steps.append)
    assert set(steps[0]) == {"stage", "tree", "start", "width", "ridge", "train_error", "held_out_error"}
    held_out = done.report["held_out"]
    assert len(held_out["observed"]) == len(held_out["predicted"]) == round(0.1 * len(entries))
    assert held_out["predicted"] == pytest.approx(held_out["observed"], rel=1e-6)
