from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from htfcli.config.images import PathfinderConfig
from htfcli.engine.vision.datasets.pathfinder import PathfinderDrawing, make_pathfinder
from htfcli.engine.vision.datasets.pathfinder_drawing import draw_images, lay_out, random_of
from htfcli.errors import RunError

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
    assert np.array_equal(again, small.test.pixels[37:39].numpy())
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


def test_metadata_say_what_is_drawn():
    config = SMALL.model_copy(update={"train": 6, "test": 4, "path_length": 3})
    drawing = PathfinderDrawing(config)
    list(drawing.draw(1))
    data = drawing.data()
    records = [json.loads(json.dumps(record)) for record in drawing.metadata()]
    assert [(r["part"], r["number"]) for r in records] == [("train", n) for n in range(6)] + [
        ("test", n) for n in range(4)
    ]
    assert [r["label"] for r in records] == [*data.train.labels.tolist(), *data.test.labels.tolist()]
    for record, image in zip(records, [*data.train.pixels[:, 0], *data.test.pixels[:, 0]], strict=True):
        assert record["long"][:6] == [1, 1, 1, 2, 2, 2]
        assert not any(record["long"][6:])
        for x, y, _ in record["dashes"]:
            assert image[int(y), int(x)] > 0
        for x, y in record["discs"]:
            assert image[int(y), int(x)] == 255
            assert [x, y] in [tip for ends in record["ends"] for tip in ends]
        marked = [next(k for k in (0, 1) if disc in record["ends"][k]) for disc in record["discs"]]
        assert (marked[0] == marked[1]) == bool(record["label"])


def test_masks_are_the_long_paths():
    config = PathfinderConfig(path_length=5, size=100, draw_size=100, train=4, test=2, masks=True)
    data = make_pathfinder(config)
    plain = make_pathfinder(config.model_copy(update={"masks": False}))
    assert torch.equal(plain.train.pixels, data.train.pixels)
    assert plain.train.masks is None
    for number, (image, mask) in enumerate(zip(data.train.pixels[:, 0], data.train.masks, strict=True)):
        assert mask.unique().tolist() == [0, 1, 2]
        assert (image[mask > 0] > 0).all()
        layout = lay_out(config, int(data.train.labels[number]), random_of(config, "train", number))
        for path, value in zip(layout.paths, (1, 2), strict=True):
            assert all(mask[int(((a + b) / 2).imag), int(((a + b) / 2).real)] == value for a, b in path)
        for path in layout.distractors:
            assert all(mask[int(a.imag), int(a.real)] == 0 for a, _ in path)
