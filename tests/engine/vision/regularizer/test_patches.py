from __future__ import annotations

from collections import Counter

import pytest
import torch

from htfcli.engine.vision.datasets.image_set import Patch
from htfcli.engine.vision.regularizer.patches import DifferentPatches, FixedPatches, RandomPatches, gap
from htfcli.errors import ConfigError
from tests.problems import generator


@pytest.mark.parametrize("distance", [None, 0, 2])
def test_random_pairs_are_uniform_over_all_that_fit(distance):
    """Every ordered pair of an enumeration comes up, about equally often; no other does."""
    height, width, size, draws = 3, 6, 2, 6000
    places = [Patch(t, left, size, size) for t in range(height - size + 1) for left in range(width - size + 1)]
    pairs = [(a, b) for a in places for b in places]
    wanted = {(a, b) for a, b in pairs if (gap(a, b) >= 0 if distance is None else gap(a, b) == distance)}
    draw, g = RandomPatches(size, distance), generator(0)
    counts = Counter(draw(height, width, g) for _ in range(draws))
    assert set(counts) == wanted
    expected = draws / len(wanted)
    assert max(abs(n - expected) for n in counts.values()) < 5 * expected**0.5  # five standard deviations


def test_gap_counts_pixels_between():
    assert gap(Patch(0, 0, 2, 2), Patch(0, 5, 2, 2)) == 3
    assert gap(Patch(4, 5, 1, 2), Patch(0, 0, 2, 2)) == 3
    assert gap(Patch(0, 0, 2, 2), Patch(2, 1, 2, 2)) == 0
    assert gap(Patch(0, 0, 2, 2), Patch(1, 1, 2, 2)) == -1


def test_fixed_pairs_come_in_both_orders():
    first, second = Patch(0, 0, 2, 2), Patch(0, 3, 2, 2)
    g = generator(1)
    drawn = [FixedPatches(first, second)(4, 8, g) for _ in range(200)]
    assert set(drawn) == {(first, second), (second, first)}
    assert 70 < drawn.count((first, second)) < 130


def test_the_generator_decides():
    draw = RandomPatches(2)
    once, again = ([draw(150, 150, g) for _ in range(5)] for g in (generator(3), generator(3)))
    assert once == again
    assert torch.rand((), generator=generator(3)) != torch.rand((), generator=generator(4))


def test_samplers_that_cannot_be():
    for make, message in (
        (lambda: RandomPatches(0), "no patches of this kind (got size 0, distance None, allowed size 1 or more, distance 0 or more)."),
        (lambda: RandomPatches(2.5), "no patches of this kind (got size 2.5, distance None, allowed size 1 or more, distance 0 or more)."),
        (lambda: RandomPatches(2, -3), "no patches of this kind (got size 2, distance -3, allowed size 1 or more, distance 0 or more)."),
        (lambda: DifferentPatches(2, draws=0), "there is no pair of patches to choose (got 0 draws, allowed 1 or more)."),
        (lambda: RandomPatches(20)(8, 16, generator(0)), "two patches of 20 x 20 do not fit the images (got images of 8 x 16). Lower --patch-size or --patch-distance."),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as error:
            make()
        assert str(error.value) == message
