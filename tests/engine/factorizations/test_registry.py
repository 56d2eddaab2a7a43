"""The registry of factorizations: names, and what a configuration builds."""

from __future__ import annotations

import pytest
import torch

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.registry import MODELS


def test_every_kind_is_listed_under_its_name():
    assert sorted(MODELS) == ["cp", "hierarchical-tucker", "htf", "matrix", "tensor-train", "tucker"]
    assert all(cls.kind == name for name, cls in MODELS.items())


@pytest.mark.parametrize("name", MODELS)
def test_a_configuration_builds_the_kind_it_names(name):
    config = FitConfig(model=name, width=3)
    model = MODELS[name].from_config(config, (4, 5), torch.float64, "cpu")
    assert (type(model), model.dims, model.kind) == (MODELS[name], (4, 5), name)
    assert set(model.widths.values()) == {3}
