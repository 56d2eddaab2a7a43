from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from htfcli.config.images import IsSameClassConfig, PathfinderConfig
from htfcli.engine.vision.datasets.image_set import ImageData
from htfcli.engine.vision.datasets.is_same_class import make_is_same_class
from htfcli.engine.vision.datasets.pathfinder import make_pathfinder
from htfcli.errors import ConfigError, DataError
from htfcli.files.image_files import load_image_data, load_image_folder, save_image_data
from htfcli.files.own import container

PAIRS = IsSameClassConfig(source="digits", distance=5, height=9, width=40, train=30, test=20)
PATHS = PathfinderConfig(path_length=2, size=32, train=12, test=8)


def same(one: ImageData, other: ImageData) -> bool:
    facts = [(d.task, d.classes, d.about, d.train.shape, d.train.patches) for d in (one, other)]
    return facts[0] == facts[1] and all(
        torch.equal(a.images(torch.arange(len(a))), b.images(torch.arange(len(b)))) and torch.equal(a.labels, b.labels)
        for a, b in ((one.train, other.train), (one.test, other.test))
    )


@pytest.mark.parametrize("make", [lambda: make_is_same_class(PAIRS), lambda: make_pathfinder(PATHS)])
def test_what_is_saved_is_loaded(tmp_path, make):
    data = make()
    for name in "ab":
        save_image_data(tmp_path / name, data)
    assert same(load_image_data(str(tmp_path / "a")), data)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_files_hold_no_canvases(tmp_path):
    data = make_is_same_class(IsSameClassConfig(source="digits", train=3000, test=3000, distance=20))
    save_image_data(tmp_path / "a", data)
    assert (tmp_path / "a").stat().st_size < 1797 * 64 + 6000 * 12 + 2000


def test_other_things_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"x\.npy holds something else \(got a tensor, allowed images\)"):
        load_image_data(str(tmp_path / "x.npy"))
    container.save(tmp_path / "t", "tensor", {"x": torch.zeros(1)}, {})
    with pytest.raises(DataError, match=r"t holds something else \(got tensor, allowed images\)"):
        load_image_data(str(tmp_path / "t"))


DAMAGE = {
    "task": (lambda t, c: c.update(task="other"), "its description of the images is malformed"),
    "classes": (lambda t, c: c.update(classes=["one"]), "its description of the images is malformed"),
    "unknown": (lambda t, c: c.update(more=1), "its description of the images is malformed"),
    "no pixels": (lambda t, c: t.pop("train/pixels"), "train/pixels is missing or has the wrong type or shape"),
    "float pixels": (lambda t, c: t.update({"test/pixels": t["test/pixels"].float()}), "test/pixels is missing or has"),
    "flat pixels": (lambda t, c: t.update({"test/pixels": t["test/pixels"][:, 0]}), "test/pixels is missing or has"),
    "no images": (lambda t, c: t.update({"test/pixels": t["test/pixels"][:0]}), "test/pixels is missing or has"),
    "few labels": (lambda t, c: t.update({"train/labels": t["train/labels"][1:]}), "train/pairs is missing or has"),
    "labels": (lambda t, c: t["train/labels"].fill_(2), "train/labels is out of range (got 2 to 2, allowed 0 to 1)"),
    "pairs": (lambda t, c: t["test/pairs"].sub_(1), "test/pairs is out of range (got -1 to "),
    "std": (lambda t, c: t["std"].zero_(), "its mean or standard deviation cannot normalize"),
    "mean": (lambda t, c: t["mean"].fill_(float("nan")), "its mean or standard deviation cannot normalize"),
    "channels": (lambda t, c: t.update(std=torch.ones(3)), "std is missing or has"),
    "distance": (lambda t, c: c["canvas"].update(distance=25), "the distance does not fit two images 8 wide on a canvas 40 wide (got 25, allowed 0 to 24)"),
    "no canvas": (lambda t, c: c.update(canvas=None), "its description of the images is malformed"),
    "a canvas too many": (lambda t, c: c.update(task="pathfinder"), "its description of the images is malformed"),
    "three classes": (lambda t, c: c.update(classes=["a", "b", "c"]), "its description of the images is malformed"),
    "sizes": (lambda t, c: t.update({"test/pixels": t["test/pixels"].repeat(1, 3, 1, 1)}), "mean is missing or has"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files(tmp_path, name):
    change, message = DAMAGE[name]
    save_image_data(tmp_path / "a", make_is_same_class(PAIRS))
    artefact = container.read(tmp_path / "a")
    tensors, content = artefact.tensors(), json.loads(json.dumps(artefact.content))
    change(tensors, content)
    container.save(tmp_path / "b", "images", tensors, content, artefact.config)
    with pytest.raises(DataError) as error:
        load_image_data(str(tmp_path / "b"))
    assert str(error.value).startswith(f"{tmp_path / 'b'} is damaged: {message}")


def test_train_and_test_images_of_different_sizes(tmp_path):
    data = make_pathfinder(PATHS)
    save_image_data(tmp_path / "a", data)
    artefact = container.read(tmp_path / "a")
    tensors = artefact.tensors()
    tensors["test/pixels"] = tensors["test/pixels"][..., 1:]
    container.save(tmp_path / "b", "images", tensors, artefact.content)
    with pytest.raises(DataError, match="its train and test images differ in size"):
        load_image_data(str(tmp_path / "b"))


# --- a user's folder --------------------------------------------------------------------------------------------------


def fill(folder, classes=("a", "b"), each=10):
    generator = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for k in range(each):
            Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(folder / name / f"{k}.png")
    return str(folder)


def test_image_folder(tmp_path):
    path = fill(tmp_path / "f")
    data = load_image_folder(path, seed=3, test_fraction=0.3)
    assert (data.task, data.classes, data.binary) == ("images", ("a", "b"), False)
    assert (len(data.train), len(data.test), data.train.shape, data.train.patches) == (14, 6, (3, 6, 8), None)
    assert torch.bincount(data.test.labels).tolist() == [3, 3]
    assert abs(float(data.train.images(torch.arange(14)).mean())) < 1e-5
    assert load_image_folder(path, size=5).train.shape == (3, 5, 5)
    assert same(data, load_image_folder(path, seed=3, test_fraction=0.3))
    assert not torch.equal(data.test.pixels, load_image_folder(path, seed=4, test_fraction=0.3).test.pixels)
    save_image_data(tmp_path / "s", data)
    assert same(load_image_data(str(tmp_path / "s")), data)


def test_image_folder_with_a_split_of_its_own(tmp_path):
    fill(tmp_path / "f/train", each=4)
    fill(tmp_path / "f/test", each=3)
    data = load_image_folder(str(tmp_path / "f"))
    assert (len(data.train), len(data.test)) == (8, 6)


def test_image_folder_of_too_few_images(tmp_path):
    with pytest.raises(ConfigError, match=r"the images cannot be split \(got 0 to test on, allowed 2 to 2 of 4"):
        load_image_folder(fill(tmp_path / "f", each=2), test_fraction=0.1)
