"""A small learning problem, and fits of it."""

from __future__ import annotations

import torch

from htfcli.config.tensors import FitConfig, TargetConfig
from htfcli.engine.fitting.fit import SOLVERS, build_model

SMALL = TargetConfig(order=4, dim=4, rank=2, observed="0.5", seed=0)


CPU = torch.device("cpu")


def start(observations, **settings):
    config = FitConfig(
        **{"width": 4, "dtype": "float64", "iterations": 60, "record_every": 10, "until_loss": None} | settings
    )
    return SOLVERS[config.solver](build_model(config, observations.dims, CPU), observations, config)
