"""Distances between factorizations against those of their tensors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.dense_cores import HierarchicalTuckerFactorization, TuckerFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.ranks.distance import collapsed, log_distance
from htfcli.engine.ranks.hierarchical_rank import (
    FactoredSpectra,
)
from tests.problems import factorizations, generator


@settings(max_examples=40, deadline=None)
@given(factorizations(), st.floats(1e-9, 1.0))
def test_distance_from_the_factors(model, size):
    """Accurate to machine precision: a relative distance of 1e-9 is still 1e-9."""
    other = model.to().scale(1 + size)
    norm = FactoredSpectra(model).log_norm
    if norm > -math.inf:
        assert math.exp(log_distance(other, model) - norm) == pytest.approx(size, rel=1e-5, abs=1e-13)


@settings(max_examples=60, deadline=None)
@given(factorizations())
def test_collapsing_single_child_nodes_keeps_the_tensor(model):
    short = collapsed(model)
    assert all(len(children) != 1 for children in short.tree.children)
    assert torch.allclose(short.dense(), model.dense(), atol=1e-12)


def test_distance_between_matrix_factorizations_of_different_depth():
    deep, flat = MatrixFactorization((6, 5), 4, 3), MatrixFactorization((6, 5), 2, 3)
    for model in (deep, flat):
        model.init_gaussian(1.0, generator(len(model.parameters)))
    wanted = float(torch.linalg.vector_norm(deep.dense() - flat.dense()))
    assert math.exp(log_distance(deep, flat)) == pytest.approx(wanted, rel=1e-12)


def test_distance_needs_one_tree():
    star, balanced = CPFactorization((2, 2, 2, 2), 2), HierarchicalTensorFactorization((2, 2, 2, 2), 2)
    assert log_distance(balanced, star) is None


@pytest.mark.parametrize(
    "kinds", [("htf", "cores"), ("cores", "htf"), ("cores", "cores"), ("deep", "flat"), ("cp", "flat")]
)
def test_distance_with_dense_cores(kinds):
    """Between kinds on one tree; matrices of a deep Tucker factorization are multiplied out."""
    dims = (4, 3, 5, 2)
    made = {
        "htf": lambda: HierarchicalTensorFactorization(dims, 3),
        "cores": lambda: HierarchicalTuckerFactorization(dims, 2),
        "deep": lambda: TuckerFactorization(dims, 2, depth=2),
        "flat": lambda: TuckerFactorization(dims, 3),
        "cp": lambda: CPFactorization(dims, 3),
    }
    a, b = (made[kind]().init_gaussian(0.7, generator(k)) for k, kind in enumerate(kinds))
    wanted = float(torch.linalg.vector_norm(a.dense() - b.dense()))
    assert math.exp(log_distance(a, b)) == pytest.approx(wanted, rel=1e-12)
    assert log_distance(a, a) < log_distance(a, b) - 30
