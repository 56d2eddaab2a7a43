from __future__ import annotations

import cmath
import itertools
import math
import random

import numpy as np
import pytest
import torch
from scipy import ndimage

from htfcli.config.images import PathfinderConfig
from htfcli.engine.vision.datasets.pathfinder import PathfinderDrawing, make_pathfinder
from htfcli.engine.vision.datasets.pathfinder_drawing import (
    Layout,
    draw,
    draw_images,
    lay_out,
    random_of,
    segment_distance,
)
from htfcli.errors import ConfigError, RunError

SHAPES = [(1, 150), (3, 150), (5, 150), (7, 150), (9, 150), (9, 64), (12, 100), (30, 150)]
SHARE = np.linspace(0, 1, 61)


def layouts(config: PathfinderConfig, count: int, label: int = 1) -> list[Layout]:
    return [lay_out(config, label, random_of(config, "train", number)) for number in range(count)]


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
    config = PathfinderConfig(path_length=length, size=size)
    for layout in layouts(config, 6):
        for first, second in itertools.combinations(layout.cores, 2):
            assert abs(first[0] - second[0]) > 20 or sampled_distance(first, second) >= 5 - 1e-9


@pytest.mark.parametrize(("length", "size"), SHAPES)
def test_paths_are_what_the_options_say(length, size):
    config = PathfinderConfig(path_length=length, size=size)
    for layout in layouts(config, 20):
        assert [len(path) for path in layout.paths] == [length, length]
        assert {len(path) for path in layout.distractors} <= {max(1, length // 3)}
        assert abs(layout.paths[0][0][0] - layout.paths[1][0][0]) == pytest.approx(27)
        for begin, end in layout.cores:
            assert abs(end - begin) == pytest.approx(3)  # and a round end of 1 at either side
            for point in (begin, end):
                assert min(point.real, point.imag) >= 3
                assert max(point.real, point.imag) <= 2 * size - 3
        for path in (*layout.paths, *layout.distractors):
            for (a, b), (c, d) in itertools.pairwise(path):
                assert abs(c - b) == pytest.approx(5)
                turn = abs(cmath.phase((d - c) / (b - a)))
                assert turn <= math.pi / 2 / 1.8 + 1e-9


@pytest.mark.parametrize(("length", "count", "dashes"), [(3, 30, 1), (5, 18, 1), (7, 13, 2), (9, 10, 3), (12, 8, 4)])
def test_distractors_are_as_many_and_as_long_as_published(length, count, dashes):
    config = PathfinderConfig(path_length=length)
    assert (config.canvas, config.distractor_count, config.distractor_length) == (300, count, dashes)
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
        marked = next(k for k in (0, 1) if same.paths[k][0][0] == same.marks[0])
        assert same.marks[1] == same.paths[marked][-1][1]
        assert different.marks[1] == same.paths[1 - marked][-1][1]
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


# --- data sets --------------------------------------------------------------------------------------------------------

SMALL = PathfinderConfig(path_length=3, size=32, train=330, test=141, seed=4)


@pytest.fixture(scope="module")
def small():
    return make_pathfinder(SMALL)


def test_data_set(small):
    assert (small.task, small.classes, small.binary) == ("pathfinder", ("different", "same"), True)
    assert (len(small.train), len(small.test), small.train.shape) == (330, 141, (1, 32, 32))
    assert int(small.train.labels.sum()) == 165
    assert int(small.test.labels.sum()) == 70
    assert small.train.labels[:20].sum() not in (0, 20)
    images = small.train.images(torch.arange(330))
    assert abs(float(images.mean())) < 1e-4
    assert abs(float(images.std()) - 1) < 1e-3
    everything = [image.numpy().tobytes() for part in (small.train, small.test) for image in part.pixels]
    assert len(set(everything)) == len(everything)


def test_an_image_depends_on_its_seed_part_and_number_alone(small):
    again = draw_images(SMALL, "test", 37, small.test.labels[37:39].tolist())
    assert np.array_equal(again, small.test.pixels[37:39, 0].numpy())
    more = make_pathfinder(SMALL.model_copy(update={"train": 331}))
    assert torch.equal(more.test.pixels, small.test.pixels)
    other = make_pathfinder(SMALL.model_copy(update={"seed": 5, "train": 10, "test": 10}))
    assert not torch.equal(other.train.pixels, small.train.pixels[:10])


def test_workers_change_nothing(small):
    counts: list[int] = []
    data = make_pathfinder(SMALL, workers=2, on_progress=counts.append)
    assert torch.equal(data.train.pixels, small.train.pixels)
    assert torch.equal(data.test.pixels, small.test.pixels)
    assert torch.equal(data.test.labels, small.test.labels)
    assert counts == sorted(counts)
    assert counts[-1] == 471


def test_going_on_from_a_state(small):
    drawing = PathfinderDrawing(SMALL)
    for done in drawing.draw(1):
        if done == 200:
            break
    state = {name: tensor.clone() for name, tensor in drawing.state().items()}
    assert len(state["pixels"]) == 200
    resumed = PathfinderDrawing(SMALL)
    resumed.load_state(state)
    assert list(resumed.draw(1)) == [300, 330, 430, 471]
    assert torch.equal(resumed.data().train.pixels, small.train.pixels)
    assert torch.equal(resumed.data().test.pixels, small.test.pixels)
    for broken in ({"chunks": state["chunks"][1:]}, {"pixels": state["pixels"][1:]}, {"chunks": state["chunks"].int()}):
        with pytest.raises(ValueError, match="state is of another data set"):
            PathfinderDrawing(SMALL).load_state({**state, **broken})


@pytest.mark.parametrize("workers", [1, 2])
def test_paths_for_which_there_is_no_room(workers):
    with pytest.raises(RunError) as error:
        make_pathfinder(PathfinderConfig(path_length=60, size=32, train=101, test=1), workers)
    assert str(error.value) == (
        "there is no room for two paths of 60 dashes on a canvas of 64 x 64. "
        "Shorten them by --path-length, or enlarge --size or --draw-size."
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"disc_radius": 4}, "disc-radius: discs would touch other dashes (got 4.0, allowed less than margin + thickness / 2 = 4.0)"),
        ({"dash_length": 1.5}, "dash-length: under the thickness (got 1.5, allowed 2.0 or more)"),
        ({"size": 100, "draw_size": 99}, "draw-size: smaller than size (got 99, allowed 100 or more)"),
    ],
)  # fmt: skip
def test_geometry_that_cannot_be(values, message):
    with pytest.raises(ConfigError) as error:
        PathfinderConfig.checked(values)
    assert str(error.value) == f"{message}."
