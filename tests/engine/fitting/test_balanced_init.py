"""Balanced initialization."""

from __future__ import annotations

from hypothesis import given, settings

from htfcli.engine.fitting.balanced_init import init_balanced
from htfcli.engine.ranks.local_components import local_components
from tests.problems import factorizations, generator


@settings(max_examples=60, deadline=None)
@given(factorizations())
def test_balanced_initialization_of_any_factorization(model):
    init_balanced(model, 0.3, generator(1))
    assert local_components(model).unbalancedness < 1e-13
