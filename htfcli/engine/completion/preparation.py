"""From observed entries to the data of a completion: checked, in one order, in units, parted into splits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion.holes import Holes, find_holes, held_out_like
from htfcli.engine.completion.interpolation import likeness, smooth
from htfcli.engine.completion.settings import Settings
from htfcli.engine.completion.splits import Sample, Split
from htfcli.engine.completion.units import Units, find_units
from htfcli.engine.samples import Entries, check_range, row_keys
from htfcli.errors import DataError


@dataclass
class Problem:
    """The data in units of the fit.

    Args:
        dims: of the tensor. raw: observed entries in the data's units, in row-major order. scaled: the same in units of
            the fit, with weights of mean one. units: between the two.
        ordered: modes whose order may mean something. positions: per mode (d,) of an ordered one with positions.
        holes: kinds of holes. lowest, highest: bounds of predictions, data's units. integers: whether they are rounded.
    """

    dims: tuple[int, ...]
    raw: Entries
    scaled: Sample
    units: Units
    ordered: tuple[int, ...]
    positions: list[Tensor | None]
    holes: Holes
    lowest: float
    highest: float
    integers: bool


def checked(entries: Entries, dims: Sequence[int], config: CompleteConfig, std: Tensor | None) -> None:
    """Refuse data that nothing can be made of; `std` (n,) are the measurement errors of the entries.

    Raises:
        DataError: if nothing is observed, a value is not finite or outside --min and --max, an index out of range, or a
            measurement error not above zero.
    """
    if len(entries) == 0:
        raise DataError("no entry is observed: there is nothing to complete from")
    if not bool(torch.isfinite(entries.value).all()):
        raise DataError("an observed value is NaN or infinite")
    check_range(entries.index, dims)
    lowest, highest = float(entries.value.min()), float(entries.value.max())
    if config.nonnegative and lowest < 0:
        raise DataError("the data are to be non-negative and are not", got=lowest, next_step="Leave out --nonnegative.")
    if config.min is not None and lowest < config.min:
        raise DataError("an observed value is below --min", got=lowest, allowed=f"{config.min} or more")
    if config.max is not None and highest > config.max:
        raise DataError("an observed value is above --max", got=highest, allowed=f"{config.max} or less")
    if std is not None and (len(std) != len(entries) or not bool((torch.isfinite(std) & (std > 0)).all())):
        raise DataError("a standard deviation of an observed value is not above zero", allowed="a positive number")


def prepare(
    entries: Entries,
    dims: Sequence[int],
    config: CompleteConfig,
    settings: Settings,
    coordinates: Sequence[Tensor | None] | None,
    std: Tensor | None,
    wanted: Tensor | None,
    unordered: Sequence[int],
) -> Problem:
    """The problem in units; see `complete` for the arguments. Entries are put in row-major order first, so that theirs
    means nothing; `std` (n,) goes with them.
    """
    dims = tuple(int(d) for d in dims)
    order = torch.argsort(row_keys(entries.index.long(), dims))
    raw = Entries(entries.index[order].long(), entries.value[order].double())
    units = find_units(raw, dims, settings.least_ratio)
    shift, scale = units.of(raw.index)
    weight = None
    if std is not None:
        weight = (std.double()[order] / scale).pow(-2)
        weight = weight / weight.mean()
    scaled = Sample(raw.index, (raw.value - shift) / scale, dims, weight)
    positions: list[Tensor | None] = [None] * len(dims) if coordinates is None else list(coordinates)
    ordered = _ordered(scaled, dims, positions, unordered, settings)
    holes = find_holes(raw.index, dims, wanted, ordered, settings)
    lowest, highest, integers = _range(raw.value, config)
    return Problem(dims, raw, scaled, units, ordered, positions, holes, lowest, highest, integers)


def _ordered(
    scaled: Sample,
    dims: tuple[int, ...],
    positions: Sequence[Tensor | None],
    unordered: Sequence[int],
    settings: Settings,
) -> tuple[int, ...]:
    """Modes along which neighbours are alike, the most alike first, two at most."""
    if len(scaled) > settings.most_selected or math.prod(dims) > settings.most_cells:
        return ()
    # five indices lie in a telling order by chance: without positions they are not ordered
    asked = [m for m, d in enumerate(dims) if m not in unordered and (d > 5 or positions[m] is not None)]
    effects = scaled.effects("effects")
    residual = scaled.value - effects.at(scaled.index)
    alike = {mode: likeness(scaled.index, residual, dims, mode) for mode in asked}
    found = sorted((m for m in asked if alike[m] < settings.ordered), key=lambda m: alike[m])
    # effects take a trend, so it is not in what they leave; but of an index never seen they know nothing
    for mode in asked:
        seen = torch.bincount(scaled.index[:, mode], minlength=dims[mode]) > 0
        if mode not in found and not bool(seen.all()) and smooth(effects.values[mode][:-1][seen]):
            found.append(mode)
    return tuple(found[:2])


def _range(value: Tensor, config: CompleteConfig) -> tuple[float, float, bool]:
    """What predictions may be: what was asked for; not below zero where no observation is; inside the scale of ratings
    and of two values.

    A scale is a few values seen ten times each or so, evenly spaced, and no counts from zero on, which may go higher.
    """
    levels = torch.unique(value)
    least, most, few = float(levels[0]), float(levels[-1]), len(levels) <= min(12, len(value) // 10)
    gaps = levels.diff()
    even = few and len(levels) > 2 and least != 0.0 and bool((gaps - gaps[0]).abs().max() <= 1e-9 * gaps[0])
    scale = even or (few and len(levels) == 2)
    lowest = least if scale else 0.0 if least >= 0 else -math.inf
    if config.nonnegative:
        lowest = max(lowest, 0.0)
    highest = most if scale else math.inf
    lowest = lowest if config.min is None else config.min
    return lowest, highest if config.max is None else config.max, config.integers


def make_splits(problem: Problem, config: CompleteConfig, settings: Settings) -> list[Split]:
    """Random parts of the observations held out, and parts that look like the holes; fewer observations, more
    splits."""
    n = len(problem.scaled)
    count = min(math.ceil(settings.few / n), round(1 / config.held_out))
    share = min(max(config.held_out, 2 / n), settings.many / n)
    generator = torch.Generator().manual_seed(config.seed)
    splits = []
    order = torch.randperm(n, generator=generator)
    for number in range(count):  # every observation about as often as the others
        turned = order.roll(-number * round(share * n))
        kind, group = held_out_like(problem.holes, problem.scaled.index, share, turned, generator)
        rows = torch.nonzero(kind < 0).flatten()
        if len(rows) > settings.most_selected:
            rows = rows[torch.randperm(len(rows), generator=generator)[: settings.most_selected].sort().values]
        held = torch.nonzero(kind >= 0).flatten()
        splits.append(Split(problem.scaled.part(rows), problem.scaled.select(held), kind[held], group[held]))
    return splits
