"""Fitting a factorization to observations: prepare the problem, build the model, run the solver."""

from __future__ import annotations

import math

import torch

from htfcli.config.records import Record
from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.registry import MODELS
from htfcli.engine.fitting.balanced_init import init_balanced
from htfcli.engine.fitting.gradient_descent import GradientFit
from htfcli.engine.fitting.loop import FitLoop
from htfcli.engine.fitting.second_order import SecondOrderFit
from htfcli.engine.observations.observations import Observations, rescale, split
from htfcli.engine.runtime.device import choose_device
from htfcli.engine.runtime.distributed import Workers
from htfcli.errors import ConfigError, DataError

SOLVERS: dict[str, type[FitLoop]] = {"gradient": GradientFit, "second-order": SecondOrderFit}
DEFAULT_START = {"gradient": 1e-4, "second-order": 1.0}  # rms of the entries at the start; the data have rms one
_OTHER = 0x5EC0D  # any constant: exclusive or with a seed gives another seed


def build_model(config: FitConfig, dims: tuple[int, ...], device: torch.device) -> Factorization:
    """The factorization that a configuration describes, initialized with its seed.

    Raises:
        ConfigError: if tree or widths do not fit the dims.
    """
    dtype = torch.float32 if config.dtype == "float32" else torch.float64
    model = MODELS[config.model].from_config(config, dims, dtype, device)
    # A synthetic target of the same seed and widths is drawn from the same numbers, and long steps would land on it
    generator = torch.Generator().manual_seed(config.seed if config.solver == "gradient" else config.seed ^ _OTHER)
    std = model.gaussian_std(DEFAULT_START[config.solver]) if config.init_std is None else config.init_std
    if config.init == "balanced":
        init_balanced(model, std, generator)
    else:
        model.init_gaussian(std, generator)
    return model


def prepare(
    observations: Observations, config: FitConfig, workers: Workers | None = None
) -> tuple[Observations, float]:
    """The learning problem of a fit: observed data with a held-out part, values scaled to root mean square one.

    Args:
        observations: all of them, or one shard per process. config: settings. workers: the processes, if these are
        shards; all take part.
    Returns: the observations to fit, and the factor their values were multiplied by (1 where the true tensor is known).
    Raises:
        ConfigError: if part of the data is to be held out but there is a test part already. DataError: if the values
            are too small to scale.
    """
    if config.test_fraction is not None:
        if observations.test is not None:
            raise ConfigError(
                "the observations already have a held-out part",
                got=f"{len(observations.test)}",
                next_step="Leave --test-fraction out.",
            )
        generator = torch.Generator().manual_seed(config.seed)
        train, test = split(observations.train, config.test_fraction, generator)
        observations = Observations(observations.dims, train, test, observations.target)
    over = workers if workers is not None and observations.whole is not None else Workers()
    value = observations.train.value
    largest = over.largest(float(value.abs().max()))
    if config.scale == "none" or observations.target is not None or largest == 0:
        return observations, 1.0
    squares = over.sum((value / largest).square().sum())  # divided first, so that nothing overflows
    rms = largest * math.sqrt(float(squares) / observations.counts[0])
    if not math.isfinite(1 / rms):
        raise DataError("the values are too small to scale", got=f"rms {rms:.3g}", allowed="1e-307 or more")
    return rescale(observations, 1 / rms), 1 / rms


def fit(observations: Observations, config: FitConfig | None = None) -> tuple[Factorization, list[Record]]:
    """Fit a factorization to observations.

    Args:
        observations: the data. config: settings; the defaults of `htf fit` if None.
    Returns: the factorization, in the units of the data, and the records of the run.
    Raises:
        ConfigError: if the configuration does not fit the data. DataError: if entries are out of range, repeated or not
            finite. RunError: if the run diverges.
    """
    config = config or FitConfig()
    problem, scale = prepare(observations.checked(), config)
    device = choose_device(config.device, config.threads)
    training = SOLVERS[config.solver](build_model(config, problem.dims, device), problem, config)
    records = list(training.run())
    return training.result(scale), records
