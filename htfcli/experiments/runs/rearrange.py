"""Rearranging the features of data: finding an order or applying one, and writing both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import torch

from htfcli.config.records import Record
from htfcli.config.vision import RearrangeConfig
from htfcli.engine.entanglement.arrangement import arrange
from htfcli.engine.entanglement.correlations import surrogates
from htfcli.engine.entanglement.features import FeatureData, canonical_partitions, deepest
from htfcli.engine.vision.datasets.image_set import ImageData
from htfcli.errors import ConfigError, DataError
from htfcli.files.feature_input import open_features, read_features
from htfcli.files.feature_output import (
    SUFFIX,
    Order,
    features_for,
    load_order,
    refuse_unwritable,
    save_order,
    write_rearranged,
)
from htfcli.files.foreign.readers import Dense
from htfcli.files.own.container import Artefact, refuse_existing

_LEVELS = 3  # that are reported: deeper ones have hundreds of partitions, and the last ones hardly depend on the order
_MANY = 10_000  # features from which all correlations of all samples would take minutes
_SAMPLES = 500  # that the report is then made from


def rearrange(
    argument: str, output: str, config: RearrangeConfig, force: bool, on_remark: Callable[[str], None]
) -> list[Record]:
    """Write data with their features rearranged, and the order beside them; returns what it changed.

    Args:
        argument: as for `open_features`. output: a file, or `-`, then without a file of the order. force: replace
            files. on_remark: called with what limits the result.
    Raises:
        ConfigError, DataError: if the data cannot be read, rearranged or written.
    """
    beside = None if output == "-" or config.apply is not None else Path(output + SUFFIX)
    for destination in (output, *([str(beside)] if beside else [])):
        refuse_existing(destination, force)
    opened = open_features(argument)
    if isinstance(opened, Artefact):
        raise DataError(f"{argument} holds no features", got=opened.kind, allowed="images")
    refuse_unwritable(opened, output)
    name = "stdin" if argument == "-" else argument
    if config.apply is not None:
        order = load_order(config.apply)
        if wrong := config.changed("label", "grid", "samples"):
            given = ", ".join(f"--{key}" for key in wrong)
            raise ConfigError(f"{given}: for finding an order, not for --apply", got=config.apply)
        source = opened if isinstance(opened, Dense | ImageData) else features_for(opened, order)
        write_rearranged(source, order, output)
        return [{"kind": "rearrangement", "data": name, "output": output, "order": config.apply}]
    found = read_features(opened, name, config.label, config.grid, config.samples, config.seed)
    constant = int(found.data.constant.sum())
    if constant:
        on_remark(f"{constant:,} of {found.data.features:,} features of {name} are constant: their places say nothing")
    order = Order(arrange(found.data, config.seed), found.data.shape, found.data.names)
    write_rearranged(found.source, order, output)
    if beside is not None:
        save_order(beside, order)
    facts: Record = {"kind": "rearrangement", "data": name, "output": output, "order": beside and str(beside)}
    return [{**facts, **change} for change in _changes(found.data, order.order, config.seed)]


def _changes(data: FeatureData, order: torch.Tensor, seed: int) -> Iterator[Record]:
    """The mean surrogate per level, before and after."""
    data = data.drawn(_SAMPLES, seed) if data.features > _MANY else data
    levels = range(1, min(_LEVELS, deepest(data.shape)) + 1)
    partitions = [list(canonical_partitions(data.shape, [level])) for level in levels]
    every = [one for level in partitions for one in level]
    means = []
    for one in (data, data.rearranged(order)):
        values = iter(surrogates(one, every, torch.float32 if data.features > _MANY else torch.float64))
        means.append([fmean(next(values) for _ in level) for level in partitions])
    for level, before, after in zip(levels, *means, strict=True):
        yield {"level": level, "before": before, "after": after}
