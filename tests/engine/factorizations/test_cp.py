"""CP factorization against the sum of rank-one tensors that defines it."""

from __future__ import annotations

import pytest
import torch

from htfcli.config.tensors import DEFAULT_WIDTH, FitConfig
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from tests.problems import generator


def test_the_tensor_is_a_sum_of_rank_one_tensors():
    model = CPFactorization((3, 4, 2), 5).init_gaussian(1.0, generator())
    factors = [model.weights[f"factor{n}"] for n in range(3)]
    assert [tuple(f.shape) for f in factors] == [(3, 5), (4, 5), (2, 5)]
    assert list(model.weights) == ["factor0", "factor1", "factor2"]
    wanted = torch.einsum("ir,jr,kr->ijk", *factors)
    assert torch.allclose(model.dense(), wanted, rtol=1e-12, atol=1e-14)


def test_it_is_the_star_tree_without_root_weights():
    model = CPFactorization((3, 4, 2), 5)
    assert model.tree == ModeTree.named("star", 3)
    assert model.node_weights[-1] is None
    assert len(model.parameters) == 5 * (3 + 4 + 2)
    assert model.widths == {model.tree.root: 5}


@pytest.mark.parametrize(("width", "wanted"), [(7, 7), (None, DEFAULT_WIDTH)])
def test_from_a_configuration(width, wanted):
    model = CPFactorization.from_config(FitConfig(model="cp", width=width), (3, 4), torch.float32, "cpu")
    assert model.widths[model.tree.root] == wanted
    assert model.parameters.dtype == torch.float32
