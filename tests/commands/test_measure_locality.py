from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from htfcli.experiments.figures.networks import plot_locality, plot_training
from htfcli.files.own.records import Records, load_records
from tests.commands.test_train_cnn import NETWORKS_MODULE, QUICK, REG

FEW = ("--pairs", 4, "--samples", 8, "--table", 4)


@pytest.fixture
def runs(htf):
    for name, options in (("plain", ()), ("reg", REG)):
        assert htf("train-cnn", *QUICK, "--epochs", 1, *options, "-o", name, "-q").code == 0
    return ["reg", "plain"]


@pytest.fixture
def own(tmp_path):
    """The tests' networks as a user's module, imported afresh."""
    (tmp_path / "user_networks.py").write_text(NETWORKS_MODULE)
    yield "user_networks"
    sys.modules.pop("user_networks", None)


def test_runs_are_measured_on_their_own_images(htf, runs):
    done = htf("measure-locality", *runs, *FEW)
    assert (done.code, done.err) == (0, "")
    records = done.records
    assert {r["kind"] for r in records} == {"locality"}
    assert [r["distance"] for r in records if r["model"] == "reg" and r["measure"] == "images"] == list(range(9))
    for record in (r for r in records if r["measure"] == "images"):
        assert record["patch_size"] == 8
        assert record["trained_distance"] == 4
        assert record["dependence"] == pytest.approx(1 - record["cosine"])
        assert 0 <= record["additive_residual"] <= 1
        assert 1 <= record["effective_rank"] <= 4
    fields = [r for r in records if r["measure"] == "receptive-field"]
    assert [r["model"] for r in fields] == runs
    assert sum(fields[0]["profile"]) == pytest.approx(1)
    assert htf("measure-locality", *runs, *FEW).out == done.out


def test_models_of_one_name_keep_their_folders(htf, runs, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "plain").rename(tmp_path / "other" / "reg")
    records = htf("measure-locality", "reg", "other/reg", *FEW, "--distance", 4).records
    assert list(dict.fromkeys(r["model"] for r in records)) == ["reg", "other/reg"]


def test_patches_and_distances_of_ones_choice(htf, runs):
    done = htf("measure-locality", "plain", *FEW, "--patch-size", 2, "--distance", "0,5,7")
    assert [(r["measure"], r["distance"]) for r in done.records[:-1]] == [("patches", d) for d in (0, 5, 7)]
    single = htf("measure-locality", "plain", *FEW, "--patch-size", 2, "--distance", 5)
    assert single.records[0] == done.records[1]


def test_other_images(htf, runs):
    htf("generate", "is-same-class", "--source", "digits", "--height", 8, "--width", 24, "--distance", 8, "--train", 20,
        "--test", 30, "-o", "p.safetensors")  # fmt: skip
    own, other = (
        htf("measure-locality", "plain", *FEW),
        htf("measure-locality", "plain", *FEW, "--data", "p.safetensors"),
    )
    assert other.code == 0
    assert other.records[0]["trained_distance"] == 8
    assert other.records[0]["dependence"] != own.records[0]["dependence"]


def test_a_network_of_ones_own_with_its_weights(htf, tmp_path, own):
    htf("generate", "is-same-class", "--source", "digits", "--height", 8, "--width", 24, "--train", 20, "--test", 30, "-o",
        "p.safetensors")  # fmt: skip
    network = f"{own}:mine"
    torch.manual_seed(0)
    weights = __import__("tests.engine.vision.networks", fromlist=["mine"]).mine(1, 1).state_dict()
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pt")
    results = [
        htf("measure-locality", network, "--weights", f"w.{kind}", "--data", "p.safetensors", *FEW)
        for kind in ("safetensors", "pt")
    ]
    assert results[0].code == 0, results[0].err
    assert results[0].out == results[1].out
    torch.save({"0.weight": torch.zeros(1)}, tmp_path / "bad.pt")
    done = htf("measure-locality", network, "--weights", "bad.pt", "--data", "p.safetensors")
    assert done.code == 1
    assert done.error.startswith("the weights in bad.pt do not fit the network: Missing key(s) in state_dict")


def test_a_trained_network_of_ones_own_needs_its_code(htf, own):
    assert htf("train-cnn", *QUICK[:14], "--model", f"{own}:mine", "--epochs", 1, "-o", "r", "-q").code == 0
    done = htf("measure-locality", "r", *FEW)
    assert (done.code, done.error) == (
        2,
        f"r is a network that only your own code can build (got no --model, allowed --model {own}:mine).",
    )
    done = htf("measure-locality", "r", "--model", f"{own}:mine", *FEW)
    assert done.code == 0, done.err


def test_factorizations(htf):
    htf("generate", "tensor", "--dim", 3, "--rank", 2, "-o", "t.safetensors")
    htf("fit", "t.safetensors", "--width", 3, "--iterations", 10, "-o", "f", "-q")
    done = htf("measure-locality", "f")
    assert [(r["measure"], r["distance"], r["nodes"]) for r in done.records] == [
        ("hierarchical-rank", 0, ["{0}", "{1}", "{2}", "{3}"]),
        ("hierarchical-rank", 1, ["{0,1}", "{2,3}"]),
    ]
    ranks = {r["node"]: r["effective_rank"] for r in htf("measure-rank", "f").records}
    assert done.records[1]["effective_rank"] == pytest.approx((ranks["{0,1}"] + ranks["{2,3}"]) / 2)


def test_table(htf, runs):
    done = htf("measure-locality", "plain", *FEW, "--format", "table")
    assert "additive" in done.out
    assert "plain" in done.out


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("nothing", 1, "nothing does not exist."),
        ("plain --distance 30", 2, "the distance does not fit two images 8 wide on a canvas 24 wide (got 30, allowed 0 to 8)."),
        ("plain --patch-size 2 --distance 30", 2, "two patches of 2 x 2, 30 pixels apart do not fit the images (got images of 8 x 24). Lower --patch-size or --patch-distance."),
        ("plain --patch-size 9", 2, "two patches of 9 x 9, 0 pixels apart do not fit the images (got images of 8 x 24). Lower --patch-size or --patch-distance."),
        ("plain --weights w.pt", 2, "--weights is for module:function (got plain). Runs have their own weights."),
        ("json:dumps", 2, "json:dumps does not say on which images. Name them with --data."),
        ("plain --data other.safetensors", 1, "the images do not fit plain (got [1, 8, 32], allowed [1, 8, 24])."),
        ("tensor.safetensors", 1, "tensor.safetensors holds something else (got observations, allowed cnn or factorization)."),
        ("plain other.safetensors", 2, "networks and data are measured in different ways (got plain and other.safetensors). Call it for each."),
        ("plain --levels 2 --angle 0.1", 2, "--angle, --levels: for data, not for networks (got plain)."),
        ("other.safetensors --pairs 3 --patch-size 2", 2, "--patch-size, --pairs: for networks, not for data (got other.safetensors)."),
        ("plain --distance x", 2, "distance: not distances (got 'x', allowed e.g. 0,8,16)."),
        ("plain --samples 1", 2, "samples: input should be greater than or equal to 2 (got '1')."),
    ],
)  # fmt: skip
def test_bad_usage(htf, runs, args, code, message):
    htf("generate", "is-same-class", "--source", "digits", "--height", 8, "--width", 32, "--train", 20, "--test", 20, "-o",
        "other.safetensors")  # fmt: skip
    htf("generate", "tensor", "--order", 3, "--dim", 3, "-o", "tensor.safetensors", "-q")
    done = htf("measure-locality", *args.split())
    assert (done.code, done.error) == (code, message)
    assert done.out == ""


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures(htf, runs, tmp_path, monkeypatch):
    records = htf("measure-locality", *runs, *FEW).out
    (tmp_path / "l.jsonl").write_text(records)
    for source, name in ((["l.jsonl"], "a.png"), (runs, "b.pdf")):
        done = htf("plot", *source, "-o", name)
        assert (done.code, done.out, done.err) == (0, "", f"wrote {name}\n")
    image = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert image.shape[0] > 600
    for color in ((31, 119, 180), (255, 127, 14)):  # both networks are drawn
        assert (np.abs(image.astype(int) - color).max(-1) < 8).sum() > 500
    monkeypatch.setattr("sys.stdin", io.StringIO(records))
    done = htf("plot", "-", "-o", "c.png")
    assert done.code == 0
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_curves_are_the_records(htf, runs, tmp_path):
    (tmp_path / "l.jsonl").write_text(htf("measure-locality", *runs, *FEW).out)
    loaded = load_records("l.jsonl")
    figure = plot_locality([loaded])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["dependence", "interaction: share that is not a sum", "effective rank of the cross table",
                      "input gradient within a distance"]  # fmt: skip
    lines = figure.axes[0].lines
    wanted = [r["dependence"] for r in loaded.records if r["model"] == "reg" and r["measure"] == "images"]
    assert lines[0].get_label() == "reg"
    assert lines[0].get_ydata().tolist() == wanted
    figure = plot_training([load_records(run) for run in runs])
    assert [axes.get_title() for axes in figure.axes] == ["accuracy", "loss", "regularizer R"]
    accuracy = [r["test_accuracy"] for r in load_records("plain").records]
    assert figure.axes[0].lines[2].get_ydata().tolist() == accuracy


def test_pictures_of_factorizations(htf):
    record = {
        "kind": "locality",
        "model": "f",
        "measure": "hierarchical-rank",
        "distance": 1,
        "rank": 2,
        "effective_rank": 1.5,
    }
    figure = plot_locality([Records("x", [record])])
    assert [axes.get_title() for axes in figure.axes] == [
        "hierarchical tensor: rank",
        "hierarchical tensor: effective rank",
    ]


def test_what_cannot_be_drawn(htf, runs, tmp_path):
    (tmp_path / "l.jsonl").write_text(
        json.dumps({"kind": "locality", "distance": 3, "model": "a", "measure": "x"}) + "\n"
    )
    done = htf("plot", "l.jsonl", "plain", "-o", "x.png")
    assert (done.code, done.error) == (2, "runs of different kinds cannot share a figure (got epoch and locality).")
    done = htf("plot", "plain", "--what", "norms", "-o", "x.png")
    assert (done.code, done.error) == (
        2,
        "--what, --node, --top, --log-x and --log-y are for other records (got epoch).",
    )
    done = htf("plot", "l.jsonl", "-o", "x.png")
    assert (done.code, done.error) == (1, "the records have no measure of locality to plot.")
