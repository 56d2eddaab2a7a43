"""Measuring locality: what each argument is, networks on which images, record by record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from htfcli.config.records import Record
from htfcli.config.vision import USER_NETWORK, MeasureLocalityConfig, TrainCnnConfig
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.runtime.device import choose_device
from htfcli.engine.runtime.precision import Precision
from htfcli.engine.vision.datasets.image_set import ImageData
from htfcli.engine.vision.datasets.is_same_class import PairCanvases
from htfcli.engine.vision.locality import LocalityMeter, factorization_records, spaced_distances
from htfcli.errors import ConfigError, DataError
from htfcli.experiments.runs.image_input import image_data, load_images
from htfcli.experiments.runs.measure_entanglement import entanglement_records
from htfcli.files.feature_input import open_features, read_features
from htfcli.files.networks import (
    SavedNetwork,
    build_network,
    load_weights,
    outputs_of,
    to_network,
)
from htfcli.files.own.artefacts import to_factorization
from htfcli.files.own.container import Artefact
from htfcli.files.weights import read_weights

Remark = Callable[[str], None]

_SAMPLES = 64  # images per pair of patches
_PATCHES = 12  # patches side by side across the larger side, where no size is given


def measure(arguments: Sequence[str], config: MeasureLocalityConfig, on_remark: Remark) -> Iterator[Record]:
    """Records of every input, in turn, with its name, or its path where two have the same name.

    Args:
        arguments: run folders or files of networks or factorizations, `-`, or module:function; or data of features.
        on_remark: called with what limits the results.
    Raises:
        ConfigError, DataError: if an input or a network's images cannot be loaded, or an option is for other inputs.
    """
    names = [Path(argument).name.partition("#")[0] for argument in arguments]
    names = [short if names.count(short) == 1 else argument for argument, short in zip(arguments, names, strict=True)]
    opened = [None if _is_function(argument) else open_features(argument) for argument in arguments]
    networks = {name: one for name, one in zip(names, opened, strict=True) if one is None or isinstance(one, Artefact)}
    if not networks:
        return _measure_data(arguments, names, opened, config, on_remark)
    if len(networks) < len(names):
        other = next(name for name in names if name not in networks)
        got = f"{next(iter(networks))} and {other}"
        raise ConfigError("networks and data are measured in different ways", got=got, next_step="Call it for each.")
    if wrong := config.of_data:
        raise ConfigError(f"{', '.join(f'--{key}' for key in wrong)}: for data, not for networks", got=names[0])
    return _measure_networks(arguments, networks, config)


def _measure_data(
    arguments: Sequence[str],
    names: Sequence[str],
    opened: Sequence[Any],
    config: MeasureLocalityConfig,
    on_remark: Remark,
) -> Iterator[Record]:
    if wrong := config.of_networks:
        raise ConfigError(f"{', '.join(f'--{key}' for key in wrong)}: for networks, not for data", got=names[0])
    for argument, name, one in zip(arguments, names, opened, strict=True):
        shown = "stdin" if argument == "-" else argument
        found = read_features(one, shown, config.label, config.grid, config.samples, config.seed)
        yield from entanglement_records(found.data, name, config, on_remark)


def _measure_networks(
    arguments: Sequence[str], opened: Mapping[str, Artefact | None], config: MeasureLocalityConfig
) -> Iterator[Record]:
    given = None if config.data is None else load_images(config.data)
    generated: dict[str, ImageData] = {}
    for argument, (name, artefact) in zip(arguments, opened.items(), strict=True):
        loaded = _load(argument, artefact, config, given)
        if isinstance(loaded, Factorization):
            records = factorization_records(loaded)
        else:
            data = given
            if data is None:
                key = repr((loaded.config.generation(), loaded.data))
                data = generated[key] = generated.get(key) or _own_images(loaded)
            records = _measure_network(loaded, data, config)
        for record in records:
            yield {"kind": record["kind"], "model": name, **record}


def _is_function(argument: str) -> bool:
    return USER_NETWORK.fullmatch(argument) is not None and not Path(argument).exists()


def _load(
    argument: str, opened: Artefact | None, config: MeasureLocalityConfig, given: ImageData | None
) -> SavedNetwork | Factorization:
    if opened is None:
        if given is None:
            raise ConfigError(f"{argument} does not say on which images", next_step="Name them with --data.")
        own = TrainCnnConfig(model=argument, seed=config.seed)
        model = build_network(own, given.train.shape, outputs_of(given))
        if config.weights is not None:
            load_weights(model, read_weights(config.weights), config.weights)
        return SavedNetwork(argument, model, own, given.train.shape, config.data)
    if config.weights is not None:
        raise ConfigError("--weights is for module:function", got=argument, next_step="Runs have their own weights.")
    opened = opened.expect("cnn", "factorization")
    return to_factorization(opened) if opened.kind == "factorization" else to_network(opened, config.model)


def _own_images(network: SavedNetwork) -> ImageData:
    if network.data is None and network.config.task is None:
        raise ConfigError(f"{network.name} was trained on images from a pipe", next_step="Name them with --data.")
    return image_data(network.config, network.data)


def _measure_network(network: SavedNetwork, data: ImageData, config: MeasureLocalityConfig) -> Iterator[Record]:
    shape = data.test.shape
    if shape != network.shape:
        raise DataError(f"the images do not fit {network.name}", got=list(shape), allowed=list(network.shape))
    device = choose_device(config.device, config.threads)
    meter = LocalityMeter(
        network.model.to(device),
        data.test,
        pairs=config.pairs,
        samples=config.samples or _SAMPLES,
        table=config.table,
        seed=config.seed,
    )
    records: Iterator[Record | None]
    if isinstance(data.test, PairCanvases) and config.patch_size is None:
        records = _at_images(meter, data.test, config.distance)
    else:
        size = config.patch_size or min(max(2, max(shape[1:]) // _PATCHES), *shape[1:])
        distances = config.distance or spaced_distances(max(shape[1:]), size)
        records = (meter.at_distance(size, distance) for distance in distances)
    with Precision("float32", device).set():
        yield from (record for record in records if record is not None)
        if (record := meter.receptive_field()) is not None:
            yield record


def _at_images(meter: LocalityMeter, pairs: PairCanvases, distances: list[int] | None) -> Iterator[Record | None]:
    """IsSameClass: the two images are the patches, and are moved apart."""
    if distances is None:
        image_width = pairs.pixels.shape[3]
        distances = sorted({*spaced_distances(pairs.canvas[1], image_width), pairs.distance})
    for distance in distances:
        record = meter.at_images(replace(pairs, distance=distance))
        yield record and record | {"trained_distance": pairs.distance}
