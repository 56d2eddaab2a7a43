"""`complete` on problems with known answers, and on data where there is little or nothing to find."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
import torch

from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion.complete import complete
from htfcli.engine.completion.result import Completion
from htfcli.engine.completion.settings import SETTINGS
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError
from tests.problems import generator


def grid(*dims):
    return torch.cartesian_prod(*(torch.arange(d) for d in dims))


def low_rank(dims=(12, 10, 8), width=2, noise=0.0, share=0.6, seed=0):
    """Observed entries, unobserved ones and their true values."""
    draw = generator(seed)
    model = HierarchicalTensorFactorization(dims, width).init_gaussian(1.0, draw)
    index = grid(*dims)
    value = model.values(index)
    value /= value.square().mean().sqrt()
    seen = torch.rand(len(index), generator=draw) < share
    noisy = value + noise * torch.randn(len(index), generator=draw, dtype=torch.float64)
    return Entries(index[seen], noisy[seen]), index[~seen], value[~seen]


def relative(got, wanted):
    return float((got - wanted).norm() / wanted.norm())


def test_clean_data_are_recovered_exactly():
    entries, rest, truth = low_rank()
    done = complete(entries, (12, 10, 8))
    assert relative(done.values(rest), truth) < 1e-9
    assert set(done.report["widths"].values()) == {2}
    assert done.report["warnings"] == []


def test_a_small_exact_table_with_a_row_seen_twice():
    draw = generator()
    rows, columns = (0.5 + torch.rand(d, generator=draw, dtype=torch.float64) for d in (12, 4))
    seen = torch.ones(12, 4, dtype=torch.bool)
    seen[3, :2] = seen[8, 1:3] = seen[11, 3] = False
    table = rows[:, None] * columns
    done = complete(Entries(torch.nonzero(seen), table[seen]), (12, 4))
    assert relative(done.values(torch.nonzero(~seen)), table[~seen]) < 1e-9
    assert done.report["held_out_error"] < 1e-9
    assert done.report["outliers"] == 0


def test_many_modes_are_fitted_from_weights_near_one():
    dims, draw = (4,) * 13, generator()  # more cells than are kept in a table
    model = HierarchicalTensorFactorization(dims, 2).init_gaussian(0.2, draw)
    for node, weight in enumerate(model.node_weights):
        assert weight is not None
        weight.add_(torch.eye(2, dtype=weight.dtype) if 13 <= node < model.tree.root else 1.0)
    index = torch.randint(4, (2500, 13), generator=draw)
    value = model.values(index)
    value /= value.square().mean().sqrt()
    done = complete(Entries(index[:1500], value[:1500]), dims, CompleteConfig(effort="quick"))
    assert relative(done.values(index[1500:]), value[1500:]) < 0.1


def test_noise_is_averaged_out():
    entries, rest, truth = low_rank(noise=0.1)
    done = complete(entries, (12, 10, 8))
    assert relative(done.values(rest), truth) < 0.1
    assert 0.05 < done.report["held_out_error"] < 0.2
    inside = (done.values(rest) - truth).abs() < 1.645 * done.std(rest)
    assert float(inside.double().mean()) > 0.85


def test_the_order_of_the_entries_means_nothing():
    entries, rest, _ = low_rank(noise=0.1)
    shuffled = entries.select(torch.randperm(len(entries), generator=generator(1)))
    one, other = complete(entries, (12, 10, 8)), complete(shuffled, (12, 10, 8))
    assert torch.allclose(one.values(rest), other.values(rest), rtol=1e-9, atol=1e-12)
    assert torch.allclose(one.std(rest), other.std(rest), rtol=1e-9, atol=1e-12)


def test_intervals_hold_where_members_are_chosen_on_a_part(monkeypatch):
    """As of 10^7 observations, of which a tenth chooses the members: the last fit has ten times as many."""
    monkeypatch.setattr("htfcli.engine.completion.complete.SETTINGS", replace(SETTINGS, most_selected=1600))
    entries, rest, truth = low_rank((30, 30, 30), noise=0.3)
    done = complete(entries, (30, 30, 30), CompleteConfig(tree="star", width=4))
    noisy = truth + 0.3 * torch.randn(len(truth), generator=generator(7), dtype=torch.float64)
    lower, upper = done.interval(rest, 0.9)
    assert 0.87 < float(((lower <= noisy) & (noisy <= upper)).double().mean()) < 0.97


def test_a_state_gives_the_same_predictions():
    entries, rest, _ = low_rank(noise=0.1)
    done = complete(entries, (12, 10, 8), CompleteConfig(effort="quick"))
    again = Completion.from_state(*done.state())
    query = torch.cat([rest, torch.tensor([[-1, 0, 0], [3, -1, -1]])])
    assert torch.equal(done.values(query), again.values(query))
    assert torch.equal(done.std(query), again.std(query))
    assert bool(torch.isfinite(done.values(query)).all())


def test_a_damaged_state_is_refused():
    entries, _, _ = low_rank(noise=0.1)
    tensors, content = complete(entries, (12, 10, 8), CompleteConfig(effort="quick")).state()
    member = next(k for k, m in enumerate(content["members"]) if m["model"] is not None)
    damages = [
        lambda tensors, content: tensors.pop("weights"),
        lambda tensors, content: tensors.update(weights=tensors["weights"][:, :-1].contiguous()),
        lambda tensors, content: tensors.update({f"members/{member}/model": torch.zeros(3, dtype=torch.float64)}),
        lambda tensors, content: content.pop("columns"),
        lambda tensors, content: content.update(dims=[12, 10]),
        lambda tensors, content: content.update(integers="yes"),
        lambda tensors, content: content["members"][member]["model"].update(tree=[0, [1, 1]]),
        lambda tensors, content: content["columns"][0].update(mix="weights"),
        lambda tensors, content: content["members"][member]["link"].update(name="exp"),
    ]
    for damage in damages:
        own, described = dict(tensors), copy.deepcopy(content)
        damage(own, described)
        with pytest.raises(DataError, match=r"^the completion is damaged: [^\n]*$"):
            Completion.from_state(own, described)
    json.dumps(content, allow_nan=False)  # nothing that another reader of JSON would refuse
    Completion.from_state(tensors, json.loads(json.dumps(content)))


def test_spikes_are_left_out():
    draw = generator(3)
    model = HierarchicalTensorFactorization((14, 12, 10), 2, ModeTree.named("star", 3)).init_gaussian(1.0, draw)
    model.parameters.copy_(model.parameters.sign() * (0.5 + torch.rand(len(model.parameters), generator=draw).double()))
    index = grid(14, 12, 10)
    value = model.values(index) / model.values(index).square().mean().sqrt()
    seen = torch.rand(len(index), generator=draw) < 0.5
    noisy = value + 0.02 * torch.randn(len(index), generator=draw, dtype=torch.float64)
    entries, rest, truth = Entries(index[seen], noisy[seen]), index[~seen], value[~seen]
    spikes = torch.rand(len(entries), generator=generator(5)) < 0.02
    done = complete(Entries(entries.index, entries.value + 30.0 * spikes), (14, 12, 10))
    assert done.report["outliers"] == int(spikes.sum())
    assert relative(done.values(rest), truth) < 0.02


def test_additive_data_need_no_more_than_effects():
    index = grid(20, 15, 8)
    draw = generator(0)
    truth = 10 + sum(
        torch.randn(d, generator=draw, dtype=torch.float64)[index[:, m]] for m, d in enumerate((20, 15, 8))
    )
    noisy = truth + 0.5 * torch.randn(len(index), generator=draw, dtype=torch.float64)
    seen = torch.rand(len(index), generator=draw) < 0.15
    done = complete(Entries(index[seen], noisy[seen]), (20, 15, 8))
    off = (done.values(index[~seen]) - truth[~seen]).square().mean().sqrt()
    assert float(off) < 0.35  # of effects that stand for 1.7


def test_noise_gives_its_mean_and_a_warning():
    draw = generator(0)
    index = grid(12, 12, 12)[torch.randperm(1728, generator=draw)[:170]]
    value = 1 + 4 * torch.rand(170, generator=draw, dtype=torch.float64)
    done = complete(Entries(index, value), (12, 12, 12))
    assert any("hardly beats the mean" in w or "no factorization" in w for w in done.report["warnings"])
    assert float((done.values(grid(12, 12, 12)) - value.mean()).abs().max()) < 1.5


@pytest.mark.parametrize("count", [1, 3, 7])
def test_too_few_entries_give_their_mean(count):
    index = grid(4, 4, 4)[:: 64 // count][:count]
    value = torch.arange(1, count + 1, dtype=torch.float64)
    done = complete(Entries(index, value), (4, 4, 4))
    assert done.values(grid(4, 4, 4)).tolist() == pytest.approx([float(value.mean())] * 64)
    assert done.report["r2"] is None
    assert bool(torch.isfinite(done.std(grid(4, 4, 4))).all())


def test_ordered_modes_are_interpolated():
    t = torch.arange(60, dtype=torch.float64)
    draw = generator(0)
    phase, speed = 6 * torch.rand(12, generator=draw, dtype=torch.float64), 5 + 10 * torch.rand(12, generator=draw)
    tensor = torch.sin(t / speed.double().unsqueeze(1) + phase.unsqueeze(1)) + phase.unsqueeze(1)
    seen = torch.rand(12, 60, generator=draw) < 0.6
    done = complete(Entries(torch.nonzero(seen), tensor[seen]), (12, 60))
    off = done.values(torch.nonzero(~seen)) - tensor[~seen]
    assert float(off.square().mean().sqrt()) < 0.02
    assert [one["mode"] for one in done.report["ordered"]] == [1]


def test_a_missing_year_of_an_additive_trend_is_interpolated():
    """What effects leave says nothing about the order of the years."""
    years = torch.arange(30, dtype=torch.float64)
    season = torch.randn(12, generator=generator(0), dtype=torch.float64)
    noise = 0.1 * torch.randn(30, 12, generator=generator(1), dtype=torch.float64)
    tensor = 0.5 * years.unsqueeze(1) + 3 * torch.sin(years / 4).unsqueeze(1) + season + noise
    seen = torch.rand(30, 12, generator=generator(2)) < 0.7
    seen[11] = seen[19] = False
    done = complete(Entries(torch.nonzero(seen), tensor[seen]), (30, 12))
    off = done.values(grid(30, 12)).view(30, 12)[[11, 19]] - tensor[[11, 19]]
    assert float(off.square().mean().sqrt()) < 0.5  # the effect of an index never seen is zero: 4.9
    assert 0 in [one["mode"] for one in done.report["ordered"]]


def test_small_variables_of_a_matrix_are_worth_as_much_as_large_ones():
    draw = generator(0)
    factor = torch.randn(25, 1, generator=draw, dtype=torch.float64)
    standard = factor * torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
    standard += 0.3 * torch.randn(25, 5, generator=draw, dtype=torch.float64)
    table = standard * torch.tensor([1.0, 3.0, 0.5, 12.0, 8.0], dtype=torch.float64) + 40.0
    seen = torch.rand(25, 5, generator=draw) < 0.8
    done = complete(Entries(torch.nonzero(seen), table[seen]), (25, 5))
    off = (done.values(torch.nonzero(~seen)) - table[~seen]) / table.std(0)[torch.nonzero(~seen)[:, 1]]
    assert float(off.square().mean().sqrt()) < 0.6
    assert done.report["units"]["mode"] == 1


def test_positive_products_are_effects_on_a_logarithmic_scale():
    draw = generator(0)
    rows, columns = (torch.randn(d, generator=draw, dtype=torch.float64) for d in (9, 7))
    noise = 0.03 * torch.randn(9, 7, generator=draw, dtype=torch.float64)
    table = (1.5 * rows.unsqueeze(1) + 0.5 * columns + noise).exp()
    seen = torch.rand(9, 7, generator=draw) < 0.75
    done = complete(Entries(torch.nonzero(seen), table[seen]), (9, 7))
    assert relative(done.values(torch.nonzero(~seen)), table[~seen]) < 0.1
    assert done.report["loss"] == "l2"  # no counts
    assert any("log" in member["name"] for member in done.report["members"])


def test_bounds_integers_and_measurement_errors():
    entries, rest, _ = low_rank(noise=0.1)
    low, high = float(entries.value.min()), float(entries.value.max())
    config = CompleteConfig(min=low, max=high, integers=True, effort="quick")
    done = complete(entries, (12, 10, 8), config, std=torch.full((len(entries),), 0.1, dtype=torch.float64))
    values = done.values(rest)
    assert float(values.min()) >= low
    assert float(values.max()) <= high
    assert torch.equal(values, values.round())


@pytest.mark.parametrize(
    ("value", "config", "message"),
    [
        (float("nan"), {}, "NaN or infinite"),
        (-1.0, {"nonnegative": True}, "non-negative"),
        (-1.0, {"min": 0.0}, "below --min"),
        (9.0, {"max": 5.0}, "above --max"),
    ],
)
def test_bad_data_are_refused(value, config, message):
    entries, _, _ = low_rank()
    entries = Entries(entries.index, entries.value.clone().abs().clamp(max=4))
    entries.value[3] = value
    with pytest.raises(DataError, match=message):
        complete(entries, (12, 10, 8), CompleteConfig(**config))


def test_two_values_are_probabilities():
    draw = generator(0)
    index = grid(30, 25)
    chance = torch.sigmoid(
        1.5 * torch.randn(30, generator=draw)[index[:, 0]] + torch.randn(25, generator=draw)[index[:, 1]]
    )
    value = torch.bernoulli(chance, generator=draw).double()
    seen = torch.rand(750, generator=draw) < 0.7
    done = complete(Entries(index[seen], value[seen]), (30, 25))
    got = done.values(index[~seen])
    assert 0.0 <= float(got.min()) <= float(got.max()) <= 1.0
    assert float((got - chance[~seen]).square().mean().sqrt()) < 0.2


def test_imputations_have_the_spread_that_is_stated():
    entries, rest, _ = low_rank(noise=0.3)
    done = complete(entries, (12, 10, 8), CompleteConfig(effort="quick"))
    draws = done.imputations(rest, 400, generator(0))
    ratio = draws.std(0) / done.std(rest)
    assert 0.85 < float(ratio.median()) < 1.15
    assert math.isclose(float((draws.mean(0) - done.values(rest)).mean()), 0.0, abs_tol=0.05)


def test_threads_are_set_and_missing_devices_refused():
    entries, _, _ = low_rank()
    before = torch.get_num_threads()
    try:
        complete(entries, (12, 10, 8), CompleteConfig(threads=1, effort="quick"))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ConfigError, match="is not available"):
        complete(entries, (12, 10, 8), CompleteConfig(device="cuda:99"))


def share_covered(repetitions):
    """Share of hidden values, noise included, inside the 90 % interval; all repetitions together."""
    inside, count = 0, 0
    for seed in range(repetitions):
        draw = generator(1000 + seed)
        a, b = (torch.randn(d, 2, generator=draw, dtype=torch.float64) for d in (16, 14))
        table = a @ b.t() + 0.5 * torch.randn(16, 14, generator=draw, dtype=torch.float64)
        seen = torch.rand(16, 14, generator=draw) < 0.7
        config = CompleteConfig(effort="quick", seed=seed)
        done = complete(Entries(torch.nonzero(seen), table[seen]), (16, 14), config, unordered=(0, 1))
        low, high = done.interval(torch.nonzero(~seen), 0.9)
        inside += int(((low <= table[~seen]) & (table[~seen] <= high)).sum())
        count += int((~seen).sum())
    return inside / count


def test_intervals_cover_what_they_state():
    assert 0.82 < share_covered(10) < 0.97


@pytest.mark.long
def test_intervals_cover_what_they_state_in_500_repetitions():
    assert 0.88 <= share_covered(500) <= 0.92
