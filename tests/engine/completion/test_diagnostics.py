"""What a completion is told to doubt."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.completion.diagnostics import doubts_of_data, doubts_of_error, is_wild, wildness
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.samples import Entries

INDEX = torch.tensor([[0, 0], [0, 1], [2, 1], [2, 3]])
ENTRIES = Entries(INDEX, torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=torch.float64))


def test_doubts_of_data():
    model = HierarchicalTensorFactorization((3, 5), 2, ModeTree.named("star", 2))
    assert doubts_of_data(model, ENTRIES) == [
        "2 of 5 indices of mode 1 have fewer observations than the 2 they need",
    ]
    model = HierarchicalTensorFactorization((3, 5), {"{0}'": 5, "{0,1}": 1}, ModeTree.from_nested([[0], 1]))
    assert doubts_of_data(model, ENTRIES) == [
        "2 of 3 indices of mode 0 have fewer observations than the 5 they need",
        "node {0} has 5 weights, more than the 4 observations",
    ]
    model = HierarchicalTensorFactorization((3, 5), 1, ModeTree.named("star", 2))
    plenty = Entries(torch.cartesian_prod(torch.arange(3), torch.arange(5)), torch.ones(15))
    assert doubts_of_data(model, plenty) == []


@pytest.mark.parametrize(
    ("train", "held_out", "baseline", "said"),
    [
        (0.01, 0.02, 1.0, []),
        (1e-9, 0.04, 1.0, []),  # far above, and small all the same
        (0.01, 0.2, 1.0, ["the held-out error 0.2 is far above the train error 0.01: there are too few observations"]),
        (0.4, 0.5, 0.5, ["the model (held-out error 0.5) hardly beats a constant (0.5)"]),
        (0.1, 1.5, 1.0, ["the held-out error 1.5 is far above", "the model (held-out error 1.5) hardly beats"]),
    ],
)
def test_doubts_of_error(train, held_out, baseline, said):
    found = doubts_of_error(train, held_out, baseline)
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


@pytest.mark.parametrize(("low", "high", "wanted"), [(1.0, 5.0, 0.0), (1.0, 13.0, 2.0), (-15.0, 6.0, 4.0)])
def test_wildness_is_in_widths_of_the_observed_range(low, high, wanted):
    def values(index):
        return torch.where(index[:, 0] == 0, low, high).double()

    assert wildness(values, ENTRIES, (2, 5)) == pytest.approx(wanted)
    assert is_wild(wildness(values, ENTRIES, (2, 5))) == (wanted > 3)


def test_wildness_of_constant_data():
    constant = Entries(INDEX, torch.full((4,), 7.0, dtype=torch.float64))
    assert not is_wild(wildness(lambda index: torch.full((len(index),), 7.0), constant, (3, 5)))
    assert is_wild(wildness(lambda index: torch.full((len(index),), 8.0), constant, (3, 5)))
