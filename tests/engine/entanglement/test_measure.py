"""Entanglement against closed forms, and against singular values of the data tensor itself."""

from __future__ import annotations

import math

import pytest
import torch

from htfcli.engine.entanglement import gram
from htfcli.engine.entanglement.exact import exact_entanglement, factor_of
from htfcli.engine.entanglement.features import FeatureData
from htfcli.engine.entanglement.measure import measure_entanglement


def features(values, shape=None, labels=None):
    values = torch.as_tensor(values, dtype=torch.float64)
    values = values if values.dim() == 3 else values[:, :, None]
    return FeatureData("x", values, shape or (values.shape[1],), labels, common_scale=True)


def uniform(samples, *shape, seed=0):
    return torch.rand(samples, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(data, theta, partition):
    """Entropy and geometric entanglement from the data tensor, whose singular values are computed."""
    x = data.scaled()
    _, count, channels = x.shape
    found = []
    for y in data.signs():
        tensor = torch.zeros(2 ** (count * channels), dtype=torch.float64)
        for sign, sample in zip(y, x.flatten(1), strict=True):
            product = sign.view(1)
            for angle in math.pi * theta * sample:
                product = torch.outer(product, torch.stack([angle.cos(), angle.sin()])).flatten()
            tensor += product
        ours = [n * channels + c for n in partition.features for c in range(channels)]
        rest = [n for n in range(count * channels) if n not in ours]
        matrix = tensor.view([2] * (count * channels)).permute(ours + rest).reshape(2 ** len(ours), -1)
        rho = torch.linalg.svdvals(matrix).square()
        rho /= rho.sum()
        found.append((-float(torch.special.xlogy(rho, rho).sum()), math.sqrt(1 - float(rho.max()))))
    return [sum(numbers) / len(found) for numbers in zip(*found, strict=True)]


@pytest.mark.parametrize(
    ("samples", "count", "theta", "classes"),
    [(30, 8, 0.085, 2), (12, 12, 0.085, 3), (40, 11, 0.5, 2), (150, 10, 0.3, 0), (5, 12, 0.2, 2)],
)
def test_exact_on_a_line(samples, count, theta, classes):
    labels = torch.arange(samples) % classes if classes else None
    data = features(uniform(samples, count), labels=labels)
    for found in measure_entanglement(data, [1, 2, 3], theta):
        entropy, geometric = dense(data, theta, found.partition)
        assert found.entanglement.entropy == pytest.approx(entropy, abs=1e-10)
        assert found.entanglement.geometric == pytest.approx(geometric, abs=1e-10)
        assert found.entanglement.error == 0


def test_exact_on_a_grid_with_channels():
    data = features(uniform(20, 4, 3), shape=(2, 2), labels=torch.arange(20) % 2)
    for found in measure_entanglement(data, [1], 0.25):
        assert found.entanglement.entropy == pytest.approx(dense(data, 0.25, found.partition)[0], abs=1e-10)


def test_exact_where_a_block_is_decomposed_not_multiplied_out():
    """Ten features on one side: their Gram matrix has more than 512 columns as a product."""
    data = features(uniform(60, 12), labels=torch.arange(60) % 2)
    x = data.scaled()[:, :, 0]
    ours, rest = (gram.log_gram(part, 0.2) for part in (x[:, :10], x[:, 10:]))
    found = exact_entanglement(factor_of(x[:, :10], 0.2, ours), rest.exp(), data.signs())
    other = exact_entanglement(factor_of(x[:, 10:], 0.2, rest), ours.exp(), data.signs())
    assert found.entropy == pytest.approx(other.entropy, abs=1e-10)
    assert factor_of(x[:, :10], 0.2, ours).shape[1] <= 60 < 2**10


def entropies(data, level, theta=0.5):
    return {
        found.partition.features: found.entanglement.entropy for found in measure_entanglement(data, [level], theta)
    }


def corners(count):
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * count)


def test_product_data_have_none():
    grid = torch.cartesian_prod(*[torch.tensor([0.0, 0.3, 1.0])] * 6)  # independent features
    for theta in (0.085, 0.5):
        assert entropies(features(grid), 1, theta) == pytest.approx({(0, 1, 2): 0, (3, 4, 5): 0}, abs=1e-10)


def test_a_parity_label_is_a_product_too():
    """(-1)^(x_0 + x_7) = (-1)^x_0 (-1)^x_7, so that the data tensor has rank one however far apart the two are."""
    x = corners(8)
    labels = ((x[:, 0] + x[:, 7]) % 2).long()
    assert max(entropies(features(x, labels=labels), 2).values()) < 1e-10


@pytest.mark.parametrize("other", [1, 7])
def test_two_features_that_decide_together_have_log_2_across_what_separates_them(other):
    """y = +1 where both are 1, else -1: sign table [[-1, -1], [-1, 1]], whose singular values are equal."""
    x = corners(8)
    labels = ((x[:, 0] * x[:, other]) == 1).long()
    for level in (1, 2, 3):
        for block, entropy in entropies(features(x, labels=labels), level).items():
            separated = (0 in block) != (other in block)
            assert entropy == pytest.approx(math.log(2) if separated else 0, abs=1e-10)


def test_two_features_that_are_equal_have_log_2_without_labels():
    x = corners(8)
    x = x[x[:, 1] == x[:, 6]]
    for block, entropy in entropies(features(x), 2).items():
        assert entropy == pytest.approx(math.log(2) if (1 in block) != (6 in block) else 0, abs=1e-10)


def test_opposite_labels_of_equal_samples_leave_nothing():
    x = uniform(10, 6)
    data = features(torch.cat([x, x]), labels=(torch.arange(20) >= 10).long())
    assert set(entropies(data, 1, 0.085).values()) == {0.0}


def test_no_underflow_with_thousands_of_features():
    """The Gram matrices are the identity to rounding: M equal singular values."""
    data = features(uniform(20, 3000), labels=torch.arange(20) % 2)
    for found in measure_entanglement(data, [1], 0.5):
        assert found.entanglement.entropy == pytest.approx(math.log(20), abs=1e-9)
        assert found.entanglement.geometric == pytest.approx(math.sqrt(1 - 1 / 20), abs=1e-9)


@pytest.mark.parametrize(("theta", "expanded"), [(0.085, True), (0.25, True), (0.5, False)])
def test_gram_matrices_are_products_of_cosines(theta, expanded):
    x = uniform(15, 40)
    product = (math.pi * theta * (x[:, None] - x)).cos().prod(2)
    assert (gram._expansion(theta, 1e-14) is not None) is expanded
    torch.testing.assert_close(gram.log_gram(x, theta).exp(), product, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("kind", "theta"), [("independent", 0.085), ("independent", 0.25), ("four causes", 0.2), ("four causes", 0.4)]
)
def test_estimates_are_within_their_error(kind, theta):
    x = uniform(300, 64)
    if kind == "four causes":
        x = torch.sigmoid(4 * (uniform(300, 4, seed=1) @ uniform(4, 64, seed=2) - 1))
    labels = (x[:, :32].sum(1) > x[:, 32:].sum(1)).long()
    data = features(x, labels=labels)
    exact = list(measure_entanglement(data, [1, 2], theta, exact=True))
    estimated = list(measure_entanglement(data, [1, 2], theta, exact=False))
    for one, other in zip(exact, estimated, strict=True):
        # the fixed seed keeps within four standard errors
        assert abs(one.entanglement.entropy - other.entanglement.entropy) < 4 * other.entanglement.error
        assert other.entanglement.error < 0.05  # entropies are up to 2.5
        assert one.entanglement.geometric == pytest.approx(other.entanglement.geometric, abs=1e-3)
    again = list(measure_entanglement(data, [1, 2], theta, exact=False))
    assert [m.entanglement for m in again] == [m.entanglement for m in estimated]


@pytest.mark.parametrize(("samples", "count", "theta"), [(300, 8, 0.085), (20, 4, 0.5)])
def test_estimates_of_few_features(samples, count, theta):
    """Fewer directions than there are Lanczos steps."""
    x = uniform(samples, count)
    data = features(x, labels=(x[:, 0] + x[:, 1] > 1).long())
    for one, other in zip(
        measure_entanglement(data, [1, 2], theta, exact=True),
        measure_entanglement(data, [1, 2], theta, exact=False),
        strict=True,
    ):
        assert abs(one.entanglement.entropy - other.entanglement.entropy) < 4 * other.entanglement.error
        assert one.entanglement.geometric == pytest.approx(other.entanglement.geometric, abs=1e-3)


def test_the_surrogate_is_the_mean_correlation_across():
    x = uniform(50, 6)
    x[:, 4] = 2 * x[:, 0] + 0.1 * x[:, 1]
    x[:, 3] = 0.25  # constant: correlation zero
    r = torch.corrcoef(x.T).nan_to_num().abs()
    for found in measure_entanglement(features(x), [1, 2]):
        ours = list(found.partition.features)
        rest = [n for n in range(6) if n not in ours]
        assert found.surrogate == pytest.approx(float(r[ours][:, rest].mean()), abs=1e-12)
