"""Hierarchical tensor factorization against its definition, and its widths."""

from __future__ import annotations

import pytest
import torch

from htfcli.config.tensors import DEFAULT_WIDTH, FitConfig
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.errors import ConfigError
from tests.problems import generator


def test_the_tensor_is_its_definition():
    """T^(v, r) = sum over r' of W^(v)[r', r] times the outer product of the children's tensors, as one einsum."""
    model = HierarchicalTensorFactorization((2, 3, 4, 2), [3, 2]).init_gaussian(1.0, generator())
    w = model.weights
    assert {name: tuple(weight.shape) for name, weight in w.items()} == {
        "{0}": (2, 3), "{1}": (3, 3), "{2}": (4, 3), "{3}": (2, 3),
        "{0,1}": (3, 2), "{2,3}": (3, 2), "{0,1,2,3}": (2, 1),
    }  # fmt: skip
    wanted = torch.einsum(
        "ap,bp,pr,cq,dq,qr,r->abcd",
        *(w[name] for name in ("{0}", "{1}", "{0,1}", "{2}", "{3}", "{2,3}")),
        w["{0,1,2,3}"][:, 0],
    )
    assert torch.allclose(model.dense(), wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("widths", "wanted"),
    [
        (4, [4, 4, 4]),
        ([2, 3], [2, 2, 3]),
        ({"{0,1}": 5, "default": 2}, [5, 2, 2]),
        ({"{0,1}": 5, "{2,3}": 6, "{0,1,2,3}": 7}, [5, 6, 7]),
    ],
)
def test_widths(widths, wanted):
    model = HierarchicalTensorFactorization((2,) * 4, widths)
    assert [model.widths[v] for v in model.tree.interior] == wanted


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([1, 2, 3], r"the widths do not match the levels of the tree \(got 3, allowed 1 or 2\)"),
        ({"{0,2}": 1, "default": 1}, r"a width is given for a node the tree does not have \(got \['\{0,2\}'\]"),
        ({"{0,1}": 1}, r"no width is given for some nodes \(got \['\{2,3\}', '\{0,1,2,3\}'\]\)"),
        (0, r"the width of node \{0,1\} is not positive"),
    ],
)
def test_widths_that_cannot_be(widths, message):
    with pytest.raises(ConfigError, match=message):
        HierarchicalTensorFactorization((2,) * 4, widths)


def test_from_a_configuration():
    config = FitConfig(tree="chain", width=None)
    model = HierarchicalTensorFactorization.from_config(config, (2, 3, 2), torch.float64, "cpu")
    assert model.tree == ModeTree.named("chain", 3)
    assert set(model.widths.values()) == {DEFAULT_WIDTH}
