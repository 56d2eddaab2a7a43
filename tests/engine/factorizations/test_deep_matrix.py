"""Deep matrix factorization against the product of its layers."""

from __future__ import annotations

from functools import reduce

import pytest
import torch

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.errors import ConfigError
from tests.problems import generator


@pytest.mark.parametrize(("depth", "widths"), [(2, 3), (3, [2, 5]), (5, [4, 3, 2, 6])])
def test_the_matrix_is_the_product_of_its_layers(depth, widths):
    model = MatrixFactorization((6, 4), depth, widths).init_gaussian(1.0, generator())
    layers = list(model.weights.values())
    inner = [widths] * (depth - 1) if isinstance(widths, int) else widths
    assert [tuple(layer.shape) for layer in layers] == list(zip([6, *inner], [*inner, 4], strict=True))
    assert list(model.weights) == [f"layer{k}" for k in range(depth)]
    assert model.depth == depth
    wanted = reduce(torch.matmul, layers)
    assert torch.allclose(model.dense(), wanted, rtol=1e-11, atol=1e-12)


def test_named_parts_of_a_gradient_are_those_of_its_layer():
    model = MatrixFactorization((3, 2), 3, [4, 5])
    vector = torch.arange(len(model.parameters), dtype=torch.float64)
    model.parameters.copy_(vector)
    for name, part in model.named(vector).items():
        assert torch.equal(part, model.weights[name])
    assert sorted(torch.cat([part.flatten() for part in model.named(vector).values()]).tolist()) == vector.tolist()


def test_default_widths_are_the_smaller_dimension():
    model = MatrixFactorization.from_config(FitConfig(model="matrix", depth=4), (5, 3), torch.float64, "cpu")
    assert [model.widths[v] for v in model.tree.interior] == [3, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 2, 2),), r"a matrix factorization needs two modes \(got 3, allowed 2\)"),
        (((2, 2), 1), r"the depth of a matrix factorization is too small \(got 1, allowed 2 or more\)"),
        (((2, 2), 3, [1]), r"the widths do not match the depth \(got 1, allowed 1 or 2 for depth 3\)"),
        (((2, 2), 3, [1, 0]), r"the width of node .* is not positive \(got 0, allowed 1 or more\)"),
    ],
)
def test_what_cannot_be(arguments, message):
    with pytest.raises(ConfigError, match=message):
        MatrixFactorization(*arguments)
