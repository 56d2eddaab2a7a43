"""All kinds of factorizations, by the name that `--model` and files use."""

from __future__ import annotations

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.dense_cores import (
    HierarchicalTuckerFactorization,
    TensorTrainFactorization,
    TuckerFactorization,
)
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization

MODELS: dict[str, type[Factorization]] = {
    cls.kind: cls
    for cls in (
        HierarchicalTensorFactorization,
        CPFactorization,
        MatrixFactorization,
        TuckerFactorization,
        TensorTrainFactorization,
        HierarchicalTuckerFactorization,
    )
}
