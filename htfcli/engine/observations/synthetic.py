"""Learning problems with a known solution: a low-rank tensor, and entries or measurements of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from htfcli.config.tensors import TargetConfig, size_of
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.deep_matrix import MatrixFactorization
from htfcli.engine.factorizations.dense_cores import (
    HierarchicalTuckerFactorization,
    TensorTrainFactorization,
    TuckerFactorization,
)
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import tree_of
from htfcli.engine.observations.observations import Observations, sample_entries
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra
from htfcli.engine.samples import Entries, MatrixMeasurements, RankOneMeasurements, Sample
from htfcli.errors import ConfigError, DataError

DEFAULT_TEST = 10_000  # test observations at most, if their number is not given: an error is then known to about 1 %


def make_target(config: TargetConfig, generator: torch.Generator) -> Factorization:
    """A random factorization with Gaussian weights, scaled to the Frobenius norm in `config`; no tensor is built.

    Raises:
        ConfigError: if tree, dims and widths do not fit each other.
        DataError: if the tensor is zero.
    """
    dims, width = config.resolved_dims, config.width
    target: Factorization
    if config.target == "htf":
        target = HierarchicalTensorFactorization(dims, width, tree_of(config.tree, len(dims), config.arity))
    elif config.target == "hierarchical-tucker":
        target = HierarchicalTuckerFactorization(dims, width, tree_of(config.tree, len(dims), config.arity))
    elif config.target == "tensor-train":
        target = TensorTrainFactorization(dims, width)
    elif config.target == "tucker":
        target = TuckerFactorization(dims, width)
    elif not isinstance(width, int):
        raise ConfigError(f"a {config.target} target has one width", got=width, allowed="one number")
    elif config.target == "cp":
        target = CPFactorization(dims, width)
    else:
        target = MatrixFactorization(dims, 2, width)
    target.init_gaussian(target.gaussian_std(1.0), generator)
    log_factor = _log_norm(config) - FactoredSpectra(target).log_norm
    if not math.isfinite(log_factor):
        raise DataError("the tensor is zero, it cannot be scaled", next_step="Try another --seed.")
    return target.scale_log(log_factor)


def _log_norm(config: TargetConfig) -> float:
    """Log of the Frobenius norm; by default that of entries with rms one."""
    return 0.5 * _log_entries(config.resolved_dims) if config.norm is None else math.log(config.norm)


def _log_entries(dims: tuple[int, ...]) -> float:
    return sum(math.log(d) for d in dims)


def make_observations(config: TargetConfig, mask: Tensor | None = None) -> Observations:
    """A random low-rank tensor, and train and test observations of it, all from `config.seed`.

    Args:
        config: target, task, number of observations and noise.
        mask: boolean (d_0, ..., d_{N-1}), True where observed; None to draw entries uniformly.
    Raises:
        ConfigError: if more entries are requested than there are, or the mask has another shape.
    """
    generator = torch.Generator().manual_seed(config.seed)
    target = make_target(config, generator)
    rms = math.exp(_log_norm(config) - 0.5 * _log_entries(target.dims))
    train, test = (_completion if config.task == "completion" else _sensing)(target, config, generator, mask)
    for sample in (train, test):
        noise = torch.randn(len(sample), generator=generator, dtype=torch.float64)
        sample.value.add_(noise, alpha=config.noise * rms)
    return Observations(target.dims, train, test if len(test) else None, target)


def _completion(
    target: Factorization, config: TargetConfig, generator: torch.Generator, mask: Tensor | None
) -> tuple[Sample, Sample]:
    if mask is None:
        train_index = sample_entries(target.dims, _at_least_one(size_of(config.observed, target.entries)), generator)
    elif tuple(mask.shape) != target.dims:
        raise ConfigError("the mask does not have the tensor's shape", got=tuple(mask.shape), allowed=target.dims)
    else:
        train_index = torch.nonzero(mask)
        _at_least_one(len(train_index))
    rest = target.entries - len(train_index)
    test_count = min(rest, DEFAULT_TEST) if config.test is None else size_of(config.test, rest)
    test_index = sample_entries(target.dims, test_count, generator, exclude=train_index)
    return Entries(train_index, target.values(train_index)), Entries(test_index, target.values(test_index))


def _sensing(
    target: Factorization, config: TargetConfig, generator: torch.Generator, mask: Tensor | None
) -> tuple[Sample, Sample]:
    count = _at_least_one(size_of(config.observed, target.entries))
    test_count = min(count, DEFAULT_TEST) if config.test is None else size_of(config.test, count)
    return _measure(target, count, generator), _measure(target, test_count, generator)


def _at_least_one(count: int) -> int:
    if count < 1:
        raise ConfigError("nothing would be observed", got=count, allowed="1 or more observations")
    return count


def _measure(target: Factorization, count: int, generator: torch.Generator) -> Sample:
    """Measurements with random tensors whose entries have mean zero and variance 1 / (number of entries)."""

    def gaussian(*shape: int, log_variance: float) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).mul_(math.exp(log_variance / 2))

    log_entries = _log_entries(target.dims)
    value = torch.zeros(count, dtype=torch.float64)
    if isinstance(target, MatrixFactorization):
        matrices = MatrixMeasurements(gaussian(count, *target.dims, log_variance=-log_entries), value)
        return MatrixMeasurements(matrices.matrices, target.measure(matrices))
    vectors = tuple(gaussian(count, d, log_variance=-log_entries / target.order) for d in target.dims)
    return RankOneMeasurements(vectors, target.measure(RankOneMeasurements(vectors, value)))
