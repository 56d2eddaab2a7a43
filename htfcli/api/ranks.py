"""Hierarchical ranks of whatever is a tensor: factorizations, completed data, arrays, frames, tensors of tensorly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from htfcli.api.completed import FittedCompletion
from htfcli.api.inputs import dense, labelled
from htfcli.config.tensors import DEFAULT_TOLERANCE
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.ranks import hierarchical_rank as engine
from htfcli.engine.ranks.matricization import Spectrum
from htfcli.errors import DataError
from htfcli.files.foreign.tensorly_formats import from_tensorly


def hierarchical_rank(
    thing: Any, tree: ModeTree | None = None, tolerance: float = DEFAULT_TOLERANCE, **how: Any
) -> tuple[int, ...]:
    """The hierarchical tensor rank: rank [[W]]_v of every node v except the root, in node order.

    Args:
        thing: a factorization; the result of `complete`, of which the strongest factorization is meant; a tensor of
            tensorly; or data of any kind that `complete` takes, (d_0, ..., d_{N-1}), without holes.
        tree: the mode tree; if None, that of the factorization, or balanced binary for data.
        tolerance: singular values larger than this times the largest are counted.
        how: what is a mode and a value of data: modes, value, wide, ordered, as for `complete`.
    Raises:
        ConfigError: if the tree has another order. DataError: if an entry is missing, or there is no factorization.
    """
    return engine.hierarchical_rank(measurable(thing, **how), tree, tolerance)


def spectra_of(thing: Any, tree: ModeTree | None = None, **how: Any) -> list[Spectrum]:
    """Singular values of the matricizations at the nodes of a mode tree, in node order, but for those of all modes.

    Args:
        thing, tree, how: as for `hierarchical_rank`.
    Raises:
        ConfigError: if the tree has another order. DataError: if an entry is missing, or a matricization needs too
            much memory.
    """
    return engine.spectra_of(measurable(thing, **how), tree)


def measurable(thing: Any, **how: Any) -> Factorization | Tensor:
    """A factorization, or a dense tensor (d_0, ..., d_{N-1}) float64, of anything that is one."""
    if isinstance(thing, FittedCompletion):
        thing = thing.completion
    if isinstance(thing, Factorization):
        return thing
    if type(thing).__name__ == "Completion" and hasattr(thing, "model"):
        if thing.model is None:
            raise DataError("no factorization counts: the mean and effects of the modes predict best")
        model: Factorization = thing.model
        return model
    if type(thing).__module__.partition(".")[0] == "tensorly":
        return from_tensorly(thing)
    if isinstance(thing, Tensor) and thing.is_floating_point() and not how and not bool(torch.isnan(thing).any()):
        return thing
    return dense(labelled(thing, **how))
