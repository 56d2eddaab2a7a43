"""Figures of completions, and that records are drawn by their kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from htfcli.commands.plot import COMPLETION_NAMES
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.experiments.figures.completions import PANELS, plot_completions
from htfcli.experiments.figures.registry import FIGURES
from htfcli.experiments.figures.tree_layout import node_places
from htfcli.files.own.records import KINDS, load_records
from tests.numbering import FIBRE, REPORT, complete, number, stand_in

TITLES = {
    "members": "members and their weights",
    "errors": "held-out error by kind of holes",
    "calibration": "calibration of intervals",
    "held-out": "held-out entries, $R^2$ = 0.9",
    "tree": "strongest factorization: rank of every node",
    "ridge": "error along the ridge (solid: held out)",
}


@pytest.fixture
def runs(htf, tmp_path, monkeypatch):
    stand_in(monkeypatch)
    (tmp_path / "a.csv").write_text("ligand,dose,v\nIL2,1,5\nIL15,2,6\n")
    cube = np.arange(60.0).reshape(5, 3, 4)
    cube[2, 1, 1] = cube[4, 0, 3] = np.nan
    np.save(tmp_path / "cube.npy", cube)
    for data, out in (("a.csv", "table"), ("cube.npy", "cube")):
        assert htf("complete", data, "-o", f"{out}.full{Path(data).suffix}", "--run", f"{out}.run", "-q").code == 0
    return cube


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_panels(htf, runs):
    assert titles(plot_completions([load_records("table.run")], list(PANELS))) == list(TITLES.values())
    cube = titles(plot_completions([load_records("cube.run")], list(PANELS)))
    slices = [t for at in (0, 1, 2) for t in (f"observed (mode 1, index {at})", "completed", "model - observed")]
    assert cube == [*TITLES.values(), *slices]


def test_bars_are_the_weights_of_members(htf, runs):
    (axes,) = plot_completions([load_records("table.run")], ["members"]).axes
    random, fibre = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert random == [1.0, 0.0]  # the heaviest member first
    assert fibre == [0.7, 0.3]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0].replace("\n", " ") == "(ligand, dose), width 2, ridge 0.1 + interpolation" and names[1] == "mean"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["random", "fibre of dose"]


def test_errors_stand_beside_their_baselines(htf, runs):
    (axes,) = plot_completions([load_records("table.run")], ["errors"]).axes
    completion, baseline = ([bar.get_height() for bar in bars] for bars in axes.containers)
    assert (completion, baseline) == ([0.2, 0.4], [0.9, 1.0])
    assert "25 % of the holes" in axes.get_xticklabels()[1].get_text()


def test_calibration_is_stated_against_observed(htf, runs):
    (axes,) = plot_completions([load_records("table.run")], ["calibration"]).axes
    curves = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    stated = REPORT["calibration"]
    assert curves["as stated"] == ([0, 1], [0, 1])
    assert curves["random"] == (stated["random"]["stated"], stated["random"]["observed"])
    assert curves["fibre of dose"] == (stated[FIBRE]["stated"], stated[FIBRE]["observed"])


def test_curves_are_the_steps(htf, runs):
    (axes,) = plot_completions([load_records("table.run")], ["ridge"]).axes
    curves = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines if len(line.get_xdata())]
    assert curves == [([0.1, 0.5], [0.2, 0.6]), ([0.1, 0.5], [0.1, 0.5]), ([0.5], [0.7]), ([0.5], [0.4])]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["[ligand, dose], width 2", "[dose, ligand], width 2", "train"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_slices_are_what_was_observed_and_what_is_predicted(htf, runs):
    figure = plot_completions([load_records("cube.run")], ["slices"])
    images = [np.ma.filled(axes.images[0].get_array(), np.nan) for axes in figure.axes if axes.images]
    observed, completed, difference = images[:3]
    at = int(titles(figure)[0].rpartition(" ")[2].rstrip(")"))
    assert np.array_equal(observed, runs[:, at, :], equal_nan=True)
    predicted = np.array([[number(i, at, k) for k in range(4)] for i in range(5)])
    holes = np.isnan(observed)
    assert np.allclose(completed, np.where(holes, predicted, observed))
    assert np.allclose(difference[~holes], (predicted - observed)[~holes])
    assert np.isnan(difference[holes]).all()


def test_the_tree_is_drawn_over_its_leaves():
    x, y = node_places(ModeTree.from_nested([[0, 2], [3, 1]]))
    assert x == [0, 3, 1, 2, 0.5, 2.5, 1.5]
    assert y == [0, 0, 0, 0, 1, 1, 2]


def test_pictures(htf, runs, tmp_path):
    done = htf("plot", "cube.run", "table.run", "-o", "why.png")
    assert (done.code, done.err) == (0, "wrote why.png\n")
    image = Image.open(tmp_path / "why.png").convert("L")
    assert image.size[0] > 1500
    assert image.getextrema() == (0, 255)
    for name in ("x.svg", "y.svg"):
        assert htf("plot", "cube.run", "--what", "tree", "--what", "slices", "-o", name).code == 0
    assert (tmp_path / "x.svg").read_bytes() == (tmp_path / "y.svg").read_bytes()


def test_records_alone_have_the_curve(htf, runs, tmp_path):
    assert titles(plot_completions([load_records("table.run/records.jsonl")], list(PANELS))) == [TITLES["ridge"]]
    (tmp_path / "table.run/summary.json").unlink()  # as after an interruption
    assert titles(plot_completions([load_records("table.run")], list(PANELS))) == [TITLES["ridge"]]


def test_a_report_that_says_little(htf, runs, tmp_path):
    path = tmp_path / "table.run/summary.json"
    summary = json.loads(path.read_text())
    for key in ("members", "scatter", "r2", "effective_rank", "calibration"):
        del summary[key]
    path.write_text(json.dumps(summary))
    found = titles(plot_completions([load_records("table.run")], list(PANELS)))
    assert found == [TITLES[name] for name in ("errors", "tree", "ridge")]


def test_a_tree_with_many_modes(htf, tmp_path, monkeypatch):
    stand_in(monkeypatch)

    def many(*args, **kwargs):
        found = complete(*args, **kwargs)
        labels = found.model.tree.labels[: found.model.tree.root]
        found.report |= {"hierarchical_rank": dict.fromkeys(labels, 2)}
        return found

    monkeypatch.setattr("htfcli.experiments.runs.complete.complete", many)
    rows = np.random.default_rng(0).integers(0, 2, (30, 14))
    (tmp_path / "a.csv").write_text(
        "".join(",".join(map(str, row)) + ",1\n" for row in np.unique(rows, axis=0)) + ",".join("01" * 7) + ",\n"
    )
    monkeypatch.setenv("COLUMNS", "200")
    done = htf("complete", "a.csv", "-o", "b.csv", "-q", "--format", "table")
    assert "at 26 nodes (htf measure-rank lists them)" in done.out
    assert htf("plot", "b.csv.run", "-o", "b.png").code == 0


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("table.run --what trees", 2, "unknown quantity to plot (got trees, allowed members, errors, calibration, held-out, tree, ridge, slices). Did you mean tree?"),
        ("table.run --node 0,1", 2, "--node, --top, --log-x and --log-y are for records of fits (allowed --what)."),
        ("table.run --what slices", 1, "table.run has nothing to draw of this (got slices, allowed a finished run)."),
        ("odd.jsonl", 1, "odd.jsonl has no records of a run (got iteration, allowed iteration, complete, epoch, locality, entanglement)."),
        ("broken", 1, "broken/summary.json is damaged: it is not JSON."),
        ("table.run fit", 2, "runs of different kinds cannot share a figure (got complete and iteration)."),
    ],
)  # fmt: skip
def test_bad_usage(htf, runs, tmp_path, args, code, message):
    (tmp_path / "odd.jsonl").write_text('{"kind": "iteration"}\n')
    shutil.copytree(tmp_path / "table.run", tmp_path / "broken")
    (tmp_path / "broken/summary.json").write_text("{")
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit/records.jsonl").write_text('{"kind": "iteration", "iteration": 0}\n')
    done = htf("plot", *args.split(), "-o", "x.png")
    assert (done.code, done.error) == (code, message)
    assert not (tmp_path / "x.png").exists()


def test_every_kind_has_a_figure():
    assert set(FIGURES) == set(KINDS)


def test_help_names_the_panels():
    assert tuple(PANELS) == COMPLETION_NAMES
