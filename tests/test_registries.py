"""Where a setting has choices, they are those of the registry that knows what they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from htfcli.config.images import IsSameClassConfig
from htfcli.config.tensors import FitConfig
from htfcli.config.vision import NETWORKS, TrainCnnConfig
from htfcli.engine.factorizations.registry import MODELS
from htfcli.engine.fitting.fit import SOLVERS
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.fitting.optimizers import OPTIMIZERS
from htfcli.engine.vision.datasets.sources import SOURCES
from htfcli.engine.vision.resnet import RESNETS
from htfcli.experiments.runs.image_input import TASKS

ROOT = Path(__file__).parent.parent


def choices(config, name):
    annotation = config.model_fields[name].annotation
    parts = [get_args(part) or part for part in get_args(annotation)]
    return {
        choice for part in parts for choice in (part if isinstance(part, tuple) else (part,)) if isinstance(choice, str)
    }


@pytest.mark.parametrize(
    ("config", "name", "registry"),
    [
        (FitConfig, "model", MODELS), (FitConfig, "solver", SOLVERS), (FitConfig, "optimizer", OPTIMIZERS),
        (FitConfig, "loss", LOSSES), (IsSameClassConfig, "source", SOURCES),
    ],
    ids=["model", "solver", "optimizer", "loss", "source"],
)  # fmt: skip
def test_choices_are_the_registry(config, name, registry):
    assert choices(config, name) == set(registry)


def test_networks_and_tasks():
    assert set(NETWORKS) == set(RESNETS)
    tasks = {type(TrainCnnConfig(task=task).generation()) for task in choices(TrainCnnConfig, "task")}
    assert tasks == set(TASKS)


def test_contributing_names_what_there_is():
    """Every name in capitals, every file and class that CONTRIBUTING.md names."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "htfcli").rglob("*.py"))
    for name in re.findall(r"`([A-Z_]{4,})`", text):
        assert re.search(rf"^{name}\b", code, re.M), name
    for name in re.findall(r"`((?:[A-Z][a-z]+){2,})[`.]", text):
        assert re.search(rf"\bclass {name}\b", code), name
    for path in re.findall(r"`((?:engine|experiments|files|config|commands|tests)/[\w/]*(?:\.py)?)`", text):
        assert (ROOT / path).exists() or (ROOT / "htfcli" / path).exists(), path
