from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.ranks.hierarchical_rank import hierarchical_rank
from htfcli.engine.ranks.matricization import matricize
from htfcli.engine.vision.datasets.image_set import Normalization, Patch, StoredImages
from htfcli.engine.vision.locality import (
    LocalityMeter,
    cross_table,
    factorization_records,
    gradient_profile,
    of_table,
    spaced_distances,
)
from htfcli.engine.vision.resnet import resnet
from tests.engine.vision.networks import Product, Separable, SumOfProducts, ViT
from tests.problems import generator

SHAPE = (2, 4, 12)
LEFT, RIGHT = Patch(0, 0, 4, 6), Patch(0, 6, 4, 6)


def images(count=40, shape=SHAPE, seed=0):
    pixels = torch.randint(256, (count, *shape), generator=generator(seed), dtype=torch.uint8)
    ones = torch.ones(shape[0])
    return StoredImages(pixels, torch.arange(count) % 2, Normalization(0.5 * ones, 0.25 * ones))


def table_of(model, count=20):
    x = images().images(torch.arange(2 * count)).double()
    y = torch.zeros(1, dtype=torch.int64)
    return cross_table(model.double(), x[:1], y, x[:count], x[count:], LEFT, RIGHT)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_separable_network_has_no_dependence():
    measured = LocalityMeter(Separable(*SHAPE).double(), images(), pairs=6).at_distance(2, 8)
    assert measured["dependence"] == pytest.approx(0, abs=1e-12)
    assert measured["additive_residual"] == pytest.approx(0, abs=1e-20)
    assert of_table(table_of(Separable(*SHAPE)))["additive_residual"] < 1e-20
    assert of_table(table_of(Product(*SHAPE)))["additive_residual"] > 0.1


def test_a_dependent_network_is_seen():
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, 16), nn.Tanh(), nn.Linear(16, 1))
    with torch.no_grad():
        model[1].weight.mul_(4)
    measured = LocalityMeter(model.double(), images(), pairs=6).at_distance(2, 8)
    assert measured["dependence"] > 0.05
    assert measured["additive_residual"] > 1e-3
    assert measured["distance"] == 8
    assert measured["pairs"] == 6


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_sum_of_products_has_their_number_as_rank(count):
    model = Product(*SHAPE) if count == 1 else SumOfProducts(count, *SHAPE)
    found = of_table(table_of(model))
    values = torch.tensor(found["singular_values"])
    assert int((values > 1e-12 * values[0]).sum()) == count
    assert (found["rank_one_residual"] < 1e-20) == (count == 1)
    assert (found["effective_rank"] < 1 + 1e-9) == (count == 1)


class Circuit(nn.Module):
    """The convolutional arithmetic circuit of a factorization: one-hot positions (b, d, 1, N), products up the tree."""

    def __init__(self, factorization):
        super().__init__()
        self.tree, self.order = factorization.tree, factorization.order
        self.weights = factorization.node_weights

    def forward(self, x):
        tree = self.tree
        built = {n: x[:, :, 0, n] @ self.weights[n] for n in range(self.order)}
        for node in tree.interior:
            product = torch.stack([built[c] for c in tree.children[node]]).prod(0)
            built[node] = product @ self.weights[node]
        return built[tree.root]


def test_a_circuit_has_the_hierarchical_ranks_of_its_tensor():
    """Cross tables over all one-hot inputs of both sides are the matricizations, entry by entry."""
    order, dim = 4, 3
    tree = ModeTree.named("balanced", order)
    model = HierarchicalTensorFactorization((dim,) * order, {"{0,1}": 2, "{2,3}": 3, "{0,1,2,3}": 2}, tree)
    model.init_gaussian(1.0, generator(1))
    tensor = model.dense()
    ranks = hierarchical_rank(tensor, tree, tolerance=1e-10)
    circuit = Circuit(model)
    halves = torch.tensor(list(itertools.product(range(dim), repeat=2)))
    both = torch.cat([halves, halves], 1)  # the row's digits on the left, the column's on the right
    x = torch.nn.functional.one_hot(both, dim).double().permute(0, 2, 1)[:, :, None, :]
    left, right = Patch(0, 0, 1, 2), Patch(0, 2, 1, 2)
    table = cross_table(circuit, x[:1], torch.zeros(1, dtype=torch.int64), x, x, left, right)
    assert torch.allclose(table, matricize(tensor, [0, 1]), rtol=1e-10, atol=1e-12)
    values = torch.tensor(of_table(table)["singular_values"])
    assert int((values > 1e-10 * values[0]).sum()) == 2
    assert ranks[tree.find([0, 1])] == ranks[tree.find([2, 3])] == 2


def test_factorization_records_group_nodes_by_span():
    model = HierarchicalTensorFactorization((3,) * 4, 2, ModeTree.from_nested([[0, 2], [1, 3]]))
    records = list(factorization_records(model.init_gaussian(1.0, generator(0))))
    assert [(r["distance"], r["nodes"]) for r in records] == [
        (0, ["{0}", "{1}", "{2}", "{3}"]),
        (2, ["{0,2}", "{1,3}"]),
    ]
    assert records[1]["rank"] == 2


def test_patches_that_never_differ_are_left_out():
    blank = images()
    blank.pixels[..., 6:] = 0
    meter = LocalityMeter(Separable(*SHAPE).double(), blank, pairs=4)
    assert meter.at_distance(2, 8)["pairs"] == 4  # J on the left, I on the right
    blank.pixels[:] = 7
    assert meter.at_distance(2, 8) is None


def test_gradient_profile_of_a_convolution_is_its_kernel():
    conv = nn.Conv2d(1, 1, 5, padding=2, bias=False).double()
    with torch.no_grad():
        conv.weight.fill_(1.0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x, y = torch.randn(2, 1, 15, 15, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    unit, profile = gradient_profile(nn.Sequential(conv, nn.Identity(), head), x, y)
    assert unit == "feature map"
    assert profile.tolist() == pytest.approx([1 / 25, 8 / 25, 16 / 25, 0, 0, 0, 0, 0])
    assert gradient_profile(nn.Sequential(conv.requires_grad_(False), head).eval(), x, y)[1] is not None


def test_gradient_profile_of_a_network_without_a_map_is_that_of_its_output():
    """The weights of a linear network are its gradient."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(225, 1, bias=False)).double()
    with torch.no_grad():
        flat[1].weight.zero_()
        flat[1].weight.view(15, 15)[6:9, 6:9] = 1  # about the centre, and as much three rows from it
        flat[1].weight.view(15, 15)[4, 7] = flat[1].weight.view(15, 15)[10, 7] = 4.5
    x, y = torch.randn(2, 1, 15, 15, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    unit, profile = gradient_profile(flat, x, y)
    assert unit == "output"
    assert profile.tolist() == pytest.approx([1 / 18, 8 / 18, 0, 9 / 18, 0, 0, 0, 0])


@pytest.mark.parametrize("own_attention", [True, False])
def test_attention_is_not_measured_at_the_patches_it_starts_from(own_attention):
    torch.manual_seed(0)
    meter = LocalityMeter(ViT(own_attention, outputs=1), images(shape=(2, 8, 16)), samples=8)
    record = meter.receptive_field()
    assert record["unit"] == "output"
    assert record["effective_receptive_field"] > 9  # patches of 4 x 4, all of which the output sees


def test_a_network_that_ignores_its_input_has_no_profile():
    blind = nn.Sequential(nn.Flatten(), nn.Linear(225, 1)).double()
    with torch.no_grad():
        blind[1].weight.zero_()
    x, y = torch.randn(2, 1, 15, 15, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    assert gradient_profile(blind, x, y) == ("output", None)


def test_the_effective_field_is_inside_the_receptive_field():
    meter = LocalityMeter(resnet("resnet-mini", 1, 1), images(shape=(1, 64, 64)), samples=8)
    record = meter.receptive_field()
    assert 5 < record["effective_receptive_field"] <= 47
    assert sum(record["profile"]) == pytest.approx(1)
    assert sum(record["profile"][26:]) < 1e-3  # the centre of weight may be off by a pixel or two


def test_measuring_does_not_change_the_network():
    model = resnet("resnet-mini", 2, 1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    meter = LocalityMeter(model, images(), pairs=2)
    once, again = (meter.at_distance(2, 4) for _ in range(2))
    assert once == again
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_spaced_distances():
    assert spaced_distances(48, 8) == [0, 4, 8, 12, 16, 20, 24, 28, 32]
    assert spaced_distances(10, 4) == [0, 1, 2]
    assert spaced_distances(4, 4) == [0]
