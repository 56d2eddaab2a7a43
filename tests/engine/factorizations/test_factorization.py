"""What all factorizations share: weights, initialization, scaling, description."""

from __future__ import annotations

import pytest

from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from tests.problems import generator


def test_gaussian_std_gives_the_rms_asked_for():
    model = HierarchicalTensorFactorization((5,) * 4, 64)
    total = 0.0
    for seed in range(20):
        model.init_gaussian(model.gaussian_std(0.01), generator(seed))
        total += float(model.dense().square().mean())
    assert (total / 20) ** 0.5 == pytest.approx(0.01, rel=0.25)
