"""Figures of sweeps: means over seeds, labels, and what is refused."""

from __future__ import annotations

import json

import pytest

from htfcli.experiments.figures.sweeps import default_axes, labels, plot_sweep, points
from htfcli.experiments.sweeps.summary import column


def rows(**settings):
    """Rows of four seeds for each combination of settings; test_error is lr + seed."""
    values = [{}]
    for key, options in settings.items():
        values = [{**v, key: o} for v in values for o in options]
    return [
        {"kind": "run", "run": f"{v}{seed}", "status": "finished", "command": "fit", "varied": {**v, "seed": seed},
         "settings": {**v, "seed": seed}, "generate": None, "final": {"test_error": v["lr"] + seed, "rank": {"{0}": 1.0, "{0,1}": seed}}}
        for v in values for seed in range(4)
    ]  # fmt: skip


def test_points_are_means_and_standard_errors():
    (curve,) = points(rows(lr=[3, 1]), "lr", "test_error", lambda row: "").values()
    assert [(p.x, p.mean, p.count) for p in curve] == [(1, 2.5, 4), (3, 4.5, 4)]
    assert curve[0].error == pytest.approx((5 / 3) ** 0.5 / 2)  # deviation of 0, 1, 2, 3 over the root of 4
    both = rows(lr=[3, 1], width=[2, 4])
    curves = points(both, "lr", "test_error", labels(both, ["width"]))
    assert list(curves) == ["width 2", "width 4"]
    assert column(rows(lr=[3]), "rank") == column(rows(lr=[3]), "rank.{0,1}") == [0, 1, 2, 3]


def test_categories_and_single_runs():
    some = [{**row, "settings": {**row["settings"], "tree": tree}} for row in rows(lr=[3])[:1] for tree in ("b", "a")]
    (curve,) = points(some, "tree", "test_error", lambda row: "").values()
    assert [p.x for p in curve] == ["b", "a"]
    assert curve[0].error != curve[0].error
    figure = plot_sweep(some, "tree", "test_error")
    assert figure.axes[0].get_xlabel() == "tree"
    assert figure.axes[0].get_title() == ""


def test_figures_of_runs_of_which_some_failed(htf, tmp_path):
    some = rows(lr=[1, 2], width=[2, 4])
    for row in some:
        row["final"] |= {"train_loss": 0.1}
    some[0] |= {"status": "failed", "final": None, "error": "training diverged"}
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/summary.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    assert default_axes(some) == ("lr", "train_loss", ["width"])
    figure = plot_sweep(some, *default_axes(some))
    assert figure.axes[0].get_title().splitlines() == [
        "mean and standard error, 3 to 4 seeds", "not shown: 1 of 16 runs, failed or not finished",
    ]  # fmt: skip
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["1", "2"]
    assert htf("plot", "sweep", "-o", "x.png").code == 0
    (tmp_path / "sweep/summary.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(lr=[1])))
    error = "the runs of this sweep differ only in their seed. Name --x and --y."
    assert htf("plot", "sweep", "-o", "y.png").error == error


def test_figures_that_make_no_sense(htf, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/summary.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows(lr=[1], width=[2, 4])))
    for args, message in (
        ("--x lr --y test_error", "runs at the same point of the figure differ in more than their seed (got width). Draw a curve for each with --group width."),
        ("--x lt --y test_error", "no run has this setting or final number (got lt)."),
        ("--x lr --y run", "no run has a number run. Have they finished? See summary.csv."),
        ("--x lr", "a sweep needs --x and --y (allowed with them --group, --log-x, --log-y)."),
        ("--x lr --y test_error --top 3", "a sweep needs --x and --y"),
    ):  # fmt: skip
        assert htf("plot", "sweep", *args.split(), "-o", "x.png").error.startswith(message)
    assert htf("plot", "no", *["--x", "lr", "--y", "test_error", "-o", "x.png"]).error.startswith("no is not a sweep.")
    done = htf(
        "plot", "sweep", *["--x", "lr", "--y", "test_error", "--group", "width", "--log-x", "--log-y", "-o", "x.png"]
    )
    assert done.code == 0
