"""Fit a factorization to observations: the problem made ready, the model built, the solver run."""

from __future__ import annotations

import math

import torch

from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.registry import MODELS
from htfcli.engine.fitting.balanced_init import init_balanced
from htfcli.engine.fitting.gradient_descent import GradientFit
from htfcli.engine.fitting.records import Record
from htfcli.engine.fitting.second_order import SecondOrderFit
from htfcli.engine.observations.observations import Observations, rescale, split
from htfcli.engine.runtime.device import choose_device
from htfcli.engine.runtime.distributed import Workers
from htfcli.errors import ConfigError, DataError

DEFAULT_START = {"gradient": 1e-4, "second-order": 1.0}  # rms of the entries at the start; fitted values' is about 1


_OTHER = 0x5EC0D  # turns a seed into another one


def build_model(config: FitConfig, dims: tuple[int, ...], device: torch.device) -> Factorization:
    """The factorization a configuration asks for, initialized with its seed.

    Raises:
        ConfigError: if tree or widths do not fit the dims.
    """
    dtype = torch.float32 if config.dtype == "float32" else torch.float64
    model = MODELS[config.model].from_config(config, dims, dtype, device)
    # A target of the same seed and widths has the very weights that this seed draws: long steps would land on them.
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
    """The learning problem a configuration makes of observed data: a held-out part, values of root mean square one.

    Args:
        observations: all of them, or the shard of each of `workers`, which all take part.
    Returns: the observations to fit, and the factor that scaled their values (1 where the true tensor is known).
    Raises:
        ConfigError: if a part is to be held out and there is one already. DataError: if the values are all but zero.
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
    squares = over.sum((value / largest).square().sum())  # no overflow on the way
    rms = largest * math.sqrt(float(squares) / observations.counts[0])
    if not math.isfinite(1 / rms):
        raise DataError("the values are too small to be told from zero", got=f"rms {rms:.3g}", allowed="1e-307 or more")
    return rescale(observations, 1 / rms), 1 / rms


def fit(observations: Observations, config: FitConfig | None = None) -> tuple[Factorization, list[Record]]:
    """Fit a factorization to observations.

    Args:
        observations: a `Observations`. config: how; the defaults of `htf fit` if None.
    Returns: the factorization, in the units of the data, and the records of the run.
    Raises:
        ConfigError: if the configuration does not fit the data. DataError: if entries are out of range, repeated or not
            finite. RunError: if the run diverged.
    """
    config = config or FitConfig()
    problem, scale = prepare(observations.checked(), config)
    device = choose_device(config.device, config.threads)
    training = SOLVERS[config.solver](build_model(config, problem.dims, device), problem, config)
    records = list(training.run())
    return training.result(scale), records


SOLVERS: dict[str, type[GradientFit] | type[SecondOrderFit]] = {"gradient": GradientFit, "second-order": SecondOrderFit}
