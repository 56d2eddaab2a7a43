"""Rates of recovery of random tensors, where they are known."""

from __future__ import annotations

import sys

import pytest
import torch

from htfcli.config.recovery import RecoveryConfig
from htfcli.engine.fitting.peers import tensorly_cp
from htfcli.engine.fitting.recovery import make_problems, measure_recovery
from htfcli.errors import ConfigError, Interrupted

MATRIX = {"target": "matrix", "order": 2, "dim": 6, "width": 1}  # 11 degrees of freedom, 36 entries


def test_everything_observed_is_recovered():
    """All but three entries of a rank-one matrix, from several starts."""
    config = RecoveryConfig(**MATRIX, ratio=3, problems=4)
    found = measure_recovery(config)
    assert (found["observations"], found["degrees_of_freedom"], found["entries"]) == (33, 11, 36)
    assert (found["rate"], found["fitted"], found["determined"]) == (1, 1, 1)
    assert measure_recovery(config) == found


@pytest.mark.parametrize("method", ["gradient", "tensorly"])
def test_other_methods(method):
    if method == "tensorly":
        pytest.importorskip("tensorly")
    values = {"target": "cp", "order": 3, "dim": 3, "width": 1, "iterations": 1000}
    found = measure_recovery(RecoveryConfig(**values, ratio=3, problems=2, method=method))
    assert found["rate"] == 1


def test_nothing_is_recovered_below_the_floor():
    """Ten numbers fit a matrix with eleven degrees of freedom, but do not determine it."""
    found = measure_recovery(RecoveryConfig(**MATRIX, ratio=0.9, problems=4))
    assert found["observations"] == 10
    assert (found["rate"], found["determined"]) == (0, 0)
    assert found["fitted"] > 0


def test_problems_differ_and_have_rms_one():
    problems = make_problems(RecoveryConfig(**MATRIX, ratio=2, problems=3))
    torch.testing.assert_close(problems.value.square().mean(1), torch.ones(3, dtype=torch.float64))
    assert not torch.equal(problems.index[0], problems.index[1])
    own = problems.targets[1].values(problems.index[1]) / problems.scale[1]
    torch.testing.assert_close(own, problems.value[1])


def test_what_is_refused(monkeypatch):
    with pytest.raises(
        ConfigError, match=r"the ratio does not fit the tensor \(got 44 observations, allowed 1 to 36\)"
    ):
        measure_recovery(RecoveryConfig(**MATRIX, ratio=4))
    with pytest.raises(Interrupted):
        measure_recovery(RecoveryConfig(**MATRIX, ratio=2, problems=2), lambda solved: True)
    problems = make_problems(RecoveryConfig(**MATRIX, ratio=2, problems=1))
    with pytest.raises(ConfigError, match="method tensorly is for target cp"):
        tensorly_cp(problems.targets[0], problems.index[0], problems.value[0], 0)
    monkeypatch.setitem(sys.modules, "tensorly.decomposition", None)
    with pytest.raises(ConfigError, match="method tensorly needs tensorly"):
        measure_recovery(RecoveryConfig(target="cp", order=3, dim=3, width=1, problems=1, method="tensorly"))
