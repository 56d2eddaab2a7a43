from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from htfcli.engine.vision.datasets.image_set import StoredImages
from htfcli.files.image_files import load_image_data, load_image_folder

PATHS = ("generate", "pathfinder", "--path-length", 3, "--size", 32, "--train", 30, "--test", 12)
PAIRS = ("generate", "is-same-class", "--distance", 4, "--height", 40, "--width", 80, "--train", 20, "--test", 12)


def own_reader(folder: Path) -> list[tuple[Path, int]]:
    """As the readers of state-space models take the tree apart."""
    found = []
    for source in sorted((folder / "metadata").glob("*.npy"), key=lambda path: int(path.stem)):
        for line in source.read_text().splitlines():
            words = line.split()
            found.append((folder / words[0] / words[1], int(words[3])))
    return found


def normalised(images):
    return images.images(torch.arange(len(images)))


def test_png_folders_are_read_back_as_they_were(htf, tmp_path):
    htf(*PATHS, "-o", "p.safetensors")
    done = htf("export", "p.safetensors", "-o", "png")
    assert (done.code, done.err) == (0, "")
    assert done.records == [{"kind": "images", "output": "png", "task": "pathfinder", "image": [1, 32, 32],
                             "classes": ["different", "same"], "train": 30, "test": 12}]  # fmt: skip
    data, back = load_image_data(str(tmp_path / "p.safetensors")), load_image_folder(str(tmp_path / "png"))
    for one, two in ((data.train, back.train), (data.test, back.test)):
        order = torch.argsort(one.labels, stable=True)  # a folder is read class by class
        assert torch.equal(one.pixels[order], two.pixels)
        assert torch.equal(one.labels[order], two.labels)
    (inspected,) = htf("inspect", "png").records
    assert (inspected["kind"], inspected["train"], inspected["test"]) == ("images", 30, 12)


def test_arrays_and_masks(htf, shell, tmp_path):
    htf(*PATHS, "--masks", "-o", "p.safetensors")
    assert htf("export", "p.safetensors", "-o", "p.npz").code == 0
    assert htf("export", "p.safetensors", "-o", "png").code == 0
    data = load_image_data(str(tmp_path / "p.safetensors"))
    with np.load(tmp_path / "p.npz") as arrays:
        assert sorted(arrays) == ["classes", "test_images", "test_labels", "test_masks", "train_images", "train_labels", "train_masks"]  # fmt: skip
        assert arrays["classes"].tolist() == ["different", "same"]
        for part, images in (("train", data.train), ("test", data.test)):
            assert np.array_equal(arrays[f"{part}_images"], images.pixels)
            assert np.array_equal(arrays[f"{part}_labels"], images.labels)
            assert np.array_equal(arrays[f"{part}_masks"], images.masks)
    for number in (0, 29):
        mask = np.asarray(Image.open(tmp_path / f"png/masks/train/{number:02}.png"))
        assert np.array_equal(mask, data.train.masks[number])
        assert len(list((tmp_path / "png/train").glob(f"*/{number:02}.png"))) == 1


def test_pairs_are_put_on_their_canvases(htf, tmp_path):
    htf(*PAIRS, "-o", "p.safetensors")
    assert htf("export", "p.safetensors", "-o", "p.npz").code == 0
    data = load_image_data(str(tmp_path / "p.safetensors"))
    with np.load(tmp_path / "p.npz") as arrays:
        pixels = torch.from_numpy(arrays["train_images"])
    left, right = data.train.patches
    for side, patch in enumerate((left, right)):
        assert torch.equal(patch.of(pixels), data.train.pixels[data.train.pairs[:, side]])
    stored = StoredImages(pixels, data.train.labels, data.train.normalization)
    assert (normalised(stored) - normalised(data.train)).abs().max() < 0.5 / 255 / data.train.normalization.std.min()


def test_a_pipe_and_a_class_folder(htf, shell):
    command = " ".join(map(str, PATHS))
    done = shell(f"htf {command} -q -o - | htf export - -q -o png && htf export png -o again.npz")
    assert done.code == 0, done.err
    assert np.load(shell.folder / "again.npz")["train_images"].shape == (30, 1, 32, 32)


# --- the tree of Long Range Arena -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_tree_of_long_range_arena(htf, tmp_path, monkeypatch, size):
    monkeypatch.setattr("htfcli.files.image_export.IMAGES_PER_FOLDER", 8)
    profile = ("generate", "pathfinder", "--profile", f"lra-{size}", "--train", 12, "--test", 8)
    done = htf(*profile, "--layout", "lra", "-o", "tree")
    assert done.code == 0, done.err
    assert done.records[0]["output"] == "tree"
    assert htf(*profile, "-o", "file").code == 0
    data = load_image_data(str(tmp_path / "file"))
    found = own_reader(tmp_path / "tree/curv_contour_length_14")
    assert [label for _, label in found] == [*data.train.labels.tolist(), *data.test.labels.tolist()]
    assert {str(path.parent.name) for path, _ in found} == {"0", "1", "2"}
    for (path, _), pixels in zip(found, [*data.train.pixels, *data.test.pixels], strict=True):
        image = Image.open(path)
        assert (image.mode, image.size) == ("L", (size, size))
        assert np.array_equal(np.asarray(image), pixels[0])
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".tree") or f.name.endswith(".part")]


def test_the_tree_is_an_image_data_set(htf, tmp_path):
    htf("generate", "pathfinder", "--profile", "lra-32", "--train", 30, "--test", 10, "--layout", "lra", "-o", "tree")
    (inspected,) = htf("inspect", "tree").records
    assert inspected == {"kind": "images", "task": "pathfinder", "image": [1, 32, 32], "classes": ["different", "same"],
                         "train": 32, "test": 8, "train_labels": [16, 16], "test_labels": [4, 4]}  # fmt: skip
    options = ("--model", "resnet-mini", "--widths", "4,8", "--blocks", "1,1", "--batch-size", 8, "--epochs", 1)
    done = htf("train-cnn", "tree", *options, "-o", "r")
    assert done.code == 0, done.err
    assert "pathfinder, 32 train and 8 test images of 1 x 32 x 32" in done.err
    for data in ((), ("--data", "tree/curv_contour_length_14")):
        measured = htf("measure-locality", "r", *data, "--pairs", 2, "--samples", 8, "--distance", 4)
        assert measured.code == 0, measured.err


# --- nothing is overwritten or half-written ---------------------------------------------------------------------------


def test_a_failure_leaves_nothing(htf, tmp_path, monkeypatch):
    htf(*PATHS, "-o", "p.safetensors")
    saved = []

    def failing(self, path):
        if len(saved) == 5:
            raise OSError(28, "No space left on device")
        saved.append(path)

    monkeypatch.setattr(Image.Image, "save", failing)
    for command in (("export", "p.safetensors"), (*PATHS, "--layout", "lra")):
        saved.clear()
        done = htf(*command, "-o", "x")
        assert (done.code, done.error) == (1, "cannot write x: No space left on device.")
    assert [f.name for f in tmp_path.iterdir()] == ["p.safetensors"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("export p.safetensors", 2, "no output folder or file. Name a folder or a .npz file with -o."),
        ("export p.safetensors -o -", 2, "no output folder or file (got -). Name a folder or a .npz file with -o."),
        ("export p.safetensors -o full", 2, "full exists. Choose another name; folders are never replaced."),
        ("export p.safetensors -o full --force", 2, "full exists. Choose another name; folders are never replaced."),
        ("export p.safetensors -o p.safetensors", 2, "p.safetensors exists. Choose another name; folders are never replaced."),
        ("export p.safetensors -o a.npz", 2, "a.npz exists. Choose another name, or replace it with --force."),
        ("export p.safetensors -o none/x", 1, "cannot write none/x: No such file or directory."),
        ("export nothing -o x", 1, "nothing does not exist."),
        ("export t.safetensors -o x", 1, "t.safetensors holds something else (got observations, allowed images)."),
        ("generate pathfinder --layout lra -o full", 2, "full exists. Choose another name; folders are never replaced."),
        ("generate pathfinder --layout lra -o -", 2, "--layout lra writes a folder, not stdout. Name one with -o."),
        ("generate pathfinder --layout lra --masks -o x", 2, "--masks are not a part of --layout lra. Leave one out."),
    ],
)  # fmt: skip
def test_errors(htf, tmp_path, args, code, message):
    htf(*PATHS, "-o", "p.safetensors")
    htf("generate", "tensor", "--dim", 3, "-o", "t.safetensors")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").write_text("a")
    (tmp_path / "a.npz").write_text("a")
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}
    done = htf(*args.split())
    assert (done.code, done.error) == (code, message)
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")} == before


def test_force_replaces_a_file_and_an_empty_folder_is_filled(htf, tmp_path):
    htf(*PATHS, "-o", "p.safetensors")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.npz").write_text("a")
    assert htf("export", "p.safetensors", "-o", "empty").code == 0
    assert (tmp_path / "empty/train/same").is_dir()
    assert htf("export", "p.safetensors", "-o", "a.npz", "--force").code == 0
    assert len(np.load(tmp_path / "a.npz")["train_images"]) == 30


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden"])
def test_classes_that_are_no_names_of_folders(htf, tmp_path, name):
    from dataclasses import replace

    from htfcli.files.image_files import save_image_data

    htf(*PATHS, "-o", "p.safetensors")
    data = load_image_data(str(tmp_path / "p.safetensors"))
    save_image_data(tmp_path / "q.safetensors", replace(data, classes=("same", name)))
    done = htf("export", "q.safetensors", "-o", "x")
    assert (done.code, done.error) == (1, f"a class cannot be the name of a folder (got {name!r}).")
    assert not (tmp_path / "x").exists()
