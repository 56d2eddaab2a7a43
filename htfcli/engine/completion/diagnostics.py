"""What a completion should be told to doubt: nothing that looks wrong is passed over in silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.mode_tree import label_of
from htfcli.engine.least_squares.robust import deviation_of
from htfcli.engine.samples import Entries

_OVERFIT = 3.0  # held-out over train error from which a fit is called too close
_NOTICED = 0.05  # held-out error under which that does not matter
_OUTSIDE = 3.0  # widths of the observed range beyond it, from which predictions are called wild
_PROBES = 10_000
_FAR = 10.0  # standard deviations from which a residual is an outlier's
_TAIL, _HEAVY = 6.0, 0.35  # a share of the squared residuals beyond so many, from which outliers may decide the fit


def doubts_of_data(model: Factorization, entries: Entries) -> list[str]:
    """Where there are fewer observations than the model has numbers to find."""
    said, tree = [], model.tree
    for mode, d in enumerate(model.dims):
        counts = torch.bincount(entries.index[:, mode], minlength=d)
        weight = model.node_weights[mode]
        assert weight is not None
        few = int(((counts > 0) & (counts < weight.shape[1])).sum())
        if few:
            said.append(
                f"{few} of {d} indices of mode {mode} have fewer observations than the {weight.shape[1]} they need"
            )
    for node in tree.interior:
        weight = model.node_weights[node]
        if weight is not None and weight.numel() > len(entries):
            label = label_of(tree.modes[node])
            said.append(f"node {label} has {weight.numel()} weights, more than the {len(entries)} observations")
    return said


def doubts_of_error(train_error: float, held_out_error: float, baseline: float) -> list[str]:
    """Where the held-out error says that the model has learnt noise, or nothing."""
    said = []
    if held_out_error > _NOTICED and held_out_error > _OVERFIT * train_error:
        said.append(
            f"the held-out error {held_out_error:.3g} is far above the train error {train_error:.3g}: "
            "there are too few observations for what the model has to find"
        )
    if held_out_error > 0.9 * baseline:
        said.append(f"the model (held-out error {held_out_error:.3g}) hardly beats a constant ({baseline:.3g})")
    return said


def has_heavy_tails(residual: Tensor) -> bool:
    """Whether a few of the residuals (n,) make up more of their squares than noise does."""
    size = residual.abs()
    tail = size[size > _TAIL * deviation_of(size)]
    return bool(tail.square().sum() > _HEAVY * size.square().sum())


def outliers(residual: Tensor) -> int:
    """How many of the residuals (n,) are too large to be noise, by their middle."""
    size = residual.abs()
    return int((size > _FAR * deviation_of(size)).sum())


def wildness(values: Callable[[Tensor], Tensor], entries: Entries, dims: Sequence[int], seed: int = 0) -> float:
    """How far predictions at random entries leave the range of the observed values, in widths of that range.

    Args:
        values: index (n, N) -> predictions (n,). entries: observed. dims: of the tensor. seed: for the entries.
    """
    generator = torch.Generator().manual_seed(seed)
    probes = torch.stack([torch.randint(d, (_PROBES,), generator=generator) for d in dims], dim=1)
    predicted = values(probes)
    low, high = float(entries.value.min()), float(entries.value.max())
    width = max(high - low, 1e-12 * max(abs(low), abs(high)), 1e-300)
    return max(float((predicted.max() - high) / width), float((low - predicted.min()) / width), 0.0)


def is_wild(wildness: float) -> bool:
    """Whether the `wildness` of a model is beyond that of a sound one."""
    return wildness > _OUTSIDE
