from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from htfcli.commands.reproduce import EXPERIMENTS
from htfcli.config.plan import PlanConfig
from htfcli.engine.ranks.hierarchical_rank import spectra_of
from htfcli.experiments.paper import published as paper
from htfcli.experiments.paper import reproduction as reproduce
from htfcli.experiments.paper.comparison import (
    DYNAMICS,
    MATRICIZATIONS,
    compare_accuracies,
    draw_accuracies,
    rises,
    runs_of,
)
from htfcli.experiments.sweeps.plan import planned_runs
from htfcli.experiments.sweeps.summary import load_summary
from htfcli.files.own.artefacts import to_observations
from htfcli.files.own.container import read


@pytest.fixture
def smaller(monkeypatch):
    """The published dynamics with smaller tensors, of which every entry is observed, and narrower models."""

    def plan(name, scale):
        values = copy.deepcopy(paper.published_plan(name, scale).model_dump(exclude_unset=True))
        values["generate"] |= {"rank": 3, "norm": 16, "observed": "1.0"}
        values["base"] |= {"until_loss": 1e-4, "patience": 5, "iterations": 8000}
        if name == "dynamics":
            values["zip"] |= {"width": [16, None, 16], "generate.dims": [[4, 4, 4, 4], [10, 10], [6, 6, 6]]}
            values["zip"]["init_std"] = [0.06, 1e-3, 1e-2]
        return PlanConfig.checked({**values, "seeds": [19]})

    monkeypatch.setattr(reproduce, "published_plan", plan)


@pytest.mark.slow
def test_dynamics_show_what_the_paper_claims(htf, smaller, tmp_path):
    """As many values leave zero as the target has, one after another, and end where the target's are."""
    done = htf("reproduce", "dynamics", "-o", "out")
    assert done.code == 0, done.err
    assert {r["kind"] for r in done.records} == {"comparison"}
    found = {(r["case"], r["quantity"]): r["ours"] for r in done.records}
    for panel in DYNAMICS[:2]:
        assert found[panel.title, "values that leave zero"] == "3"
        assert found[panel.title, "one after another"] == "yes"
    rows = load_summary("out/dynamics")
    for panel, node in ((DYNAMICS[0], "{0}"), (DYNAMICS[1], "{0}"), (MATRICIZATIONS[2], "{0,1}")):
        (row,) = [row for row in rows if row["settings"]["model"] == panel.model]
        (run,) = runs_of(rows, tmp_path / "out/dynamics", panel.model)
        target = to_observations(read(tmp_path / row["data"])).target
        (spectrum,) = [s for s in spectra_of(target) if s.label == node]
        place = next(p for p in run.records[-1]["nodes"] if p["node"] == node)
        values = np.array(spectrum.scaled(3))
        times = rises([c for _, c in panel.of(run)], [r["iteration"] for r in run.records])
        assert len(set(times)) == len(times) == 3
        assert place["singular_values"][:3] == pytest.approx(values, abs=0.02 * values[0])
        assert max(place["singular_values"][3:], default=0.0) < 0.02 * values[0]
    table = (tmp_path / "out/dynamics.md").read_text()
    assert "| matrix factorization | values that leave zero | about 5 | 3 | 1 |" in table
    for kind in ("png", "pdf"):
        assert (tmp_path / f"out/dynamics.{kind}").stat().st_size > 5000
    with Image.open(tmp_path / "out/dynamics.png") as image:
        assert image.size[0] > 1500

    before = (tmp_path / "out/dynamics.png").read_bytes()
    again = htf("reproduce", "dynamics", "-o", "out")
    assert "3 runs of htf fit, 3 of them finished before" in again.err
    assert again.records == done.records
    assert (tmp_path / "out/dynamics.png").read_bytes() == before
    same = htf("sweep", "out/dynamics.yaml", "-o", "out/dynamics")  # the plan that was written is the one that was run
    assert "3 runs of htf fit, 3 of them finished before" in same.err


def test_rises():
    curves = [[0, 5, 9], [0, 0.2, 4], [0, 0, 0.01], [None, None, None]]
    assert rises(curves, [0, 10, 20]) == [10, 10]
    assert rises([[0, 0.01, 9], [0, 0, 4]], [0, 10, 20]) == [20, 20]


def test_plans_are_the_published_ones():
    runs = {name: planned_runs(paper.published_plan(name, "paper")) for name in paper.NAMES}
    assert {name: len(of) for name, of in runs.items()} == {
        "dynamics": 9, "matricizations": 3, "is-same-class": 75, "pathfinder": 60, "baselines": 200,
    }  # fmt: skip
    hierarchical, matrix, cp = (
        next(r for r in runs["dynamics"] if r.settings.model == m) for m in ("htf", "matrix", "cp")
    )
    assert (hierarchical.target.dims, hierarchical.settings.width, hierarchical.settings.init_std) == (
        [8] * 4,
        512,
        1e-2,
    )
    assert (matrix.target.dims, matrix.settings.depth, matrix.settings.init_std) == ([64, 64], 3, 1e-3)
    assert (cp.target.dims, cp.settings.width, cp.settings.init_std) == ([16] * 3, 256, 1e-3)
    for run in (hierarchical, matrix, cp):
        assert (run.target.rank, run.target.observed, run.target.norm) == (5, "2048", 64)
        assert (run.settings.optimizer, run.settings.lr, run.settings.until_loss) == ("group-rmsprop", 1e-2, 5e-5)
    for run in (*runs["is-same-class"], *runs["pathfinder"]):
        s = run.settings
        assert (s.model, s.optimizer, s.lr, s.momentum, s.batch_size, s.epochs, s.patience) == (
            "resnet18", "sgd", 0.01, 0.9, 64, 150, 20,
        )  # fmt: skip
    assert tuple(paper.NAMES) == EXPERIMENTS == tuple(reproduce._PRESENTATIONS)


def test_unknown_names(htf):
    done = htf("reproduce", "dynamic")
    assert (
        done.error
        == f"no such published experiment (got dynamic, allowed {', '.join(EXPERIMENTS)}). Did you mean dynamics?"
    )
    assert htf("reproduce", "dynamics", "--set", "model=cp").error == "set twice: model."


def training_rows(distances=(0, 24), coefficients=(None, 0.3), seeds=3):
    return [
        {"kind": "run", "run": f"{d}-{c}-{seed}", "status": "finished", "command": "train-cnn", "data": None, "error": None,
         "varied": {"distance": d, "reg_coeff": c, "seed": seed}, "generate": None,
         "settings": {"reg": "none" if c is None else "non-local", "reg_coeff": c or 1.0, "weight_decay": 0.0, "dropout": 0.0, "distance": d},
         "final": {"test_accuracy": 0.9 - d / 100 + (c or 0) / 10 + seed / 100}}
        for d in distances for c in coefficients for seed in range(seeds)
    ]  # fmt: skip


def test_accuracies_beside_the_published_ones():
    rows = compare_accuracies(training_rows((0, 40), (None, 0.1)), "is-same-class", "paper", "distance")
    assert [(r.case, r.quantity, r.published, r.ours, r.seeds) for r in rows] == [
        ("distance 0", "test accuracy (%), no regularizer", "61.2", "91.0 ± 0.6", 3),
        ("distance 40", "test accuracy (%), no regularizer", "59.9", "51.0 ± 0.6", 3),
        ("distance 0", "test accuracy (%), coefficient 0.1", "61.2", "92.0 ± 0.6", 3),
        ("distance 40", "test accuracy (%), coefficient 0.1", "60.4", "52.0 ± 0.6", 3),
    ]


def test_published_numbers_of_another_setting_stand_apart():
    rows = compare_accuracies(training_rows((0, 24)), "is-same-class", "mini", "distance")
    assert [(r.published, r.ours) for r in rows if r.case == "distance 0"] == [("", "91.0 ± 0.6"), ("", "94.0 ± 0.6")]
    assert [r.case for r in rows if r.published == "58.8"] == ["published setting, distance 120"]


def test_figures_of_accuracies():
    axes = draw_accuracies(training_rows(), "is-same-class", "mini", "distance").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["no regularizer", "coefficient 0.3"]
    axes = draw_accuracies(training_rows(), "is-same-class", "paper", "distance").axes[0]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in dashed] == [[0, 40, 80, 120, 160]] * 3
    (axes,) = draw_accuracies(training_rows((24,)), "baselines", "mini", "distance").axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([67, 70])


@pytest.mark.slow
def test_is_same_class_end_to_end(htf, monkeypatch, tmp_path):
    """A few pairs and epochs: that everything is done, not how well."""
    plan = paper.published_plan("is-same-class", "mini").model_dump(exclude_unset=True)
    plan["base"] |= {"train": 64, "test": 32, "epochs": 1, "widths": [4, 4, 8]}
    monkeypatch.setattr(reproduce, "published_plan", lambda name, scale: PlanConfig.checked({**plan, "seeds": 1}))
    done = htf("reproduce", "is-same-class", "-o", "out")
    assert done.code == 0, done.err
    assert len(done.records) == 4 + 15  # ours, published
    assert yaml.safe_load((tmp_path / "out/is-same-class.yaml").read_text())["base"]["train"] == 64
    assert "compare the pattern" in (tmp_path / "out/is-same-class.md").read_text()
    rows = load_summary("out/is-same-class")
    assert [r["settings"]["distance"] for r in rows] == [0, 0, 24, 24]
    assert (
        json.loads((tmp_path / "out/is-same-class/runs" / rows[0]["run"] / "summary.json").read_text())["kind"] == "cnn"
    )
