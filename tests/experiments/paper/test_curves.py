"""Curves that leave zero, one seed and over seeds, from records that are written here."""

from __future__ import annotations

import json

import pytest

from htfcli.config.tensors import TargetConfig
from htfcli.engine.observations.synthetic import make_observations
from htfcli.engine.ranks.hierarchical_rank import spectra_at
from htfcli.experiments.paper.curves import (
    DYNAMICS,
    MATRICIZATIONS,
    compare_dynamics,
    compare_matricizations,
    draw_dynamics,
    draw_matricizations,
    fits_of,
    rises,
)
from htfcli.files.own.artefacts import save_observations

APART, TOGETHER = [[0, 5, 9], [0, 0, 4], [0, 0, 0.01]], [[0, 5, 9], [0, 3, 4], [0, 0, 0.01]]
NAME = "number {} leaves zero at iteration, median (quartiles)"
TARGETS = {
    model: TargetConfig(target=model, dims=dims, width=2, observed="8")
    for model, dims in {"htf": [2] * 4, "matrix": [3, 3], "cp": [3] * 3}.items()
}


def fit_row(folder, model, places, seed=0, rank=1.25):
    """The row of a fit whose records have these values at its nodes at iterations 0, 10 and 20."""
    name = f"{model}-{seed}"
    (folder / "runs" / name).mkdir(parents=True)
    with open(folder / "runs" / name / "records.jsonl", "w") as file:
        for number, iteration in enumerate((0, 10, 20)):
            found = [
                {"node": node, "modes": [int(m) for m in node.strip("{}").split(",")], "effective_rank": rank + place,
                 "component_norms": [c[number] for c in curves], "singular_values": [c[number] for c in curves]}
                for place, (node, curves) in enumerate(places.items())
            ]  # fmt: skip
            record = {"kind": "iteration", "iteration": iteration, "nodes": found[:-1], "matricizations": found[-1:]}
            file.write(json.dumps(record) + "\n")
    data = folder / f"{model}.safetensors"
    if not data.exists():
        save_observations(str(data), make_observations(TARGETS[model]), {})
    return {
        "kind": "run",
        "run": name,
        "status": "finished",
        "settings": {"model": model, "seed": seed},
        "generate": {"width": 2},
        "data": str(data),
    }


@pytest.fixture
def rows(tmp_path):
    nodes = {"{0,1}": APART, "{0,1,2,3}": TOGETHER, "{0,2}": APART}
    return [
        fit_row(tmp_path, "htf", nodes),
        fit_row(tmp_path, "htf", {**nodes, "{0,1,2,3}": APART}, seed=1, rank=1.75),
        fit_row(tmp_path, "matrix", {"{0}": APART, "{1}": APART}),
        fit_row(tmp_path, "cp", {"{0,1,2}": APART, "{0}": APART}),
        {"kind": "run", "run": "lost", "status": "failed", "settings": {"model": "cp"}},
    ]


@pytest.mark.parametrize(
    ("values", "times"),
    [
        ([[0, 5, 9], [0, 0.2, 4], [0, 0, 0.01], [None, None, None]], [10, 10]),
        ([[0, 0, 4], [0, 0.01, 9]], [20, 20]),
        ([[0, 0, 9], [0, 1, 4]], [10, 20]),
    ],
)
def test_rises(tmp_path, values, times):
    row = fit_row(tmp_path, "htf", {"{0,1,2,3}": values, "{0,2}": APART})
    (fit,) = fits_of([row], tmp_path, "htf")
    assert rises(DYNAMICS[2], fit.run) == times


def test_dynamics_of_one_seed(rows, tmp_path):
    """The first seed's numbers, beside the published ones; a single seed has no quartiles."""
    found = {(c.case, c.quantity): (c.published, c.ours, c.seeds) for c in compare_dynamics(rows, tmp_path)}
    title = "hierarchical tensor factorization"
    assert found[title, "values that leave zero"] == ("about 5", "2", 1)
    assert found[title, "one after another"] == ("yes", "some together", 1)
    assert found[title, "they leave zero at iterations"] == ("the first near 10,000", "10; 10", 1)
    assert found["tensor factorization", "they leave zero at iterations"] == ("", "10; 20", 1)
    assert sum(case == "tensor factorization" for case, _ in found) == 4


def test_dynamics_over_seeds(rows, tmp_path):
    """By hand: the second value leaves zero at 10 and at 20; quartiles of two numbers are a quarter of the way in."""
    title = "hierarchical tensor factorization"
    found = {c.quantity: (c.ours, c.seeds) for c in compare_dynamics(rows, tmp_path) if c.case == title}
    assert found["values that leave zero, median (quartiles)"] == ("2 (2 to 2)", 2)
    assert found[NAME.format(1)] == ("10 (10 to 10)", 2)
    assert found[NAME.format(2)] == ("15 (12.5 to 17.5)", 2)
    assert found["seeds in which they leave one after another"] == ("1 of 2", 2)
    assert found["seeds with no more values than the target's rank"] == ("2 of 2", 2)
    assert found["seeds with both, as published"] == ("1 of 2", 2)
    rank = "effective rank at {1, 2}, mean ± standard error"
    assert found[rank] == ("1.50 ± 0.25", 2)
    (spectrum,) = spectra_at(make_observations(TARGETS["htf"]).target, [(0, 1)])
    assert found[f"{rank}, of the target"] == (f"{spectrum.effective_rank:.2f} ± 0.00", 2)


def test_more_values_than_the_target_has(tmp_path):
    nodes = {"{0,1,2,3}": [[0, 5, 9], [0, 0, 4], [0, 1, 4]], "{0,1}": APART, "{0,2}": APART}
    rows = [fit_row(tmp_path, m, nodes if m == "htf" else {"{0,1,2}": APART, "{0}": APART}, k)
            for m in TARGETS for k in (0, 1)]  # fmt: skip
    found = {c.quantity: c.ours for c in compare_dynamics(rows, tmp_path) if c.case == DYNAMICS[2].title}
    assert found["seeds with no more values than the target's rank"] == "0 of 2"
    assert found[NAME.format(3)] == "20 (20 to 20)"


def test_matricizations(rows, tmp_path):
    found = [(c.case, c.published, c.ours, c.seeds) for c in compare_matricizations(rows, tmp_path)]
    assert found[2:4] == [
        ("local components at {1, 2, 3, 4}", "about 5", "2", 1),
        ("local components at {1, 2, 3, 4}", "", "2 (2 to 2)", 2),
    ]
    assert found[-1] == ("both", "", "2 of 2", 2)  # 1.25 and 1.75 in the tree, 3.25 and 3.75 outside
    assert (MATRICIZATIONS[3].title, "", "3.50 ± 0.25", 2) in found


def test_figures(rows, tmp_path):
    """The first seed above, as many curves as recorded; all seeds below, one dot per seed and value."""
    figure = draw_dynamics(rows, tmp_path)
    above, below = figure.axes[0::2], figure.axes[1::2]
    assert [axes.get_title() for axes in above] == [f"{panel.title}\nseed 0" for panel in DYNAMICS]
    assert [line.get_ydata()[-1] for line in above[1].lines] == [9, 4, 0.01]
    dots = [line for line in below[2].lines if line.get_marker() == "o"]
    assert [sorted(line.get_xdata()) for line in dots] == [[10, 10], [10, 20]]
    figure = draw_matricizations(rows, tmp_path)
    assert len(figure.axes) == 2 * len(MATRICIZATIONS)
    ends = figure.axes[1].containers[0].lines[0].get_ydata()
    assert list(ends) == pytest.approx([1, 4 / 9, 0.01 / 9])
