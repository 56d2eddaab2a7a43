"""What shuffled pixels cost a local network, and how much of it rearranging them gets back.

    python -m tests.benchmarks.rearranged_features

Digits (8 x 8, scikit-learn's) and textures (12 x 12, moving averages of noise along rows or along columns, which is the
label); `resnet-mini` is trained on the pixels as they are, shuffled, and shuffled then rearranged.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, stdev

import numpy as np
import torch

from htfcli.config.vision import TrainCnnConfig
from htfcli.engine.entanglement.arrangement import arrange
from htfcli.engine.entanglement.features import FeatureData
from htfcli.engine.entanglement.measure import measure_entanglement
from htfcli.engine.vision.datasets.image_set import ImageData, StoredImages
from htfcli.engine.vision.datasets.labelled import Labelled, normalization_of, stratified_split
from htfcli.engine.vision.training import Training
from htfcli.files.networks import build_network, outputs_of


def textures(seed: int, samples: int = 800, side: int = 12) -> Labelled:
    """Noise averaged over five pixels along rows (label 0) or columns (label 1)."""
    generator = np.random.default_rng(seed)
    labels = np.arange(samples) % 2
    noise = generator.normal(size=(samples, side + 4, side + 4))
    along = sum(noise[:, 2 : side + 2, step : step + side] for step in range(5))
    down = sum(noise[:, step : step + side, 2 : side + 2] for step in range(5))
    values = np.where(labels[:, None, None] == 1, down, along)
    pixels = (128 + 25 * values).clip(0, 255).astype(np.uint8)
    return Labelled(torch.from_numpy(pixels)[:, None], torch.from_numpy(labels))


def digits(seed: int) -> Labelled:
    from sklearn.datasets import load_digits

    found = load_digits()
    return Labelled(
        torch.from_numpy((found.images * 15).astype(np.uint8))[:, None], torch.from_numpy(found.target).long()
    )


def accuracy(train: Labelled, test: Labelled, order: torch.Tensor, seed: int, epochs: int) -> float:
    normalization = normalization_of(train.pixels)
    parts = [
        StoredImages(part.pixels.flatten(2)[..., order].view(part.pixels.shape), part.labels, normalization)
        for part in (train, test)
    ]
    classes = tuple(str(n) for n in range(int(train.labels.max()) + 1))
    data = ImageData("images", classes, *parts, {})
    config = TrainCnnConfig(model="resnet-mini", stem_stride=1, epochs=epochs, lr=0.02, seed=seed)
    torch.manual_seed(seed)
    network = build_network(config, data.train.shape, outputs_of(data))
    training = Training(network, data, config, torch.device("cpu"))
    return list(training.run())[-1]["test_accuracy"]


def compare(name: str, make: Callable[[int], Labelled], epochs: int, seeds: int) -> None:
    """Print accuracies (mean +- standard deviation over seeds) and entanglement at level 1."""
    orders = ("as they are", "shuffled", "rearranged")
    found: dict[str, list[tuple[float, float]]] = {order: [] for order in orders}
    for seed in range(seeds):
        images = make(seed)
        train, test = stratified_split(images, len(images.labels) // 4, np.random.default_rng(seed))
        values = train.pixels.double().flatten(2).transpose(1, 2)
        data = FeatureData(name, values, tuple(images.pixels.shape[2:]), train.labels, common_scale=True)
        shuffle = torch.randperm(data.features, generator=torch.Generator().manual_seed(seed))
        shuffled = data.rearranged(shuffle)
        for label, order in zip(
            orders, (torch.arange(data.features), shuffle, shuffle[arrange(shuffled, seed)]), strict=True
        ):
            measured = measure_entanglement(data.rearranged(order).drawn(500, seed), [1])
            entanglement = fmean(one.entanglement.entropy for one in measured)
            found[label].append((accuracy(train, test, order, seed, epochs), entanglement))
    for label in orders:
        accuracies, entanglements = zip(*found[label], strict=True)
        print(f"{name:9} {label:12} accuracy {fmean(accuracies):.3f} +- {stdev(accuracies):.3f}, "
              f"entanglement {fmean(entanglements):.4f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    compare("textures", textures, 6, 5)
    compare("digits", digits, 8, 5)
