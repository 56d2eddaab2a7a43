from __future__ import annotations

import cmath
import itertools
import math
import random

import numpy as np
import pytest
from scipy import ndimage, stats
from sklearn.neighbors import KNeighborsClassifier

from htfcli.config.images import LRA_PROFILES, PathfinderConfig
from htfcli.engine.vision.datasets.pathfinder_drawing import (
    Layout,
    draw,
    lay_out,
    random_of,
    segment_distance,
)
from htfcli.errors import ConfigError

SHAPES = [(1, 150), (3, 150), (5, 150), (7, 150), (9, 150), (9, 64), (12, 100), (30, 150)]
SHARE = np.linspace(0, 1, 61)
# Measured on the authors' generator: mean distance between the ends of a long path, by path length (pixels of 300)
PUBLISHED = {3: 26.0, 5: 47.1, 7: 66.4, 9: 85.1}


def layouts(config: PathfinderConfig, count: int, label: int = 1) -> list[Layout]:
    return [lay_out(config, label, random_of(config, "train", number)) for number in range(count)]


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request):
    """4000 layouts of a published length; distractors are laid out last and do not matter to the long paths."""
    config = PathfinderConfig(path_length=request.param, distractors=0)
    return config, [lay_out(config, n % 2, random_of(config, "train", n)) for n in range(4000)]


def sampled_distance(first, second) -> float:
    """Least distance between points along two segments: at least that of the segments."""
    points = [a + SHARE * (b - a) for a, b in (first, second)]
    return float(np.abs(points[0][:, None] - points[1][None]).min())


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_segment_distance():
    generator = random.Random(0)
    crossed = 0
    for _ in range(300):
        first, second = (
            (a, a + cmath.rect(3, generator.uniform(0, 7)))
            for a in (0j, complex(generator.gauss(), generator.gauss()) * 3)
        )
        distance, sampled = segment_distance(first, second), sampled_distance(first, second)
        assert distance <= sampled + 1e-12
        assert sampled - distance < 0.05
        assert segment_distance(second, first) == pytest.approx(distance)
        crossed += distance == 0
    assert crossed > 10
    assert segment_distance((1 + 1j, 1 + 1j), (4 + 5j, 4 + 5j)) == pytest.approx(5)
    assert segment_distance((0j, 0j), (-3 + 2j, 3 + 2j)) == pytest.approx(2)


@pytest.mark.parametrize(("length", "size"), SHAPES)
def test_no_dash_is_within_the_margin_of_another(length, size):
    """6 pixels or more between two strokes of thickness 2, save between successive ones, which may turn by 50 degrees."""
    config = PathfinderConfig(path_length=length, size=size)
    for layout in layouts(config, 6):
        successive = {pair for path in (*layout.paths, *layout.distractors) for pair in itertools.pairwise(path)}
        for first, second in itertools.combinations(layout.cores, 2):
            least = 8 if (first, second) not in successive else 8 * math.cos(math.pi / 7.2) - 2 * 2**0.5  # whole pixels
            assert abs(first[0] - second[0]) > 20 or sampled_distance(first, second) >= least - 1e-9


@pytest.mark.parametrize("rounding", [True, False])
@pytest.mark.parametrize(("length", "size"), SHAPES)
def test_paths_are_what_the_options_say(length, size, rounding):
    config = PathfinderConfig(path_length=length, size=size, rounding=rounding)
    error = 2**0.5 if rounding else 1e-9  # of a point that goes to the next pixel each way
    border = (22 + 3) / 300 * 2 * size - 3 / 300 * (2 * size - 300)  # padding in proportion, margin as it is
    steps, turns = [], []
    for layout in layouts(config, 20):
        assert [len(path) for path in layout.paths] == [length, length]
        assert {len(path) for path in layout.distractors} <= {max(1, length // 3)}
        assert abs(abs(layout.ends[0][0] - layout.ends[1][0]) - 27) <= error
        start = layout.ends[0][0]
        assert all(0.18 * 2 * size - 1 <= x <= 0.82 * 2 * size for x in (start.real, start.imag))
        for begin, end in layout.cores:
            assert abs(end - begin) == pytest.approx(3)  # and a round end of 1 at either side
            for point in (begin, end):
                assert min(point.real, point.imag) - 1 >= border - 1e-9
                assert max(point.real, point.imag) + 1 <= 2 * size - border + 1e-9
        for path in (*layout.paths, *layout.distractors):
            for (a, b), (c, d) in itertools.pairwise(path):
                steps.append(abs((c + d) / 2 - (a + b) / 2))
                turns.append(abs(cmath.phase((d - c) / (b - a))))
                if not rounding:  # both dashes are 11 / 2 from the point where the path turns
                    assert steps[-1] == pytest.approx(11 * math.cos(turns[-1] / 2))
    if turns:
        assert max(turns) <= math.pi / 2 / 1.8 + 1e-9
        assert np.mean(steps) == pytest.approx(11, abs=1)  # the points where paths turn go up to pixels, tips down


def test_ends_are_as_far_apart_as_published(published):
    config, found = published
    distances = np.array([abs(end - begin) for layout in found for begin, end in layout.ends])
    assert distances.mean() == pytest.approx(PUBLISHED[config.path_length], rel=0.03)


def walk(length: int, generator: np.random.Generator) -> float:
    """Distance between the ends of a path on whole pixels of an empty plane, by the definition of the generator: the
    head of the next dash is one of the pixels that a circle about the pivot goes through, by the weight of its turn."""
    direction = generator.integers(-180, 180) * np.pi / 180
    tail = np.zeros(2)
    head = np.ceil(tail + 5 * np.array([np.sin(direction), np.cos(direction)]))
    pivot = np.ceil(head - 8 * np.array([np.sin(direction), np.cos(direction)]))
    circle = np.arange(0, 2 * np.pi, 1 / 8)  # a pixel of arc at a time
    for _ in range(length - 1):
        pivot = np.ceil(pivot + 11 * np.array([np.sin(direction), np.cos(direction)]))
        heads = np.unique(np.floor(pivot + 8 * np.stack([np.sin(circle), np.cos(circle)], 1)), axis=0)
        directions = np.arctan2(*(heads - pivot).T)
        turns = np.abs((directions - direction + np.pi) % (2 * np.pi) - np.pi)
        weights = np.cos(np.minimum(1.8 * turns, np.pi / 2)) ** 2
        chosen = generator.choice(len(heads), p=weights / weights.sum())
        head, direction = heads[chosen], directions[chosen]
    return float(np.linalg.norm(head - tail))


def test_distances_between_ends_deviate_as_published(published):
    """Length 9 aside, where a free walk differs from one that must not meet others: they straighten or fail."""
    config, found = published
    generator = np.random.default_rng(1)
    wanted = np.array([walk(config.path_length, generator) for _ in range(1500)])
    distances = np.array([abs(end - begin) for layout in found for begin, end in layout.ends])
    assert distances.mean() == pytest.approx(wanted.mean(), rel=0.03)
    assert distances.std() == pytest.approx(wanted.std(), rel=0.1)  # that of 1500 is known to 5 % or so


@pytest.mark.parametrize("rounding", [True, False])
def test_turns_have_the_published_distribution(rounding):
    """Density cos^2(1.8 d) within 50 degrees, by Kolmogorov-Smirnov; of first turns, which little stands in the way of."""
    config = PathfinderConfig(path_length=3, distractors=0, rounding=rounding)
    turns = [
        cmath.phase((b[1] - b[0]) / (a[1] - a[0]))
        for layout in layouts(config, 2000)
        for a, b in (layout.paths[0][:2],)
    ]

    def cumulative(d):
        return 0.5 + (2 * 1.8 * np.clip(d, -np.pi / 3.6, np.pi / 3.6) + np.sin(3.6 * d)) / (2 * np.pi)

    limit = 0.06 if rounding else 0.04  # pixels leave steps of a few degrees; 1.36 / sqrt(2000) = 0.03 at 5 %
    assert stats.kstest(turns, cumulative).statistic < limit
    assert np.degrees(np.std(turns)) == pytest.approx(18.07, rel=0.05)


def accuracy_of_distance(found: list[Layout]) -> float:
    """Of a nearest-neighbour classifier of the distance between discs, trained on half of layouts of labels 0, 1, 0 ..."""
    distances = np.array([[abs(layout.marks[1] - layout.marks[0])] for layout in found])
    labels, half = np.arange(len(found)) % 2, len(found) // 2
    return KNeighborsClassifier(101).fit(distances[:half], labels[:half]).score(distances[half:], labels[half:])


def test_the_balanced_distance_says_nothing(published):
    """55 % is 4.5 standard errors above chance. Without balance, measured on the authors' generator: .94 .89 .83 .78."""
    config, plain = published
    balanced = config.model_copy(update={"balance": "distance"})
    found = [lay_out(balanced, n % 2, random_of(balanced, "test", n)) for n in range(4000)]
    assert 0.4 < accuracy_of_distance(found) <= 0.55
    authors = {3: 0.94, 5: 0.89, 7: 0.83, 9: 0.78}[config.path_length]
    assert accuracy_of_distance(plain) == pytest.approx(authors, abs=0.05)


def test_balanced_paths_are_as_long_as_others():
    config = PathfinderConfig(path_length=7, distractors=0, balance="distance")
    found = layouts(config, 1500)
    first, second, across = (
        np.array([abs(b - a) for a, b in pairs])
        for pairs in (
            [layout.ends[0] for layout in found],
            [layout.ends[1] for layout in found],
            [(layout.ends[0][0], layout.ends[1][1]) for layout in found],
        )
    )
    assert stats.ks_2samp(first, second).statistic < 0.07  # 1.36 sqrt(2 / 1500) = 0.05 at 5 %
    assert stats.ks_2samp(first, across).statistic < 0.07
    assert all(abs(layout.ends[0][0] - layout.ends[1][0]) == pytest.approx(27) for layout in found)


@pytest.mark.parametrize("profile", LRA_PROFILES)
def test_profiles(profile):
    config = PathfinderConfig.checked({"profile": profile})
    assert (config.path_length, config.canvas) == (14, config.size)
    assert config.size == int(profile.removeprefix("lra-"))
    (layout,) = layouts(config, 1)
    image = draw(config, layout)
    assert image.max() == 255
    assert [len(path) for path in layout.paths] == [14, 14]
    assert PathfinderConfig.checked({"profile": profile, "path_length": 6, "seed": 3}).path_length == 6
    assert PathfinderConfig.checked(config.model_dump()) == config


def test_one_of_several_margins():
    config = PathfinderConfig.checked({"margin": "2,3", "path_length": 3, "rounding": False})
    gaps = {round(abs(layout.paths[0][1][0] - layout.paths[0][0][1]), 0) for layout in layouts(config, 20)}
    assert len(gaps) > 1


@pytest.mark.parametrize(("length", "count", "dashes"), [(3, 30, 1), (5, 18, 1), (7, 13, 2), (9, 10, 3), (12, 8, 4)])
def test_distractors_are_as_many_and_as_long_as_published(length, count, dashes):
    config = PathfinderConfig(path_length=length)
    assert (config.canvas, config.distractor_count, config.distractor_dashes) == (300, count, dashes)
    assert {len(layout.distractors) for layout in layouts(config, 10)} == {count}
    assert PathfinderConfig(path_length=length, size=75).distractor_count == math.ceil(90 / length / 4)


def test_distractors_for_which_there_is_no_room_are_left_out():
    config = PathfinderConfig(size=32, path_length=3, distractors=500)
    assert all(5 < len(layout.distractors) < 100 for layout in layouts(config, 3))


def test_labels_move_one_mark_and_nothing_else():
    config = PathfinderConfig(path_length=4, size=80)
    first_marked = 0
    for same, different in zip(layouts(config, 30, 1), layouts(config, 30, 0), strict=True):
        assert (same.paths, same.distractors) == (different.paths, different.distractors)
        assert same.marks[0] == different.marks[0]
        marked = next(k for k in (0, 1) if same.ends[k][0] == same.marks[0])
        assert same.marks[1] == same.ends[marked][1]
        assert different.marks[1] == same.ends[1 - marked][1]
        first_marked += marked == 0
    assert 5 < first_marked < 25


# --- drawing ----------------------------------------------------------------------------------------------------------


def test_every_dash_is_a_spot_of_its_own():
    config = PathfinderConfig(path_length=9, size=150, draw_size=150, antialias=4)
    for layout in layouts(config, 5):
        _, spots = ndimage.label(draw(config, layout) > 0, structure=np.ones((3, 3)))
        assert spots == len(layout.cores)  # discs lie on the ends of dashes


@pytest.mark.parametrize(("size", "draw_size", "antialias"), [(48, 96, 2), (40, 100, 1), (64, 64, 3)])
def test_drawing_is_that_of_whole_frames(size, draw_size, antialias):
    """Against distances of all points of the grid to all strokes and discs, each pixel's share counted."""
    config = PathfinderConfig(path_length=5, size=size, draw_size=draw_size, antialias=antialias)
    (layout,) = layouts(config, 1)
    axis = (np.arange(draw_size * antialias) + 0.5) / antialias
    points = axis[None, :] + 1j * axis[:, None]
    covered = np.zeros(points.shape, bool)
    for a, b in layout.cores:
        share = np.clip(((points - a) * (b - a).conjugate()).real / abs(b - a) ** 2, 0, 1)
        covered |= np.abs(points - a - share * (b - a)) <= 1
    for mark in layout.marks:
        covered |= np.abs(points - mark) <= 3
    drawn = draw(config, layout)
    assert drawn.shape == (size, size)
    assert drawn.dtype == np.uint8
    assert drawn.mean() == pytest.approx(255 * covered.mean(), rel=0.1)  # what a box filter does to 5 points in 2
    block = draw_size * antialias / size
    if block == int(block):
        k = int(block)
        wanted = 255 * covered.reshape(size, k, size, k).mean((1, 3))
        assert np.abs(drawn - wanted).max() <= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"disc_radius": 7.5}, "disc-radius: discs would overlap other dashes (got 7.5, allowed at most 2 margin + thickness / 2 = 7.0)"),
        ({"dash_length": 1.5}, "dash-length: under the thickness (got 1.5, allowed 2.0 or more)"),
        ({"size": 100, "draw_size": 99}, "draw-size: smaller than size (got 99, allowed 100 or more)"),
        ({"padding": 150}, "padding: leaves no room (got 150.0, allowed less than half the canvas, 150.0)"),
        ({"start_border": 200}, "start-border: leaves no room (got 200.0, allowed less than half the canvas, 150.0)"),
        ({"margin": "2,x"}, "margin: not a margin (got '2,x', allowed a positive number, or several as 2,3)"),
        ({"balance": "distance", "start_distance": 0}, "balance: distance needs a start-distance above 0 (got 0.0)"),
    ],
)  # fmt: skip
def test_geometry_that_cannot_be(values, message):
    with pytest.raises(ConfigError) as error:
        PathfinderConfig.checked(values)
    assert str(error.value) == f"{message}."
