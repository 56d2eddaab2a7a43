"""Hierarchical tensor factorization: complete tensors, watch ranks emerge, measure them.

The engine is the public Python API; its parts are imported on first use, so that `import htfcli` does not import
torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from htfcli._version import __version__

_HOME = {
    "Block": "htfcli.engine.vision.datasets.image_set",
    "CPFactorization": "htfcli.engine.factorizations.cp",
    "CompleteConfig": "htfcli.config.completion",
    "CompletedData": "htfcli.api.completed",
    "DifferentPatches": "htfcli.engine.vision.regularizer.patches",
    "Entries": "htfcli.engine.samples",
    "FitConfig": "htfcli.config.tensors",
    "GroupRMSprop": "htfcli.engine.fitting.optimizers",
    "HierarchicalTensorFactorization": "htfcli.engine.factorizations.hierarchical",
    "HierarchicalTuckerFactorization": "htfcli.engine.factorizations.dense_cores",
    "HtfError": "htfcli.errors",
    "IsSameClassConfig": "htfcli.config.images",
    "MatrixFactorization": "htfcli.engine.factorizations.deep_matrix",
    "ModeTree": "htfcli.engine.factorizations.mode_tree",
    "NonLocalRegularizer": "htfcli.engine.vision.regularizer.non_local",
    "Observations": "htfcli.engine.observations.observations",
    "Patch": "htfcli.engine.vision.datasets.image_set",
    "PathfinderConfig": "htfcli.config.images",
    "RandomPatches": "htfcli.engine.vision.regularizer.patches",
    "RegularizedModel": "htfcli.engine.vision.regularizer.non_local",
    "TargetConfig": "htfcli.config.tensors",
    "TensorCompleter": "htfcli.api.completer",
    "TensorTrainFactorization": "htfcli.engine.factorizations.dense_cores",
    "TuckerFactorization": "htfcli.engine.factorizations.dense_cores",
    "complete": "htfcli.api.complete",
    "dense_logit": "htfcli.engine.vision.regularizer.logits",
    "effective_rank": "htfcli.engine.ranks.matricization",
    "fit": "htfcli.api.fit",
    "from_tensorly": "htfcli.files.foreign.tensorly_formats",
    "hierarchical_rank": "htfcli.api.ranks",
    "load_completion": "htfcli.api.completed",
    "local_components": "htfcli.engine.ranks.local_components",
    "make_is_same_class": "htfcli.engine.vision.datasets.is_same_class",
    "make_observations": "htfcli.engine.observations.synthetic",
    "make_pathfinder": "htfcli.engine.vision.datasets.pathfinder",
    "matricize": "htfcli.engine.ranks.matricization",
    "output_of": "htfcli.engine.vision.regularizer.logits",
    "spectra_of": "htfcli.api.ranks",
    "to_tensorly": "htfcli.files.foreign.tensorly_formats",
    "true_logit": "htfcli.engine.vision.regularizer.logits",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'htfcli' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
