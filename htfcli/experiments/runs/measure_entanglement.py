"""Measuring the entanglement of data: records, partition by partition, and their mean per level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean

from htfcli.config.records import Record
from htfcli.config.vision import MeasureLocalityConfig
from htfcli.engine.entanglement.features import FeatureData
from htfcli.engine.entanglement.measure import EXACT, Measured, is_exact, measure_entanglement
from htfcli.engine.runtime.device import choose_device

_MEASURES = ("entanglement", "geometric", "surrogate")


def entanglement_records(
    data: FeatureData, name: str, config: MeasureLocalityConfig, on_remark: Callable[[str], None]
) -> Iterator[Record]:
    """A record per canonical partition, and one with the means after each level.

    Args:
        name: of the data, in records. on_remark: called with what limits the results.
    Raises:
        ConfigError, DataError: as `measure_entanglement`.
    """
    for text in remarks(data, config):
        on_remark(text)
    device = choose_device(config.device, config.threads)
    level: list[Measured] = []
    for measured in measure_entanglement(data, config.levels, config.angle, config.seed, config.exact, device):
        if level and measured.partition.level != level[0].partition.level:
            yield _mean(level, name)
            level = []
        level.append(measured)
        yield {
            "kind": "entanglement",
            "data": name,
            "level": measured.partition.level,
            "position": list(measured.partition.position),
            "features": list(measured.partition.features),
            **_numbers(measured),
            "error": measured.entanglement.error,
        }
    yield _mean(level, name)


def remarks(data: FeatureData, config: MeasureLocalityConfig) -> Iterator[str]:
    """What limits the results of these data."""
    constant = int(data.constant.sum())
    if constant:
        yield (
            f"{constant:,} of {data.features:,} features of {data.name} are constant: they change no entanglement, "
            "and count as uncorrelated"
        )
    if 2 * len(data.classes) > len(data):
        got = f"{len(data.classes):,} in {len(data):,} samples"
        yield f"the labels of {data.name} are nearly all different ({got}): is it a number to be binned?"
    if len(data) < data.features:
        yield (
            f"{data.name} has fewer samples ({len(data):,}) than features ({data.features:,}): "
            f"the surrogate is at least about {0.8 / len(data) ** 0.5:.2g} by chance"  # E|r| = sqrt(2 / (pi M))
        )
    if not is_exact(len(data), config.exact):
        yield f"{len(data):,} samples: estimated, with standard errors; --exact, or {EXACT:,} --samples, has none"


def _numbers(measured: Measured) -> Record:
    found = measured.entanglement
    return dict(zip(_MEASURES, (found.entropy, found.geometric, measured.surrogate), strict=True))


def _mean(level: list[Measured], name: str) -> Record:
    numbers = [_numbers(measured) for measured in level]
    means = {key: fmean(one[key] for one in numbers) for key in _MEASURES}
    return {"kind": "entanglement-mean", "data": name, "level": level[0].partition.level, **means}
