"""Correlations between features, and the surrogate of entanglement: their mean across a partition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from htfcli.engine.entanglement.features import FeatureData, Partition

_ROWS = 2**24  # correlations held at a time: 128 MiB in float64


def standardized(data: FeatureData) -> Tensor:
    """(M, N, C) with mean 0 and sum of squares 1 over samples; 0 for constant features."""
    centred = data.values - data.values.mean(0, keepdim=True)
    norm = centred.square().sum(0, keepdim=True).sqrt()
    centred[:, (data.values == data.values[:1]).all(0)] = 0
    return centred / torch.where(norm > 0, norm, 1.0)


def surrogates(data: FeatureData, partitions: Sequence[Partition], dtype: torch.dtype = torch.float64) -> list[float]:
    """Mean of |r| over pairs of a feature in K and one outside, r being Pearson's correlation over the samples.

    Constant features have correlation zero with all others; of features with channels all pairs of channels count.
    Source: arXiv 2303.11249.

    Args:
        partitions: of these features. dtype: of the correlations.
    """
    columns = standardized(data).to(dtype)
    samples, features, channels = columns.shape
    # every feature by the set of blocks that it is in: partitions are sums over pairs of these
    member = torch.zeros(len(partitions), features, dtype=torch.bool, device=columns.device)
    for row, partition in enumerate(partitions):
        member[row, list(partition.features)] = True
    groups, group = torch.unique(member.T, dim=0, return_inverse=True)
    flat = columns.reshape(samples, features * channels)
    group = group.repeat_interleave(channels)
    sums = torch.zeros(len(groups), len(groups), dtype=torch.float64, device=flat.device)
    step = max(1, _ROWS // flat.shape[1])
    for at in range(0, flat.shape[1], step):
        rows = slice(at, at + step)
        found = (flat[:, rows].T @ flat).abs_()
        by_column = found.new_zeros(len(found), len(groups)).index_add_(1, group, found)
        sums.index_add_(0, group[rows], by_column.double())
    count = torch.bincount(group, minlength=len(groups)).double()
    inside = groups.T.double()
    pairs = (inside @ count) * ((1 - inside) @ count)
    across: Tensor = ((inside @ sums) * (1 - inside)).sum(1) / pairs
    return [float(mean) for mean in across]
