"""Entanglement of data over canonical partitions, partition by partition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.engine.entanglement.correlations import surrogates
from htfcli.engine.entanglement.estimate import estimated_entanglement
from htfcli.engine.entanglement.exact import Entanglement, exact_entanglement, factor_of, mean_of
from htfcli.engine.entanglement.features import FeatureData, Partition, canonical_partitions, deepest
from htfcli.engine.entanglement.gram import log_gram
from htfcli.engine.runtime.memory import refuse_unless_fits

ANGLE = 0.085  # theta of arXiv 2303.11249, for features of size one
EXACT = 2000  # samples up to which nothing is estimated: a decomposition takes 4 s there, and eight times that at 4,000
_USUAL = 2  # levels measured where none are asked for: level l has 2^l partitions, of an image 4^l
_ESTIMATED_ACCURACY = 4e-6  # of logarithms of Gram matrices in float32, whose sums over features are no better


@dataclass(frozen=True)
class Measured:
    """What was measured across a partition; `surrogate` is the mean absolute correlation across it."""

    partition: Partition
    entanglement: Entanglement
    surrogate: float


def usual_levels(shape: Sequence[int]) -> list[int]:
    """The levels that are measured where none are asked for."""
    return list(range(1, min(_USUAL, deepest(shape)) + 1))


def measure_entanglement(
    data: FeatureData,
    levels: Sequence[int] | None = None,
    theta: float = ANGLE,
    seed: int = 0,
    exact: bool | None = None,
    device: torch.device | None = None,
) -> Iterator[Measured]:
    """Entanglement of data across canonical partitions of their features.

    The data tensor is D = sum over samples m of y[m] phi(x[m, 1]) o ... o phi(x[m, N]) with phi(x) = (cos(pi theta x),
    sin(pi theta x)) and features scaled to [0, 1] (o is the outer product); y are the labels +-1, or 1 without labels.
    With more than two classes the entanglement is the mean over tensors of one class against the rest. Source:
    arXiv 2303.11249.

    Args:
        levels: of the partitions; the first two if None. theta: in (0, 1/2]. seed: of random vectors. exact: whether to
            decompose Gram matrices, in float64, instead of estimating; by default with up to `EXACT` samples.
        device: where to compute; the CPU if None.
    Raises:
        ConfigError: if a level does not exist. DataError: if all samples have one label, or memory does not suffice.
    """
    partitions = list(canonical_partitions(data.shape, levels or usual_levels(data.shape)))
    samples = len(data)
    exact = is_exact(samples, exact)
    kind = torch.float64 if exact else torch.float32
    matrices = 6 if exact else 4  # M x M numbers at the same time
    refuse_unless_fits(
        data.name, matrices * samples**2 * kind.itemsize, f"{samples} samples", "Measure fewer: --samples."
    )
    signs = data.signs().to(device, kind)
    x = data.scaled().to(device, kind)
    accuracy = 1e-12 if exact else _ESTIMATED_ACCURACY
    whole = log_gram(x.flatten(1), theta, accuracy)
    correlated = surrogates(data, partitions, kind)
    generator = torch.Generator().manual_seed(seed)
    halves: dict[tuple[int, ...], Entanglement] = {}
    for partition, surrogate in zip(partitions, correlated, strict=True):
        others = tuple(n for n in range(data.features) if n not in set(partition.features))
        found = halves.pop(others, None)  # the other half of a line has been measured: the partition is the same
        if found is None:
            found = _across(x[:, list(partition.features)].flatten(1), whole, theta, accuracy, signs, generator, exact)
            if len(data.shape) == 1 and partition.level == 1:
                halves[partition.features] = found
        yield Measured(partition, found, surrogate)


def is_exact(samples: int, asked: bool | None) -> bool:
    """Whether so many samples are measured exactly; None leaves it to their number."""
    return samples <= EXACT if asked is None else asked


def _across(
    x: Tensor, whole: Tensor, theta: float, accuracy: float, signs: Tensor, generator: torch.Generator, exact: bool
) -> Entanglement:
    """Across one partition; x: (M, n) the features in K."""
    ours = log_gram(x, theta, accuracy)
    rest = (whole - ours).exp_()
    if exact:
        return exact_entanglement(factor_of(x, theta, ours), rest, signs)
    ours.exp_()
    return mean_of([estimated_entanglement(ours, rest, y, generator) for y in signs])
