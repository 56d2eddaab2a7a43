"""The plans of the published experiments."""

from __future__ import annotations

import pytest

from htfcli.commands.reproduce import EXPERIMENTS
from htfcli.errors import ConfigError
from htfcli.experiments.paper import published as paper
from htfcli.experiments.paper import reproduction
from htfcli.experiments.sweeps.plan import planned_runs


def test_plans_are_the_published_ones():
    runs = {name: planned_runs(paper.published_plan(name, "full")) for name in paper.NAMES}
    counts = {name: len(of) for name, of in runs.items()}
    assert counts.pop("phase-transition") in (
        360,
        390,
    )  # 18 targets by two methods, and three by tensorly, at 10 ratios
    assert counts == {
        "dynamics": 30, "matricizations": 10, "is-same-class": 75, "pathfinder": 60, "baselines": 200, "theorem": 150,
        "initialization": 180,
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
        assert (run.target.width, run.target.observed, run.target.norm) == (5, "2048", 64)
        assert (run.settings.optimizer, run.settings.lr, run.settings.until_loss) == ("group-rmsprop", 1e-2, 5e-5)
    for run in (*runs["is-same-class"], *runs["pathfinder"]):
        s = run.settings
        assert (s.model, s.optimizer, s.lr, s.momentum, s.batch_size, s.epochs, s.patience) == (
            "resnet18", "sgd", 0.01, 0.9, 64, 150, 20,
        )  # fmt: skip
    assert tuple(paper.NAMES) == EXPERIMENTS == tuple(reproduction._PRESENTATIONS)


def test_the_small_plans():
    runs = {name: len(planned_runs(paper.published_plan(name, "mini"))) for name in paper.NAMES}
    assert runs == {
        "dynamics": 30, "matricizations": 10, "is-same-class": 128, "pathfinder": 8, "baselines": 128,
        "phase-transition": 112, "theorem": 45, "initialization": 60,
    }  # fmt: skip


def test_an_unknown_name():
    with pytest.raises(ConfigError, match=r"^unknown experiment \(got dynamic, .*Did you mean dynamics\?$"):
        paper.published_plan("dynamic", "mini")


def test_published_accuracies_are_of_settings_that_are_run():
    for name, curves in paper.PUBLISHED_ACCURACY.items():
        settings = [run.settings for run in planned_runs(paper.published_plan(name, "full"))]
        places = {s.path_length if name == "pathfinder" else s.distance for s in settings}
        assert all(values.keys() == places for values in curves.values())
        coefficients = {f"coefficient {s.reg_coeff:g}" for s in settings if s.reg != "none"}
        assert curves.keys() == {"no regularizer", *coefficients}
