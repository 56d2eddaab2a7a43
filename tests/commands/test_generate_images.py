from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from PIL import Image

from htfcli.engine.vision.datasets.pathfinder import PathfinderDrawing
from htfcli.files.image_files import load_image_data

DIGITS = ("generate", "is-same-class", "--source", "digits", "--height", 8, "--width", 48, "--train", 40, "--test", 30)
PATHS = ("generate", "pathfinder", "--path-length", 3, "--size", 32, "--train", 250, "--test", 60)


def test_pairs_record_and_file(htf):
    done = htf(*DIGITS, "--distance", 24, "-o", "pairs.safetensors")
    assert (done.code, done.err) == (0, "")
    facts = {
        "kind": "images",
        "task": "is-same-class",
        "image": [1, 8, 48],
        "classes": ["different", "same"],
        "train": 40,
        "test": 30,
    }
    assert done.records == [{**facts, "output": "pairs.safetensors"}]
    (inspected,) = htf("inspect", "pairs.safetensors").records
    assert facts.items() <= inspected.items()
    assert inspected["patches"] == [[0, 4, 8, 8], [0, 36, 8, 8]]
    assert sum(inspected["train_labels"]) == 40
    assert "source=digits" in inspected["config"]


def test_paths_record_and_file(htf):
    done = htf(*PATHS, "-o", "p.safetensors")
    assert (done.code, done.err) == (0, "")
    assert (done.records[0]["image"], done.records[0]["train"]) == ([1, 32, 32], 250)
    (inspected,) = htf("inspect", "p.safetensors").records
    assert (inspected["train_labels"], inspected["test_labels"]) == ([125, 125], [30, 30])
    table = htf("inspect", "p.safetensors", "--format", "table").out
    assert "test labels  30  30\n" in table


def test_metadata_are_lines_about_every_image(htf, tmp_path):
    done = htf(*PATHS, "--masks", "-o", "p.safetensors", "--metadata", "p.jsonl")
    assert (done.code, done.err) == (0, "wrote p.jsonl\n")
    records = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    data = load_image_data(str(tmp_path / "p.safetensors"))
    assert [r["label"] for r in records] == [*data.train.labels.tolist(), *data.test.labels.tolist()]
    for record, mask in zip(records, [*data.train.masks, *data.test.masks], strict=True):
        for (x, y, _), path in zip(record["dashes"], record["long"], strict=True):
            assert mask[int(y), int(x)] == path
    assert htf(*PATHS, "-o", "q", "--metadata", "p.jsonl").error.startswith("p.jsonl exists. ")


def test_pipe(shell):
    done = shell("htf generate pathfinder --path-length 5 --size 64 --train 9 --test 9 -o - | htf inspect -")
    assert (done.code, done.err) == (0, "9 train and 9 test images of 1 x 64 x 64 for pathfinder\n")
    assert done.records[0]["train"] == 9


def test_the_same_seed_is_the_same_file_whatever_the_workers(htf, tmp_path):
    for name, options in (("a", (1, 3)), ("b", (2, 3)), ("c", (1, 4))):
        assert htf(*PATHS, "--workers", options[0], "--seed", options[1], "-o", name).code == 0
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_configuration_is_printed_and_read_back(htf, tmp_path):
    printed = htf("generate", "pathfinder", "--path-length", 12, "--set", "size=64", "--print-config").out
    assert "path_length: 12\n" in printed
    (tmp_path / "c.yaml").write_text(printed)
    assert htf("generate", "pathfinder", "--config", "c.yaml", "--print-config").out == printed


def test_help_has_examples(htf):
    for name in ("is-same-class", "pathfinder"):
        examples = htf("generate", name, "--help").out.split("Examples:")[1].strip().splitlines()
        assert sum(line.strip().startswith(f"htf generate {name}") for line in examples) >= 2
        assert any("|" in line for line in examples)


@pytest.mark.parametrize("command", [DIGITS, PATHS, (*PATHS[:-1], 20, "--train", 3)])
def test_preview(htf, tmp_path, command):
    done = htf(*command, "-o", "x", "--preview", "p.png")
    assert (done.code, done.err) == (0, "wrote p.png\n")
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    assert htf(*command, "-o", "y", "--preview", "p.png").error.startswith("p.png exists. ")
    assert not (tmp_path / "y").exists()


def test_folder_of_images(htf, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "f" / name).mkdir(parents=True)
        for k in range(4):
            pixels = np.random.default_rng(k).integers(0, 256, (10, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "f" / name / f"{k}.jpg")
    done = htf(
        "generate", "is-same-class", "--source", "folder", "--data-dir", "f", "--train", 9, "--test", 9, "-o", "x"
    )
    assert done.code == 0, done.err
    assert done.records[0]["image"] == [3, 70, 70]


# --- interruption -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def stopped(request, monkeypatch):
    """The first run gets a signal after its second chunk."""
    draw, signals = PathfinderDrawing.draw, [request.param]

    def stopping(self, workers):
        for chunk, done in enumerate(draw(self, workers), start=1):
            if chunk == 2 and signals:
                os.kill(os.getpid(), signals.pop())
            yield done

    monkeypatch.setattr(PathfinderDrawing, "draw", stopping)


def test_an_interrupted_run_goes_on(htf, tmp_path, stopped):
    done = htf(*PATHS, "-o", "x")
    assert (done.code, done.out) == (130, "")
    assert done.error == "interrupted after 200 of 310 images; x.part keeps them, go on with --resume."
    assert not (tmp_path / "x").exists()
    assert htf("inspect", "x.part").records[0]["kind"] == "unfinished images"
    done = htf(*PATHS, "-o", "x")
    advice = "Continue it with --resume, or begin anew with --force."
    assert (done.code, done.error) == (2, f"x.part holds an interrupted run. {advice}")
    done = htf(*PATHS, "--seed", 1, "--size", 40, "-o", "x", "--resume")
    message = "x.part was drawn with another size, seed. Give the same settings, or begin anew with --force."
    assert (done.code, done.error) == (2, message)
    done = htf(*PATHS, "-o", "x", "--resume")
    assert (done.code, done.err) == (0, "")
    assert htf(*PATHS, "-o", "whole").code == 0
    assert (tmp_path / "x").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "x.part").exists()


def test_nothing_is_kept_for_stdout(htf, stopped):
    done = htf(*PATHS, "-o", "-")
    assert (done.code, done.error) == (130, "interrupted after 200 of 310 images; none are kept with -o -.")


def test_nothing_to_resume(htf, tmp_path):
    done = htf(*PATHS, "-o", "x", "--resume")
    message = "there is no interrupted run to resume for -o x. Start it without --resume."
    assert (done.code, done.error) == (2, message)
    assert htf(*PATHS, "-o", "x").code == 0
    (tmp_path / "y.part").write_bytes((tmp_path / "x").read_bytes())
    done = htf(*PATHS, "-o", "y", "--resume")
    assert (done.code, done.error) == (1, "y.part holds something else (got images, allowed unfinished images).")


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("is-same-class", 2, "no output file. Name one with -o, or - for stdout."),
        ("is-same-class -o . ", 2, ". is a folder (allowed a file)."),
        ("is-same-class -o x --preview p.gif", 2, "unsupported picture format (got gif, allowed png, svg, pdf)."),
        ("is-same-class -o x --preview -", 2, "--preview writes a file; stdout is for the data set."),
        ("is-same-class -o x --distance 161", 2, "the distance does not fit two images 32 wide on a canvas 224 wide (got 161, allowed 0 to 160)."),
        ("is-same-class -o x --width 60", 2, "two images are wider than the canvas (got 64, allowed width 60)."),
        ("is-same-class -o x --height 31", 2, "the images are higher than the canvas (got 32, allowed height 31)."),
        ("is-same-class -o x --source cifar10 --images 100", 2, "images: only for source shapes (got source cifar10)."),
        ("is-same-class -o x --data-dir f", 2, "data-dir: only for source cifar10 or folder (got source shapes)."),
        ("is-same-class -o x --source folder", 2, "source folder needs data-dir, a folder with one sub-folder of images a class."),
        ("is-same-class -o x --source folder --data-dir none", 1, "none is not a folder."),
        ("is-same-class -o x --source cifar10 --data-dir none", 1, "none does not exist. --download fetches CIFAR-10 (162 MiB)."),
        ("is-same-class -o x --source digits --test-images 5", 2, "the images cannot be split (got 5 to test on, allowed 10 to 1787 of 1797, so that both sides have all 10 classes)."),
        ("is-same-class -o x --train 0 --seed -1", 2, "2 problems: train: input should be greater than or equal to 1 (got '0'); seed: input should be greater than or equal to 0 (got '-1')."),
        ("pathfinder -o x --path-length 90 --size 64 --train 1 --test 1", 1, "there is no room for two paths of 90 dashes on a canvas of 128 x 128. Shorten them by --path-length, or enlarge --size or --draw-size."),
        ("pathfinder -o x --disc-radius 8", 2, "disc-radius: discs would overlap other dashes (got 8.0, allowed at most 2 margin + thickness / 2 = 7.0)."),
        ("pathfinder -o x --metadata -", 2, "--metadata writes a file; stdout is for the data set."),
        ("pathfinder -o - --resume", 2, "there is no interrupted run to resume for -o -. Start it without --resume."),
        ("pathfinder -o none/x", 1, "cannot write none/x: No such file or directory."),
    ],
)  # fmt: skip
def test_errors(htf, args, code, message):
    done = htf("generate", *args.split())
    assert (done.code, done.error) == (code, message)
    assert done.out == ""
