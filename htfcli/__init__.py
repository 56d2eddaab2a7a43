"""Hierarchical tensor factorization: complete tensors, watch ranks emerge, measure them.

The engine is the public Python API; its parts are imported when first used, so that `import htfcli` does not load
torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from htfcli._version import __version__

_HOME = {
    "CPFactorization": "htfcli.engine.tensors.cp",
    "CompleteConfig": "htfcli.config.completion",
    "Entries": "htfcli.engine.tensors.observations",
    "FitConfig": "htfcli.config.tensors",
    "GroupRMSprop": "htfcli.engine.tensors.optimizers",
    "HierarchicalTensorFactorization": "htfcli.engine.tensors.hierarchical",
    "HtfError": "htfcli.errors",
    "IsSameClassConfig": "htfcli.config.images",
    "MatrixFactorization": "htfcli.engine.tensors.matrix",
    "ModeTree": "htfcli.engine.tensors.mode_tree",
    "NonLocalRegularizer": "htfcli.engine.vision.nonlocality",
    "Observations": "htfcli.engine.tensors.observations",
    "PathfinderConfig": "htfcli.config.images",
    "RandomPatches": "htfcli.engine.vision.patches",
    "RegularizedModel": "htfcli.engine.vision.nonlocality",
    "TargetConfig": "htfcli.config.tensors",
    "complete": "htfcli.engine.tensors.completion",
    "effective_rank": "htfcli.engine.tensors.matricization",
    "fit": "htfcli.engine.tensors.gradient_fit",
    "hierarchical_rank": "htfcli.engine.tensors.ranks",
    "local_components": "htfcli.engine.tensors.dynamics",
    "make_is_same_class": "htfcli.engine.vision.is_same_class",
    "make_observations": "htfcli.engine.tensors.target",
    "make_pathfinder": "htfcli.engine.vision.pathfinder",
    "matricize": "htfcli.engine.tensors.matricization",
    "spectra_of": "htfcli.engine.tensors.ranks",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'htfcli' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
