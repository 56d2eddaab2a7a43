from __future__ import annotations

import numpy as np
import pytest
import torch

from htfcli.config.images import IsSameClassConfig
from htfcli.engine.vision.datasets.image_set import Normalization
from htfcli.engine.vision.datasets.is_same_class import PairCanvases, draw_pairs, make_is_same_class, placement
from htfcli.errors import ConfigError

# the miniature that CNNs are tested on: digits, 1 x 8 x 48
MINIATURE = {"source": "digits", "height": 8, "width": 48, "train": 1500, "test": 1000, "test_images": 500}


def digit_of() -> dict[bytes, int]:
    """The class of every digit by its pixels; of the few images that are there twice, both have the same."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return {
        image.astype(np.uint8).tobytes(): int(label) for image, label in zip(found.images, found.target, strict=True)
    }


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_labels_say_whether_classes_are_the_same():
    labels = np.random.default_rng(0).choice(4, size=300, p=[0.7, 0.1, 0.1, 0.1])
    pairs, same = draw_pairs(labels, 20_000, np.random.default_rng(1))
    classes = labels[pairs]
    np.testing.assert_array_equal(same, classes[:, 0] == classes[:, 1])
    assert abs(same.mean() - 0.5) < 0.015  # four standard deviations
    for label in range(4):  # classes are drawn uniformly, however many images they have, in pairs of either kind
        for kind in (0, 1):
            for side in (0, 1):
                assert abs((classes[same == kind, side] == label).mean() - 0.25) < 0.02
    assert len(np.unique(pairs)) == len(labels)
    assert (pairs[:, 0] == pairs[:, 1]).any()  # drawn with replacement


def test_labels_of_a_data_set_are_those_of_its_images():
    known = digit_of()
    data = make_is_same_class(IsSameClassConfig(**MINIATURE, distance=24))
    for part in (data.train, data.test):
        classes = [known[image.numpy().tobytes()] for image in part.pixels]
        for (left, right), label in zip(part.pairs.tolist(), part.labels.tolist(), strict=True):
            assert (classes[left] == classes[right]) == (label == 1)


# --- canvases ---------------------------------------------------------------------------------------------------------


def naive(sets: PairCanvases, row: int) -> torch.Tensor:
    """One canvas, filled pixel by pixel."""
    (_, channels, h, w), (height, width), distance = sets.pixels.shape, sets.canvas, sets.distance
    canvas = torch.zeros(channels, height, width)
    left = width // 2 - w - distance // 2
    for side, start in enumerate((left, left + w + distance)):
        image = sets.pixels[sets.pairs[row, side]]
        for c in range(channels):
            for i in range(h):
                for j in range(w):
                    value = (float(image[c, i, j]) / 255 - float(sets.normalization.mean[c])) / float(
                        sets.normalization.std[c]
                    )
                    canvas[c, (height - h) // 2 + i, start + j] = value
    return canvas


@pytest.mark.parametrize("distance", [0, 1, 2, 5])
@pytest.mark.parametrize("canvas", [(3, 13), (4, 14), (9, 17)])
def test_canvases_are_those_of_a_naive_placement(canvas, distance):
    generator = torch.Generator().manual_seed(distance)
    pixels = torch.randint(0, 256, (5, 2, 3, 4), dtype=torch.uint8, generator=generator)
    pairs = torch.randint(0, 5, (6, 2), generator=generator)
    normalization = Normalization(torch.tensor([0.2, 0.5]), torch.tensor([0.3, 0.7]))
    sets = PairCanvases(pixels, pairs, torch.zeros(6, dtype=torch.int64), canvas, distance, normalization)
    rows = torch.tensor([4, 0, 0, 3])
    images = sets.images(rows)
    assert images.shape == (4, *sets.shape)
    for image, row in zip(images, rows.tolist(), strict=True):
        torch.testing.assert_close(image, naive(sets, row), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("distance", [0, 3, 32])
def test_patches_are_exactly_the_images(distance):
    data = make_is_same_class(IsSameClassConfig(**MINIATURE, distance=distance))
    rows = torch.arange(50)
    canvases = data.test.images(rows)
    for side, patch in enumerate(data.test.patches):
        wanted = data.test.pixels[data.test.pairs[rows, side]].float() / 16
        torch.testing.assert_close(patch.of(canvases), wanted, rtol=1e-6, atol=0)
        patch.of(canvases).zero_()
    assert not canvases.any()  # there is nothing beside the patches
    assert data.test.patches[1].left - data.test.patches[0].left - 8 == distance


@pytest.mark.parametrize("width", [16, 17, 48, 49])
def test_every_distance_that_fits_is_allowed_and_no_other(width):
    for distance in range(width - 16 + 1):
        left, right = placement((8, 8), (8, width), distance)
        assert left.left >= 0
        assert right.left + 8 <= width
    with pytest.raises(ConfigError) as error:
        placement((8, 8), (8, width), width - 15)
    what = f"the distance does not fit two images 8 wide on a canvas {width} wide"
    assert str(error.value) == f"{what} (got {width - 15}, allowed 0 to {width - 16})."


def test_canvases_too_small():
    with pytest.raises(ConfigError, match=r"two images are wider than the canvas \(got 16, allowed width 15\)"):
        placement((8, 8), (8, 15), 0)
    with pytest.raises(ConfigError, match=r"the images are higher than the canvas \(got 8, allowed height 7\)"):
        placement((8, 8), (7, 16), 0)


# --- data sets --------------------------------------------------------------------------------------------------------


def test_the_miniature():
    data = make_is_same_class(IsSameClassConfig(**MINIATURE, distance=24))
    assert (data.task, data.classes, data.binary) == ("is-same-class", ("different", "same"), True)
    assert (len(data.train), len(data.test), data.train.shape) == (1500, 1000, (1, 8, 48))
    assert len(data.train.pixels) <= 1297
    assert len(data.test.pixels) <= 500
    canvases = data.train.images(torch.arange(1500))
    assert (float(canvases.min()), float(canvases.max())) == (0, 1)
    torch.testing.assert_close(canvases, (canvases * 16).round() / 16, rtol=1e-6, atol=0)  # values are sixteenths


def test_the_published_size():
    data = make_is_same_class(IsSameClassConfig(train=30, test=20, distance=160))
    assert data.train.shape == (3, 224, 224)
    assert [p.left for p in data.train.patches] == [0, 192]
    assert data.train.images(torch.arange(30)).dtype == torch.float32


def test_what_a_seed_decides():
    one, same, other = (make_is_same_class(IsSameClassConfig(**MINIATURE, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one.train.pairs, same.train.pairs)
    assert torch.equal(one.train.pixels, same.train.pixels)
    assert not torch.equal(one.train.labels, other.train.labels)
    assert not torch.equal(one.test.labels, one.train.labels[:1000])


def test_distance_and_number_of_train_pairs_leave_the_rest_as_it_is():
    near = make_is_same_class(IsSameClassConfig(**MINIATURE))
    far = make_is_same_class(IsSameClassConfig(**{**MINIATURE, "train": 10}, distance=30))
    assert torch.equal(near.test.pairs, far.test.pairs)
    assert torch.equal(near.test.pixels, far.test.pixels)


def test_only_images_in_use_are_kept():
    data = make_is_same_class(IsSameClassConfig(**{**MINIATURE, "train": 4}))
    assert sorted(data.train.pairs.flatten().unique().tolist()) == list(range(len(data.train.pixels)))


def test_to_keeps_everything_else():
    data = make_is_same_class(IsSameClassConfig(**MINIATURE))
    moved = data.train.to(torch.device("cpu"))
    assert torch.equal(moved.images(torch.arange(5)), data.train.images(torch.arange(5)))
    assert moved.patches == data.train.patches
