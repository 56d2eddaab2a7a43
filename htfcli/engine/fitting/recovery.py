"""How often random low-rank tensors are recovered exactly from as many observed entries as they have degrees of
freedom, or a multiple.

An exact solution is looked for from random starts until one fits all observed entries to rounding; only then is the
whole tensor looked at. So a rate says how often what is observed both determines the tensor and leads to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.config.records import Record
from htfcli.config.recovery import RecoveryConfig
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.fitting.peers import tensorly_cp
from htfcli.engine.least_squares.batched import EXACT, EntryBatch, minimize_batch
from htfcli.engine.least_squares.degrees_of_freedom import jacobian_rank
from htfcli.engine.observations.observations import sample_entries
from htfcli.engine.observations.synthetic import make_target
from htfcli.engine.ranks.distance import log_distance
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra
from htfcli.errors import ConfigError, Interrupted

RECOVERED = 1e-6  # relative error of the whole tensor
_ROWS_FOR_RANK = 6  # random entries per weight at which the rank of the Jacobian is taken, if there are so many
_STEPS = 150  # of Levenberg-Marquardt per start; exact solutions were found within 100
_FIRST_RIDGE = 1e-3  # of every other start: helps CP and wide nodes, and costs small hierarchical tensors some
_FIRST_STARTS = 4  # per tensor in the first round, which many need
_MOST_NUMBERS = 2**22  # in the Jacobians of a batch: 32 MiB
_NEAR_ZERO = 1e-3  # rms of the entries of the model, those observed having one, where gradient descent starts
_RATE, _DECAY = 0.02, 0.99  # length of a step of gradient descent over the root mean square gradient, and its memory
_POLISH = 60  # steps of Levenberg-Marquardt after another method


@dataclass(frozen=True)
class Problems:
    """Random tensors of one shape, and observed entries of them.

    Args:
        targets: float64. index: (problems, n, N) int64. value: (problems, n), of rms one: those of the tensors over
            `scale` (problems,).
        freedom: degrees of freedom of such a tensor.
    """

    targets: list[Factorization]
    index: Tensor
    value: Tensor
    scale: Tensor
    freedom: int


def make_problems(config: RecoveryConfig) -> Problems:
    """The random problems of a configuration.

    Raises:
        ConfigError: if more entries would be observed than there are.
    """
    targets = [
        make_target(config.tensor(k), torch.Generator().manual_seed(config.seed + k)) for k in range(config.problems)
    ]
    first = targets[0]
    generator = torch.Generator().manual_seed(config.seed)
    everywhere = sample_entries(first.dims, min(first.entries, _ROWS_FOR_RANK * len(first.parameters)), generator)
    freedom = jacobian_rank(first, everywhere.long())
    count = round(config.ratio * freedom)
    if not 0 < count <= first.entries:
        raise ConfigError(
            "the ratio does not fit the tensor",
            got=f"{count} observations",
            allowed=f"1 to {first.entries}",
            next_step="Change --ratio, or --dim.",
        )
    index = torch.stack([sample_entries(first.dims, count, generator).long() for _ in targets])
    value = torch.stack([target.values(at) for target, at in zip(targets, index, strict=True)])
    scale = value.square().mean(1).sqrt()
    return Problems(targets, index, value / scale.unsqueeze(1), scale, freedom)


def measure_recovery(config: RecoveryConfig, should_stop: Callable[[int], bool] = lambda solved: False) -> Record:
    """Complete all problems of a configuration, and count those recovered.

    Args:
        config: what to do. should_stop: called between rounds with the number of problems solved; True interrupts.
    Returns: a record with `observations`, `degrees_of_freedom`, `parameters`, `entries`; and as rates over the problems
        `rate` (recovered), `fitted` (all observed entries fitted to rounding) and `determined` (the Jacobian at the
        observed entries has full rank, without which nothing can be recovered).
    Raises:
        ConfigError: if the ratio does not fit the tensor, or a library is missing. Interrupted: on request.
    """
    problems = make_problems(config)
    found, fitted, starts = METHODS[config.method](problems, config, should_stop)
    recovered = [
        bool(done) and _error(problems, k, weights) < RECOVERED
        for k, (weights, done) in enumerate(zip(found, fitted, strict=True))
    ]
    determined = [
        jacobian_rank(target, at) == problems.freedom
        for target, at in zip(problems.targets, problems.index, strict=True)
    ]
    first = problems.targets[0]
    return {
        "kind": "recovery",
        "problems": config.problems,
        "observations": problems.index.shape[1],
        "degrees_of_freedom": problems.freedom,
        "parameters": len(first.parameters),
        "entries": first.entries,
        "rate": sum(recovered) / config.problems,
        "fitted": int(fitted.sum()) / config.problems,
        "determined": sum(determined) / config.problems,
        "starts": float(starts.double().mean()),
    }


def _error(problems: Problems, number: int, weights: Tensor) -> float:
    """Relative error of the whole tensor."""
    target = problems.targets[number]
    model = target.to()
    model.parameters.copy_(weights)
    distance = log_distance(model.scale(float(problems.scale[number])), target)
    assert distance is not None  # on one tree
    return math.exp(min(distance - FactoredSpectra(target).log_norm, 700.0))


_Found = tuple[Tensor, Tensor, Tensor]  # weights (problems, p), whether they fit (problems,), starts tried (problems,)


def _second_order(problems: Problems, config: RecoveryConfig, should_stop: Callable[[int], bool]) -> _Found:
    """Levenberg-Marquardt from random starts, in rounds: the fewer problems are left, the more starts of each."""
    model = problems.targets[0]
    generator = torch.Generator().manual_seed(config.seed + 1)
    std, p = model.gaussian_std(1.0), len(model.parameters)
    most = max(1, _MOST_NUMBERS // (problems.index.shape[1] * p))
    weights = torch.zeros(config.problems, p, dtype=torch.float64)
    fitted, tried = torch.zeros(config.problems, dtype=torch.bool), torch.zeros(config.problems, dtype=torch.int64)
    while bool((open_ := ~fitted & (tried < config.starts)).any()):
        if should_stop(int(fitted.sum())):
            raise Interrupted("interrupted")
        numbers = torch.nonzero(open_).flatten()[:most]
        each = min(max(_FIRST_STARTS, most // len(numbers)), config.starts) if bool(tried.any()) else _FIRST_STARTS
        each = min(each, config.starts - int(tried[numbers].max()))
        group = numbers.repeat(each)
        starts = std * torch.randn(len(group), p, generator=generator, dtype=torch.float64)
        attempt = torch.arange(each).repeat_interleave(len(numbers))
        ridge = torch.where(attempt % 2 == 1, _FIRST_RIDGE, 0.0).double()
        entries = EntryBatch(model, problems.index[group], problems.value[group])
        ends, errors = minimize_batch(model, starts, entries, group, ridge, _STEPS)
        for run in torch.nonzero(errors <= EXACT).flatten().tolist():
            weights[group[run]], fitted[group[run]] = ends[run], True
        tried[numbers] += each
    return weights, fitted, tried


@torch.no_grad()
def _gradient(problems: Problems, config: RecoveryConfig, should_stop: Callable[[int], bool]) -> _Found:
    """Gradient descent from near zero, all problems as one batch, then Levenberg-Marquardt from where it ends.

    Steps have the direction of the gradient, as those of `GroupRMSprop`. Gradient descent selects the solution; the
    last digits would take it tens of thousands of iterations.
    """
    model = problems.targets[0]
    runs, p = config.problems, len(model.parameters)
    entries = EntryBatch(model, problems.index, problems.value)
    generator = torch.Generator().manual_seed(config.seed + 1)
    weights = model.gaussian_std(_NEAR_ZERO) * torch.randn(runs, p, generator=generator, dtype=torch.float64)
    moment = torch.zeros(runs, dtype=torch.float64)
    for iteration in range(1, config.iterations + 1):
        gradient = entries.gradient(weights)
        moment = _DECAY * moment + (1 - _DECAY) * gradient.square().sum(1)
        size = (moment / (1 - _DECAY**iteration)).sqrt().clamp_min(1e-12)
        weights.addcmul_(gradient, (_RATE / size).unsqueeze(1), value=-1)
        if iteration % 100 == 0 and should_stop(0):
            raise Interrupted("interrupted")
    return _polished(problems, weights)


def _tensorly(problems: Problems, config: RecoveryConfig, should_stop: Callable[[int], bool]) -> _Found:
    """CP by tensorly, then Levenberg-Marquardt from where it ends, as its last digits take thousands of iterations."""
    weights = []
    for number, (index, value) in enumerate(zip(problems.index, problems.value, strict=True)):
        if should_stop(number):
            raise Interrupted("interrupted")
        weights.append(tensorly_cp(problems.targets[0], index, value, config.seed + number))
    return _polished(problems, torch.stack(weights))


def _polished(problems: Problems, weights: Tensor) -> _Found:
    """One start per problem, (problems, p), followed to the exact solution nearby if there is one."""
    runs, entries = len(weights), EntryBatch(problems.targets[0], problems.index, problems.value)
    no_ridge = torch.zeros(runs, dtype=torch.float64)
    ends, errors = minimize_batch(problems.targets[0], weights, entries, torch.arange(runs), no_ridge, _POLISH)
    return ends, errors <= EXACT, torch.ones(runs, dtype=torch.int64)


METHODS: dict[str, Callable[[Problems, RecoveryConfig, Callable[[int], bool]], _Found]] = {
    "second-order": _second_order,
    "gradient": _gradient,
    "tensorly": _tensorly,
}
