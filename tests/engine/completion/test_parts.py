"""The parts of a completion, each against something computed otherwise."""

from __future__ import annotations

import math

import pytest
import torch

from htfcli.engine.completion.effects import fit_effects, main_terms, pair_terms
from htfcli.engine.completion.holes import find_holes, held_out_like
from htfcli.engine.completion.interpolation import Kernel, Neighbours, krige, likeness, smooth
from htfcli.engine.completion.links import Link
from htfcli.engine.completion.settings import SETTINGS
from htfcli.engine.completion.smoothing import coupling, solve_smooth
from htfcli.engine.completion.stacking import stack
from htfcli.engine.completion.uncertainty import calibrate
from htfcli.engine.completion.units import find_units
from htfcli.engine.completion.wide import WideFit
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.samples import Entries
from tests.problems import generator


def grid(*dims):
    return torch.cartesian_prod(*(torch.arange(d) for d in dims))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# --- units ------------------------------------------------------------------------------------------------------------


def test_variables_on_scales_of_their_own_are_brought_to_one():
    index = grid(30, 4)
    scale = torch.tensor([1e5, 3.0, 50.0, 0.2], dtype=torch.float64)
    value = normal(120) * scale[index[:, 1]] + 10 * scale[index[:, 1]]
    units = find_units(Entries(index, value), (30, 4), 5.0)
    assert units.mode == 1
    shift, size = units.of(index)
    scaled = (value - shift) / size
    for at in range(4):
        assert float(scaled[index[:, 1] == at].square().mean()) == pytest.approx(1.0)


def test_values_on_one_scale_share_their_root_mean_square():
    value = normal(120)
    units = find_units(Entries(grid(30, 4), value), (30, 4), 5.0)
    assert units.mode is None
    assert float(units.scale) == pytest.approx(float(value.square().mean().sqrt()))


def test_an_index_of_mostly_equal_values_is_no_variable_on_a_scale_of_its_own():
    """Its deviation is a four-hundredth of the others', as that of the margin of a photo."""
    index = grid(60, 4, 2)
    value = normal(480)
    edge = index[:, 1] == 2
    value[edge] = torch.where(index[edge, 0] < 4, 0.01 * value[edge], 0.0)
    assert find_units(Entries(index, value), (60, 4, 2), 30.0).mode is None
    value[edge] = 0.002 * normal(120, seed=1)
    assert find_units(Entries(index, value), (60, 4, 2), 30.0).mode == 1


def test_columns_of_a_matrix_are_variables_at_lower_ratios_than_modes_of_tensors_and_counts():
    """Deviations of 1, 6, 30 have logarithms of variance 1.9, of 3, 4, 6 one of .08."""
    index, draws = grid(16, 3), normal(48)

    def units(scales, value=draws, of=index):
        scaled = 2.0 + value * torch.tensor(scales, dtype=torch.float64)[of[:, 1]]
        return Entries(of, scaled)

    assert find_units(units([1.0, 6.0, 25.0]), (16, 3), 30.0).mode == 1
    assert find_units(units([3.0, 4.0, 6.0]), (16, 3), 30.0).mode is None
    counts = units([10.0, 60.0, 250.0])
    assert find_units(Entries(index, counts.value.round()), (16, 3), 30.0).mode is None
    deep = torch.cat([torch.nn.functional.pad(index, (0, 1), value=k) for k in (0, 1)])
    assert find_units(units([1.0, 6.0, 25.0], draws.repeat(2), deep), (16, 3, 2), 30.0).mode is None


@pytest.mark.parametrize(("missing", "shuffled", "mode"), [(True, False, None), (True, True, 0), (False, False, 0)])
def test_rows_of_an_image_are_no_variables_where_one_is_missing(missing, shuffled, mode):
    """Its brightness and contrast would have to be predicted; variables lie in no order."""
    at = torch.linspace(0, 3, 40, dtype=torch.float64)
    image = at.mul(2).exp().unsqueeze(1) * (2 + 0.3 * normal(40, 30))
    if shuffled:
        image = image[torch.randperm(40, generator=generator(1))]
    index = grid(40, 30)
    kept = (index[:, 0] != 17) | (not missing)
    assert find_units(Entries(index[kept], image.flatten()[kept]), (40, 30), 30.0).mode == mode


# --- effects ----------------------------------------------------------------------------------------------------------


def test_effects_of_a_balanced_table_are_shrunken_means():
    rows, columns = normal(20), normal(15, seed=1)
    index = grid(20, 15)
    value = 3 + rows[index[:, 0]] + columns[index[:, 1]] + 0.1 * normal(300, seed=2)
    effects = fit_effects(Entries(index, value), (20, 15), main_terms(2), None, 50)
    fitted = effects.at(index)
    table = value.view(20, 15)
    plain = (table.mean(1, keepdim=True) + table.mean(0) - table.mean()).flatten()
    assert float((fitted - plain).norm() / plain.norm()) < 5e-3
    assert abs(float(effects.at(torch.tensor([[-1, -1]]))) - effects.mean) < 1e-12


def test_effects_of_noise_disappear():
    index = grid(40, 30)
    effects = fit_effects(Entries(index, normal(1200)), (40, 30), main_terms(2), None, 100)
    assert float(effects.at(index).std()) < 0.15  # unshrunken ones: sqrt(1 / 40 + 1 / 30) = 0.24


def test_pairs_leave_out_those_with_too_many_cells():
    assert pair_terms((3, 4, 50), 30) == ((0,), (1,), (2,), (0, 1))


@pytest.mark.parametrize("name", ["log", "logit"])
def test_linked_effects_agree_with_scikit_learn(name):
    linear_model = pytest.importorskip("sklearn.linear_model")
    index, link = grid(6, 5).repeat(40, 1), Link(name, noise=1.0)
    eta = 0.8 * normal(6)[index[:, 0]] + 0.6 * normal(5, seed=1)[index[:, 1]]
    mean = link.value(eta)
    draw = generator(2)
    value = torch.poisson(mean, generator=draw) if name == "log" else torch.bernoulli(mean, generator=draw)
    effects = fit_effects(Entries(index, value), (6, 5), main_terms(2), None, 100, link)
    design = torch.cat([torch.nn.functional.one_hot(index[:, m]) for m in (0, 1)], 1).double().numpy()
    if name == "log":
        other = linear_model.PoissonRegressor(alpha=1e-6, max_iter=1000).fit(design, value.numpy()).predict(design)
    else:
        model = linear_model.LogisticRegression(C=1e4, max_iter=1000).fit(design, value.numpy())
        other = model.predict_proba(design)[:, 1]
    assert float((link.value(effects.at(index)) - torch.from_numpy(other)).abs().max()) < 0.12 * float(mean.max())


@pytest.mark.parametrize("name", ["log", "logit"])
def test_links_scale_values(name):
    link, eta = Link(name, 2.0, 3.0), torch.linspace(-2, 2, 9, dtype=torch.float64)
    value = link.value(eta)
    assert float(value.min()) > 2.0
    assert link.start(float(value[3])) == pytest.approx(float(eta[3]))
    assert torch.allclose(link.working(eta, value, None)[0], eta)  # a value where it is expected asks for no change


# --- wide factorizations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", [[0, 1, 2], [[0, 1], 2], [[0, 2], 1]])
def test_a_sweep_solves_every_matrix_exactly(tree):
    """After a sweep the last matrix solved is at the minimum of the ridge problem in it."""
    index = grid(6, 5, 4)[torch.randperm(120, generator=generator(0))[:80]]
    model = HierarchicalTensorFactorization((6, 5, 4), 3, ModeTree.from_nested(tree)).init_gaussian(0.5, generator(1))
    fit = WideFit(model, index, normal(80, seed=2))
    fit.run(400, 0.3, slow=0.0)
    parameters = model.parameters.clone().requires_grad_()
    weights = model.views(parameters)
    vectors = []
    for node, children in enumerate(model.tree.children):
        product = None
        for c in children:
            product = vectors[c] if product is None else product * vectors[c]
        vectors.append(weights[node][index[:, node]] if product is None else product @ weights[node])
    loss = (vectors[-1][:, 0] - normal(80, seed=2)).square().sum()
    own = sum(w.square().sum() for w in weights[:-1])
    (gradient,) = torch.autograd.grad(loss + 0.3 * own, parameters)
    assert float(gradient[:-3].abs().max()) < 2e-2 * float(normal(80, seed=2).norm())


def test_blocks_give_what_the_whole_gives():
    index = grid(8, 7, 6)
    models = []
    for cached in (True, False):
        model = HierarchicalTensorFactorization((8, 7, 6), 3, ModeTree.from_nested([[0, 1], 2]))
        fit = WideFit(model.init_gaussian(0.5, generator(1)), index, normal(336))
        fit._cached, fit._block = cached, 50
        fit.refresh()
        fit.sweep(0.1)
        models.append(model)
    assert torch.allclose(models[0].values(index), models[1].values(index), atol=0.2)


# --- smoothing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 7, 8, 20])
def test_smoothing_agrees_with_a_dense_solve(d):
    factors = normal(d, 4, 6)
    blocks = factors @ factors.mT + 0.1 * torch.eye(4, dtype=torch.float64)
    target = normal(d, 4, seed=1)
    between = torch.rand(d - 1, generator=generator(2), dtype=torch.float64) * 3
    dense = torch.block_diag(*blocks)
    for k in range(d - 1):
        difference = torch.zeros(4, 4 * d, dtype=torch.float64)
        difference[:, 4 * k : 4 * k + 4], difference[:, 4 * k + 4 : 4 * k + 8] = -torch.eye(4), torch.eye(4)
        dense += between[k] * difference.t() @ difference
    expected = torch.linalg.solve(dense, target.flatten()).view(d, 4)
    assert torch.allclose(solve_smooth(blocks, target, between), expected, atol=1e-9)


def test_gaps_count_by_their_distance():
    assert coupling(torch.tensor([0.0, 1.0, 2.0, 12.0]), 4).tolist() == pytest.approx([1.0, 1.0, 0.1])
    assert coupling(None, 3).tolist() == [1.0, 1.0]


# --- interpolation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smooth", [False, True])
def test_kriging_agrees_with_a_dense_solve(smooth):
    """Of the nearest observations, which here are all in the fibre."""
    index = torch.stack([torch.zeros(9, dtype=torch.int64), torch.tensor([0, 1, 2, 5, 6, 9, 12, 13, 19])], 1)
    residual = normal(9)
    query = torch.tensor([[0, 4], [0, 15], [1, 4]])
    kernel = Kernel((1,), (4.0,), 0.1, 12, smooth)
    near = Neighbours(index, (2, 20), [None, None])
    mean, variance = krige(near, query, kernel, residual)
    at, to = index[:, 1].double(), query[:2, 1].double()
    among = kernel.rho((at.unsqueeze(1) - at).abs() / 4) + (0.1 + 1e-6) * torch.eye(9, dtype=torch.float64)
    cross = kernel.rho((to.unsqueeze(1) - at).abs() / 4)
    assert torch.allclose(mean[:2], cross @ torch.linalg.solve(among, residual))
    assert torch.allclose(variance[:2], 1 - (cross * torch.linalg.solve(among, cross.t()).t()).sum(1))
    assert mean[2] == 0.0  # nothing is observed in its fibre
    assert variance[2] == 1.0


def test_the_nearest_observations():
    """Along two modes in units of their lengths, within a page, other indices of the cross mode nearer than a step."""
    index = grid(2, 5, 5, 2)
    near = Neighbours(index, (2, 5, 5, 2), [None, None, torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0]), None])
    query = torch.tensor([[1, 2, 1, 0]])

    def found(kernel):
        rows = near.nearest(query, kernel)[0]
        return [tuple(row) for row in index[rows[rows >= 0]].tolist()]

    one = found(Kernel((2,), (1.0,), 0.1, 9))
    assert one[0] == (1, 2, 1, 0)
    assert set(one[1:3]) == {(1, 2, 0, 0), (1, 2, 2, 0)}
    assert one[3:] == [(1, 2, 3, 0), (1, 2, 4, 0)]
    assert set(found(Kernel((1, 2), (1.0, 1.0), 0.1, 5))) == {
        (1, a, b, 0) for a, b in ((2, 1), (1, 1), (3, 1), (2, 0), (2, 2))
    }
    assert set(found(Kernel((1, 2), (9.0, 1.0), 0.1, 3))) == {(1, 1, 1, 0), (1, 2, 1, 0), (1, 3, 1, 0)}
    crossed = Kernel((2,), (1.0,), 0.1, 2, cross=3, correlation=torch.eye(2))
    assert found(crossed) == [(1, 2, 1, 0), (1, 2, 1, 1)]


def test_order_is_seen_where_it_means_something():
    index = grid(20, 60)
    walk = normal(20, 60).cumsum(1).flatten()
    shuffled = walk.view(20, 60)[:, torch.randperm(60, generator=generator(3))].flatten()
    assert likeness(index, walk, (20, 60), 1) < 0.3
    assert likeness(index, shuffled, (20, 60), 1) > 0.75
    assert likeness(index, walk, (20, 60), 0) > 0.75


def test_a_trend_is_smooth_and_random_numbers_are_not():
    assert smooth(torch.linspace(0, 1, 12, dtype=torch.float64).sin() + 0.05 * normal(12))
    assert not smooth(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))  # one order in three
    wrong = sum(smooth(normal(20, seed=seed)) for seed in range(1000))
    assert wrong < 25  # 6 expected of normal ones


# --- holes ------------------------------------------------------------------------------------------------------------


def test_missing_fibres_and_slices_are_kinds_of_their_own_and_imitated():
    seen = torch.rand(20, 15, 6, generator=generator(0)) < 0.8
    seen[2:6, :, 3] = False  # whole fibres along mode 1
    seen[:, 7] = False  # a slice
    index = torch.nonzero(seen)
    holes = find_holes(index, (20, 15, 6), None, (), SETTINGS)
    assert holes.names == ["random", "fibre of mode 0, 2", "fibre of mode 1"]
    kind, _ = held_out_like(holes, index, 0.08, torch.randperm(len(index), generator=generator(2)), generator(1))
    kept = torch.zeros(20, 15, 6, dtype=torch.bool)
    kept[index[kind < 0].unbind(1)] = True
    slices, fibres = index[kind == 1], index[kind == 2]
    assert len(slices) > 0
    assert len(fibres) > 0
    assert not kept[:, slices[:, 1]].any()
    assert not kept[fibres[:, 0], :, fibres[:, 2]].any()


def test_gaps_and_ends_of_an_ordered_mode_are_kinds_of_their_own_and_ends_stay_there():
    seen = torch.rand(40, 60, generator=generator(0)) < 0.8
    seen[:8, 20:32] = False
    seen[8:16, :15] = False
    index = torch.nonzero(seen)
    holes = find_holes(index, (40, 60), None, (1,), SETTINGS)
    assert sorted(holes.names) == ["end of mode 1", "gap in mode 1", "random"]
    assert holes.kind_of(torch.tensor([[0, 25], [8, 3]])).tolist() == [
        holes.names.index("gap in mode 1"),
        holes.names.index("end of mode 1"),
    ]
    kind, _ = held_out_like(holes, index, 0.08, torch.randperm(len(index), generator=generator(2)), generator(1))
    kept = torch.zeros(40, 60, dtype=torch.bool)
    kept[index[kind < 0].unbind(1)] = True
    ends, gaps = (index[kind == holes.names.index(name)] for name in ("end of mode 1", "gap in mode 1"))
    assert len(gaps) > 0
    assert len(ends) > 0
    for row in torch.unique(ends[:, 0]).tolist():
        assert not kept[row, : int(ends[ends[:, 0] == row, 1].max()) + 1].any()


def test_random_holes_are_random():
    index = torch.nonzero(torch.rand(20, 15, 6, generator=generator(0)) < 0.7)
    assert find_holes(index, (20, 15, 6), None, (0, 1, 2), SETTINGS).names == ["random"]


def test_indices_with_few_observations_are_a_kind():
    draw = generator(0)
    index = torch.unique(torch.stack([torch.randint(300, (4000,), generator=draw) for _ in range(2)], 1), dim=0)
    cold = index[:, 0] < 60
    index = index[~cold | (torch.rand(len(index), generator=draw) < 0.1)]
    wanted = torch.stack([torch.randint(60, (500,), generator=draw), torch.randint(300, (500,), generator=draw)], 1)
    holes = find_holes(index, (300, 300), wanted, (), SETTINGS)
    assert holes.starved[0][0] == 0
    kind, _ = held_out_like(holes, index, 0.1, torch.randperm(len(index), generator=generator(2)), generator(1))
    left = torch.bincount(index[kind < 0][:, 0], minlength=300)
    assert left[index[kind == 1][:, 0]].max() <= holes.starved[0][1]


# --- averages and uncertainty -----------------------------------------------------------------------------------------


def test_stacking_finds_the_weights_of_a_mixture():
    predictions = normal(5000, 3)
    value = predictions @ torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64) + 0.1 * normal(5000, seed=1)
    weights = stack(predictions, value, 5000, 6.0)
    assert weights.tolist() == pytest.approx([0.7, 0.3, 0.0], abs=0.02)
    assert float(weights.sum()) == pytest.approx(1.0)


def test_weights_of_few_entries_stay_near_equal_ones():
    value = normal(6)
    weights = stack(value.unsqueeze(1) + 0.5 * normal(6, 4, seed=1), value, 2, 0.0)
    assert float((weights - 0.25).abs().max()) < 0.2


def test_the_conformal_factor_holds_the_share_that_it_states():
    """Fresh draws from the same distribution, of two kinds with different tails."""
    n = 4000
    index = torch.stack([torch.arange(2 * n) % 7, torch.arange(2 * n) % 5], 1)
    spread = torch.rand(2 * n, generator=generator(1), dtype=torch.float64)
    kind = (torch.arange(2 * n) // 2) % 2
    residual = normal(2 * n) * (0.1 + spread).sqrt() * (1 + 2 * kind)
    counts = tuple(torch.full((d + 1,), 50.0, dtype=torch.float64) for d in (7, 5))
    zero = torch.zeros(n, dtype=torch.float64)
    found = calibrate(index[:n], residual[:n], spread[:n], zero, kind[:n], 2, torch.arange(n) // 4 % 2, counts)
    deviation = found.deviation(index[n:], spread[n:], zero)
    for level in (0.5, 0.9):
        inside = residual[n:].abs() <= deviation * found.quantile(kind[n:], level)
        for k in (0, 1):
            share = float(inside[kind[n:] == k].double().mean())
            assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / 2000) + 0.01
