"""Interactive figures, from records that are written here."""

from __future__ import annotations

import pytest

from htfcli.experiments.report.interactive import (
    fit_figures,
    sweep_figures,
    thinned,
    training_figures,
    tree_figure,
    tree_of_records,
)
from htfcli.files.own.records import Records


def place(*modes, rank=1.0):
    label = "{" + ",".join(map(str, modes)) + "}"
    return {
        "node": label,
        "modes": list(modes),
        "effective_rank": rank,
        "singular_values": [2.0, 1.0],
        "component_norms": [3.0],
    }


def fit(count=3):
    nodes = [place(0), place(1), place(2), place(0, 1)]
    return Records("a", [
        {"kind": "iteration", "iteration": 10 * k, "train_loss": 1.0 / (k + 1), "nodes": [{**n, "effective_rank": 1.0 + k} for n in nodes]}
        for k in range(count)
    ])  # fmt: skip


def row(lr, seed, final):
    return {"kind": "run", "run": f"{lr}-{seed}", "status": "finished", "command": "fit", "varied": {"lr": lr, "seed": seed},
            "settings": {"lr": lr, "seed": seed}, "generate": None, "final": final}  # fmt: skip


@pytest.mark.parametrize("nested", [[[0, 1], 2], [[[0, 1], 4], [2, 3]], [0, 1, 2]])
def test_the_tree_of_records(nested):
    def nodes(tree):
        if isinstance(tree, int):
            return [place(tree)]
        below = [n for child in tree for n in nodes(child)]
        return [*below, place(*sorted({m for n in below for m in n["modes"]}))]

    record = {"nodes": nodes(nested)[:-1]}  # the root's matricization is a single row
    assert tree_of_records(record).to_nested() == nested


def test_records_without_a_tree():
    assert tree_of_records({"nodes": [place(0), place(2)]}) is None
    assert tree_figure(Records("a", [{"iteration": 0, "nodes": [place(1)]}])) is None


def test_the_slider_moves_the_ranks():
    figure = tree_figure(fit())
    assert list(figure.data[2].marker.color) == [3.0, 3.0, 3.0, 3.0]
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == ["0", "10", "20"]
    assert slider.steps[0].args[0]["marker.color"] == [[1.0, 1.0, 1.0, 1.0]]
    assert figure.data[2].text[0] == "{1}: 3.0"


def test_curves_of_a_fit():
    titles = {figure.layout.title.text: figure for figure in fit_figures(fit())}
    assert list(titles["loss"].data[0].y) == [1.0, 0.5, 1 / 3]
    assert titles["loss"].layout.yaxis.type == "log"
    assert len(fit_figures(fit(1000))[0].data[0].x) == 400


def test_curves_of_a_training():
    records = [
        {"kind": "epoch", "epoch": k, "train_accuracy": 0.5, "test_loss": 1.0, "regularizer": None} for k in (1, 2)
    ]
    figures = training_figures(Records("a", records))
    assert [figure.layout.title.text for figure in figures] == ["accuracy", "loss"]  # no regularizer was recorded
    assert list(figures[0].data[0].x) == [1, 2]


def test_figures_of_a_sweep():
    rows = [
        row(lr, seed, {"train_loss": lr + seed, "effective_rank": {"{0,1}": 2.0}}) for lr in (1, 100) for seed in (0, 2)
    ]
    loss, rank = sweep_figures(rows)
    assert loss.layout.title.text == "train loss, mean and standard error"
    assert (list(loss.data[0].x), list(loss.data[0].y)) == ([1, 100], [2.0, 101.0])
    assert list(loss.data[0].error_y.array) == pytest.approx([1.0, 1.0])
    assert (loss.layout.xaxis.type, loss.layout.yaxis.type) == ("log", "log")
    assert list(rank.data[0].y) == [2.0, 2.0]
    assert sweep_figures(rows[:1]) == []


def test_thinning_keeps_the_ends():
    records = [{"iteration": k} for k in range(1000)]
    fewer = thinned(records, 10)
    assert (len(fewer), fewer[0], fewer[-1]) == (10, records[0], records[-1])
    assert thinned(records[:4], 10) == records[:4]
