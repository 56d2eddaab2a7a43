"""Orthonormal bases of a factorization's nodes, against its definition on whole tensors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.ranks.orthonormal_bases import OrthonormalBases, row_products
from tests.problems import factorizations, generator


def whole_bases(model):
    """Per node its basis over indices instead of over the children's bases, (product of d, k), modes in tree order."""
    bases, below, whole = OrthonormalBases(model, leaves=True), [], []
    for node, children in enumerate(model.tree.children):
        core = bases.over_children(node)
        below.append([mode for child in children for mode in below[child]] or [node])
        for place, child in enumerate(children):
            core = torch.tensordot(whole[child], core, dims=([1], [place])).movedim(0, place)
        assert core.shape[-1] == bases.dimension(node) or node == model.tree.root
        whole.append(core.flatten(0, -2))
    return whole, below


@settings(max_examples=60, deadline=None)
@given(factorizations())
def test_bases_are_orthonormal_and_hold_the_tensor(model):
    whole, below = whole_bases(model)
    tensor = model.dense()
    for node, basis in enumerate(whole[:-1]):
        eye = torch.eye(basis.shape[1], dtype=torch.float64)
        assert torch.allclose(basis.t() @ basis, eye, atol=1e-12)
        rest = [mode for mode in range(model.order) if mode not in below[node]]
        columns = tensor.permute(*below[node], *rest).reshape(len(basis), -1)
        assert torch.allclose(basis @ (basis.t() @ columns), columns, atol=1e-9 * max(1.0, float(columns.abs().max())))
    root = whole[-1].reshape([model.dims[mode] for mode in below[-1]])
    back = root.permute(*(below[-1].index(mode) for mode in range(model.order)))
    assert torch.allclose(back, tensor, atol=1e-9 * max(1.0, float(tensor.abs().max())))


def test_dimensions_are_bounded_by_widths():
    model = HierarchicalTensorFactorization((2, 9, 9, 9, 9, 9), 3, ModeTree.named("star", 6))
    bases = OrthonormalBases(model.init_gaussian(1.0, generator()), leaves=True)
    assert [bases.dimension(node) for node in range(6)] == [2, 3, 3, 3, 3, 3]
    assert bases.over_children(0).shape == (2, 2)
    assert bases.over_children(1).shape == (9, 3)
    assert bases.over_children(6).shape == (2, 3, 3, 3, 3, 3, 1)


def test_high_orders_are_rescaled():
    """The tensor would overflow; its log norm is known in closed form, all vectors being alike."""
    model = CPFactorization((4,) * 500, 1)
    model.parameters.fill_(3.0)
    bases = OrthonormalBases(model)
    norm = math.log(float(bases.root.small.norm())) + bases.log_scale
    assert norm == pytest.approx(500 * math.log(6.0), rel=1e-12)


def test_row_products():
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0], [9.0, 10.0]])
    wanted = [[5, 12], [7, 16], [9, 20], [15, 24], [21, 32], [27, 40]]
    assert row_products(a, b).tolist() == wanted
