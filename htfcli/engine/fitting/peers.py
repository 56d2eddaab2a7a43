"""Completions by other libraries, where they are installed, to compare with."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.errors import ConfigError

_ITERATIONS = 500  # of tensorly; then its error falls by less than a thousandth per iteration


def tensorly_cp(model: Factorization, index: Tensor, value: Tensor, seed: int) -> Tensor:
    """A CP factorization fitted by tensorly: alternating least squares, unobserved entries from the last iteration.

    Args:
        model: a CP factorization, which gives the shape. index: (n, N). value: (n,). seed: of the random start.
    Returns: its weights, (p,).
    Raises:
        ConfigError: if tensorly is not installed, or the model is not a CP factorization.
    """
    if model.kind != "cp":
        raise ConfigError("method tensorly is for target cp", got=model.kind)
    try:
        parafac: Any = importlib.import_module("tensorly.decomposition").parafac
    except ModuleNotFoundError:
        raise ConfigError(
            "method tensorly needs tensorly", got="no tensorly", next_step="Install it with: pip install tensorly."
        ) from None
    dense, seen = torch.zeros(model.dims, dtype=torch.float64), torch.zeros(model.dims, dtype=torch.bool)
    dense[tuple(index.t())], seen[tuple(index.t())] = value, True
    (rank,) = set(model.widths.values())
    found = parafac(
        dense.numpy(), rank, n_iter_max=_ITERATIONS, init="random", mask=seen.numpy(), random_state=seed, tol=1e-12
    )
    weights = torch.zeros_like(model.parameters)
    scale = torch.as_tensor(found.weights, dtype=torch.float64).reshape(-1)
    for mode, (view, factor) in enumerate(zip(model.views(weights), found.factors, strict=False)):
        assert view is not None
        view.copy_(torch.as_tensor(factor, dtype=torch.float64) * (scale if mode == 0 else 1.0))
    return weights
