"""The factorizations there are: what `--model` names, and what files may hold."""

from __future__ import annotations

from htfcli.engine.tensors.cp import CPFactorization
from htfcli.engine.tensors.factorization import Factorization
from htfcli.engine.tensors.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.tensors.matrix import MatrixFactorization

MODELS: dict[str, type[Factorization]] = {
    cls.kind: cls
    for cls in (
        HierarchicalTensorFactorization,
        CPFactorization,
        MatrixFactorization,
    )
}
