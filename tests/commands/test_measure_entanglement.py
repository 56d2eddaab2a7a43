"""`htf measure-locality` on data: tables, arrays, image data sets."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from htfcli.experiments.figures.entanglement import plot_entanglement
from htfcli.files.own.records import load_records


@pytest.fixture
def x():
    return np.random.default_rng(0).random((40, 8))


@pytest.fixture
def table(x, tmp_path, htf):
    def write(name="t.csv", labels=("yes", "no"), sign=",", change=lambda rows: rows):
        rows = [[*"abcdefgh", "class"]]
        rows += [[*map(repr, map(float, row)), labels[n % len(labels)]] for n, row in enumerate(x)]
        (tmp_path / name).write_text("\n".join(map(sign.join, change(rows))) + "\n")
        return name

    return write


def test_a_table_an_array_and_images_of_the_same_numbers(htf, table, x, tmp_path):
    found = htf("measure-locality", table(), "--label", "class", "--levels", "1,3")
    assert (found.code, found.err) == (0, "")
    partitions = [r for r in found.records if r["kind"] == "entanglement"]
    assert [r["level"] for r in partitions] == [1] * 2 + [3] * 8
    assert [r["features"] for r in partitions[:3]] == [[0, 1, 2, 3], [4, 5, 6, 7], [0]]
    assert list(partitions[0]) == [
        "kind", "data", "level", "position", "features", "entanglement", "geometric", "surrogate", "error"
    ]  # fmt: skip
    means = [r for r in found.records if r["kind"] == "entanglement-mean"]
    assert [r["level"] for r in means] == [1, 3]
    assert means[1]["entanglement"] == pytest.approx(np.mean([r["entanglement"] for r in partitions[2:]]))
    np.savez(tmp_path / "t.npz", x=x, y=np.arange(40) % 2)
    array = htf("measure-locality", "t.npz#x", "--label", "y", "--levels", "1,3")
    for one, other in zip(partitions, [r for r in array.records if r["kind"] == "entanglement"], strict=True):
        assert one["entanglement"] == pytest.approx(other["entanglement"], abs=1e-9)
    np.save(tmp_path / "grid.npy", x.reshape(40, 2, 4))
    np.save(tmp_path / "rows.npy", x)
    grid = htf("measure-locality", "grid.npy").records
    assert [r["features"] for r in grid[:-1]] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    rows = htf("measure-locality", "rows.npy", "--grid", "2,4").records
    assert [r.get("features") for r in rows] == [r.get("features") for r in grid]
    assert htf("measure-locality", table(), "--label", "class", "--levels", "1,3").out == found.out


def test_an_image_data_set_and_a_folder_of_images(htf, tmp_path):
    htf("generate", "is-same-class", "--source", "digits", "--height", 8, "--width", 24, "--train", 30, "--test", 20, "-o",
        "pairs.safetensors")  # fmt: skip
    done = htf("measure-locality", "pairs.safetensors", "--levels", 1)
    assert done.code == 0
    assert [len(r["features"]) for r in done.records[:-1]] == [4 * 12] * 4
    assert "of 192 features of pairs.safetensors are constant" in done.err
    pixels = np.random.default_rng(1).integers(0, 255, (20, 4, 4, 3), dtype=np.uint8)
    for n, image in enumerate(pixels):
        (tmp_path / "own" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "own" / "ab"[n % 2] / f"{n}.png")
    done = htf("measure-locality", "own", "-q")
    assert (done.code, done.err) == (0, "")
    assert [len(r["features"]) for r in done.records if r["kind"] == "entanglement"] == [4] * 4 + [1] * 16


def test_samples_are_drawn_and_estimates_say_their_error(htf, table):
    few = htf("measure-locality", table(), "--label", "class", "--samples", 20, "--seed", 1)
    other = htf("measure-locality", table(), "--label", "class", "--samples", 20, "--seed", 2)
    assert few.code == other.code == 0
    assert few.out != other.out
    estimated = htf("measure-locality", table(), "--label", "class", "--no-exact").records
    exact = htf("measure-locality", table(), "--label", "class", "--exact").records
    assert all(r["error"] == 0 for r in exact if r["kind"] == "entanglement")
    assert any(r["error"] > 0 for r in estimated if r["kind"] == "entanglement")
    for one, two in zip(exact, estimated, strict=True):
        assert one["entanglement"] == pytest.approx(two["entanglement"], abs=4 * two.get("error", 0.02) + 1e-3)


def test_what_limits_the_results_is_said(htf, table, tmp_path):
    constant = table(change=lambda rows: [rows[0], *([*row[:3], "1.5", *row[4:]] for row in rows[1:])])
    done = htf("measure-locality", constant, "--label", "class")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert done.err.startswith("Warning: 1 of 8 features of t.csv are constant")
    np.savez(tmp_path / "n.npz", x=np.random.default_rng(0).random((40, 4)), y=np.arange(40))
    done = htf("measure-locality", "n.npz#x", "--label", "y", "--levels", 1)
    assert done.err == (
        "Warning: the labels of n.npz#x are nearly all different (40 in 40 samples): is it a number to be binned?\n"
    )
    np.save(tmp_path / "wide.npy", np.random.default_rng(0).random((10, 50)))
    done = htf("measure-locality", "wide.npy")
    assert done.code == 0
    assert done.err == (
        "Warning: wide.npy has fewer samples (10) than features (50): the surrogate is at least about 0.25 by chance\n"
    )


def test_a_table_for_people(htf, table):
    done = htf("measure-locality", table(), "--label", "class", "--levels", 1, "--format", "table")
    assert "entanglement" in done.out
    assert "mean" in done.out


def test_bad_input(htf, table, tmp_path, x):
    np.savez(tmp_path / "a.npz", x=x, short=np.arange(3), nans=np.array([np.nan, *np.arange(39) % 2]))
    table("unnamed.csv", change=lambda rows: [["", *rows[0][1:]], *rows[1:]])
    np.save(tmp_path / "hole.npy", np.where(x > 0.99, np.nan, x))
    np.save(tmp_path / "five.npy", x.reshape(40, 2, 2, 2, 1))
    np.save(tmp_path / "one.npy", x[:1])
    table("one.csv", labels=("yes",))
    table("t.csv")
    table("hole.csv", change=lambda rows: [*rows[:4], ["", *rows[4][1:]], *rows[5:]])
    table("nolabel.csv", change=lambda rows: [*rows[:4], [*rows[4][:-1], ""], *rows[5:]])
    holes = int((x > 0.99).sum())
    assert holes > 0
    for args, code, message in (
        ("t.csv", 1, "t.csv: column class is not numbers (got 'yes'). Is it the label? --label. Else write it as numbers, or leave it out."),
        ("t.csv --label clas", 2, "t.csv has no such column (got clas, allowed a, b, c, d, e, f, g, h, class). Did you mean class?"),
        ("one.csv --label class", 1, "all samples of one.csv have one label (got yes). Leave --label out to measure the features alone."),
        ("hole.csv --label class", 1, "hole.csv line 5: column a has no value (got 1 missing). Fill them first: htf complete hole.csv --wide -o filled.csv"),
        ("nolabel.csv --label class", 1, "nolabel.csv line 5 has no label (got 1 rows without). Leave these rows out."),
        ("hole.npy", 1, f"hole.npy has missing values (got {holes} of 320). Fill them first: htf complete hole.npy -o filled.npy"),
        ("a.npz#x --label y", 2, "a.npz#x has no such array of labels (got y, allowed short, nans)."),
        ("a.npz#x --label short", 1, "a.npz#x: short has another length (got 3, allowed 40)."),
        ("five.npy", 1, "five.npy has another shape than features (got 40 x 2 x 2 x 2 x 1, allowed (samples, features), (samples, height, width) or (samples, channels, height, width))."),
        ("one.npy", 1, "one.npy has too few samples (got 1, allowed 2 or more)."),
        ("t.csv --label class --levels 4", 2, "no such level of 8 features (got 4, allowed 1 to 3)."),
        ("t.csv --label class --levels 0", 2, "levels: not levels (got '0', allowed e.g. 1,2,3)."),
        ("t.csv --label class --angle 0.6", 2, "angle: input should be less than or equal to 0.5 (got '0.6')."),
        ("t.csv --label class --grid 3,3", 2, "--grid does not fit the features (got 3 x 3 = 9 places, allowed height,width of 8 features)."),
        ("unnamed.csv --label class", 1, "unnamed.csv: a column has no name, and may number the rows instead of being a feature (got column 1). Name it, or leave it out (to_csv(index=False))."),
        ("a.npz#x --label nans", 1, "a.npz#x: nans has missing labels (got 1 of 40). Leave these samples out."),
        ("nothing.csv", 1, "nothing.csv does not exist."),
    ):  # fmt: skip
        done = htf("measure-locality", *args.split())
        assert (done.code, done.error) == (code, message)
        assert done.out == ""


def test_pictures(htf, table, x, tmp_path):
    np.save(tmp_path / "g.npy", np.random.default_rng(0).random((40, 4, 4)))
    lines = htf("measure-locality", table(), "--label", "class").out
    (tmp_path / "e.jsonl").write_text(lines + htf("measure-locality", "g.npy").out)
    figure = plot_entanglement([load_records("e.jsonl")])
    assert isinstance(figure, Figure)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [
        "entanglement", "surrogate: mean |correlation|", "entanglement of each block, finest level", "g.npy: level 2"
    ]  # fmt: skip
    records = load_records("e.jsonl").records
    curve = figure.axes[0].lines[0]
    means = [np.mean([r["entanglement"] for r in records if r["data"] == "t.csv" and r["level"] == n]) for n in (1, 2)]
    assert list(curve.get_ydata()) == pytest.approx(means)
    drawn = figure.axes[3].images[0].get_array()
    assert drawn[1, 2] == next(r["entanglement"] for r in records if r["position"] == [1, 2])
    done = htf("plot", "e.jsonl", "-o", "e.png")
    assert (done.code, done.err) == (0, "wrote e.png\n")
