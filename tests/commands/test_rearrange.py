"""`htf rearrange`: what is written, and what applies to other data."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from htfcli.files.image_files import load_image_data

NAMES = list("abcdefgh")


@pytest.fixture
def x():
    """a, c, e, g are nearly the same, and so are b, d, f, h."""
    generator = np.random.default_rng(0)
    cause = generator.normal(size=(60, 2))
    return np.round(cause[:, np.arange(8) % 2] + 0.3 * generator.normal(size=(60, 8)), 3)


@pytest.fixture
def frame(x):
    frame = pd.DataFrame(x, columns=NAMES)
    frame.insert(2, "class", np.where(np.arange(60) % 2, "yes", "no"))
    return frame


def halves(names):
    return {frozenset(names[:4]), frozenset(names[4:])}


ODD_AND_EVEN = {frozenset("aceg"), frozenset("bdfh")}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".parquet", ".feather"])
def test_tables(htf, frame, suffix):
    write = {".parquet": frame.to_parquet, ".feather": frame.to_feather}.get(suffix)
    if write is not None:
        write(f"t{suffix}")
    else:
        frame.to_csv(f"t{suffix}", index=False, sep="\t" if suffix == ".tsv" else ",")
    done = htf("rearrange", f"t{suffix}", "--label", "class", "-o", f"out{suffix}")
    assert (done.code, done.err) == (0, "")
    assert [(r["level"], r["after"] <= r["before"]) for r in done.records] == [(1, True), (2, True), (3, True)]
    assert done.records[0]["after"] < 0.5 * done.records[0]["before"]
    read = {".parquet": pd.read_parquet, ".feather": pd.read_feather}.get(suffix)
    out = pd.read_csv(f"out{suffix}", sep="\t" if suffix == ".tsv" else ",") if read is None else read(f"out{suffix}")
    names = list(out.columns)
    assert names.index("class") == 2  # it has not been moved
    assert halves([name for name in names if name != "class"]) == ODD_AND_EVEN
    pd.testing.assert_frame_equal(out[list(frame.columns)], frame, check_dtype=False)


def test_an_order_is_applied_to_other_data_by_names(htf, frame):
    frame.to_csv("t.csv", index=False)
    assert htf("rearrange", "t.csv", "--label", "class", "-o", "out.csv").code == 0
    other = frame.iloc[:5][["class", *reversed(NAMES)]].assign(more="x")
    other.to_csv("test.csv", index=False)
    done = htf("rearrange", "test.csv", "--apply", "out.csv.order.json", "-o", "test_out.csv")
    assert (done.code, done.err) == (0, "")
    names = [name for name in pd.read_csv("out.csv").columns if name != "class"]
    out = pd.read_csv("test_out.csv")
    assert list(out.columns) == ["class", *names, "more"]
    pd.testing.assert_frame_equal(out[list(other.columns)], other, check_dtype=False)


def test_arrays_keep_their_type_and_shape(htf, x, tmp_path):
    np.savez(tmp_path / "a.npz", x=x.astype(np.float32).reshape(60, 2, 4), y=np.arange(60) % 2)
    done = htf("rearrange", "a.npz#x", "-o", "out.npz")
    assert done.code == 0
    order = json.loads((tmp_path / "out.npz.order.json").read_text())
    assert order["shape"] == [2, 4]
    out = np.load(tmp_path / "out.npz")
    assert out["x"].dtype == np.float32
    assert np.array_equal(out["x"].reshape(60, 8), x.astype(np.float32)[:, order["order"]])
    assert np.array_equal(out["y"], np.arange(60) % 2)
    colours = np.stack([x, 2 * x], axis=1).reshape(60, 2, 2, 4)
    np.save(tmp_path / "c.npy", colours)
    assert htf("rearrange", "c.npy", "--apply", "out.npz.order.json", "-o", "c_out.npy").code == 0
    assert np.array_equal(np.load("c_out.npy").reshape(60, 2, 8), colours.reshape(60, 2, 8)[..., order["order"]])
    piped = htf("rearrange", "a.npz#x", "-o", "again.npz", "--grid", "2,4")
    assert (
        piped.error
        == "--grid does not fit the features (got 2 x 4 = 8 places, allowed height,width of 2 x 4 features)."
    )


def test_images_and_training_on_them(htf, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (40, 4, 4), dtype=np.uint8)
    for n, image in enumerate(pixels):
        (tmp_path / "own" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "own" / "ab"[n % 2] / f"{n}.png")
    shuffle = np.random.default_rng(0).permutation(16).tolist()
    (tmp_path / "s.json").write_text(json.dumps({"kind": "order of features", "shape": [4, 4], "order": shuffle}))
    inverse = np.argsort(shuffle).tolist()
    (tmp_path / "b.json").write_text(json.dumps({"kind": "order of features", "shape": [4, 4], "order": inverse}))
    assert htf("rearrange", "own", "--apply", "s.json", "-o", "s.safetensors").code == 0
    assert htf("rearrange", "s.safetensors", "--apply", "b.json", "-o", "b.safetensors").code == 0
    moved, back = load_image_data("s.safetensors"), load_image_data("b.safetensors")
    assert torch.equal(back.train.pixels.flatten(2)[..., shuffle], moved.train.pixels.flatten(2))
    images = {tuple(image.flatten().tolist()) for image in pixels}
    assert {tuple(image.flatten().tolist()) for image in back.train.pixels} <= images
    assert htf("rearrange", "s.safetensors", "-o", "r.safetensors").code == 0
    assert htf("train-cnn", "r.safetensors", "--model", "resnet-mini", "--epochs", 1, "-o", "run", "-q").code == 0


def test_bad_input(htf, frame, tmp_path, x):
    frame.to_csv("t.csv", index=False)
    frame.to_json("t.jsonl", orient="records", lines=True)
    frame[NAMES[:7]].to_csv("few.csv", index=False)
    np.save("x.npy", x)
    (tmp_path / "no.json").write_text("[3]")
    (tmp_path / "twice.json").write_text('{"kind": "order of features", "shape": [3], "order": [0, 1, 1]}')
    (tmp_path / "three.json").write_text('{"kind": "order of features", "shape": [3], "order": [0, 2, 1]}')
    names = ", ".join(f'"{name}"' for name in NAMES)
    (tmp_path / "named.json").write_text(
        f'{{"kind": "order of features", "shape": [8], "order": [7,6,5,4,3,2,1,0], "names": [{names}]}}'
    )
    htf("generate", "is-same-class", "--source", "digits", "--height", 8, "--width", 24, "--train", 20, "--test", 20, "-o",
        "pairs.safetensors")  # fmt: skip
    (tmp_path / "huge.json").write_text(
        '{"kind": "order of features", "shape": [100000000000], "order": [99999999999999999999999, 0]}'
    )
    before = sorted(path.name for path in tmp_path.iterdir())
    for args, code, message in (
        ("t.csv --label class -o t.csv", 2, "t.csv exists. Choose another name, or replace it with --force."),
        ("t.csv --label class -o out.npy", 2, "the output has the format of the input (got .npy, allowed .csv)."),
        ("x.npy -o out.csv", 2, "the output has the format of the input (got .csv, allowed .npy)."),
        ("t.jsonl --label class -o out.jsonl", 2, "only text tables, .parquet and .feather can be rearranged (got .jsonl). Save it as .csv first."),
        ("t.csv -o out.csv", 1, "t.csv: column class is not numbers (got 'no'). Is it the label? --label. Else write it as numbers, or leave it out."),
        ("t.csv --apply no.json -o out.csv", 1, "no.json is not an order of features (allowed a .order.json file of htf rearrange)."),
        ("t.csv --apply nothing.json -o out.csv", 1, "nothing.json does not exist."),
        ("t.csv --apply twice.json -o out.csv", 1, "twice.json is damaged: it is no permutation (got 3 numbers, allowed 0 to 2, each once)."),
        ("t.csv --apply huge.json -o out.csv", 1, "huge.json is damaged: it is no permutation (got 2 numbers, allowed 0 to 99999999999, each once)."),
        ("x.npy --apply three.json -o out.npy", 2, "the order is of other features than those of x.npy (got 8, allowed 3)."),
        ("few.csv --apply named.json -o out.csv", 2, "few.csv lacks columns of the order (got no h, allowed a, b, c, d, e, f, g, h)."),
        ("few.csv --apply three.json -o out.csv", 2, "the order is of other features than few.csv (got 7, allowed 3)."),
        ("t.csv --apply named.json --label class -o out.csv", 2, "--label: for finding an order, not for --apply (got named.json)."),
        ("pairs.safetensors -o out.safetensors", 2, "pairs of is-same-class are put together when they are used, and cannot be rearranged. Write them out first: htf export."),
    ):  # fmt: skip
        done = htf("rearrange", *args.split(), "-q")
        assert (done.code, done.error) == (code, message)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
