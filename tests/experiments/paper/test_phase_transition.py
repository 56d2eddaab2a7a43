"""Rates of recovery as heat map, table and notes, from rows that are written here; and one tiny experiment."""

from __future__ import annotations

import pytest

from htfcli.config.plan import PlanConfig
from htfcli.experiments.paper import reproduction
from htfcli.experiments.paper.phase_transition import compare_recovery, draw_recovery, plan, recovery_notes
from htfcli.experiments.sweeps.plan import planned_runs


def row(target, ratio, rate, method="second-order", tree="balanced", width=2):
    settings = {"target": target, "order": 3, "dim": 5, "width": width, "tree": tree, "method": method, "ratio": ratio}
    final = {"rate": rate, "problems": 20, "degrees_of_freedom": 26, "determined": 1.0}
    return {"status": "finished", "settings": settings, "final": final}


@pytest.fixture
def rows():
    return [
        row("htf", 1.5, 0.25), row("htf", 0.9, 0.0), row("htf", 3.0, 1.0),
        row("cp", 1.5, 0.5), row("htf", 1.5, 0.0, tree=[[0], [1], [2]], width=[2, 3]),
        row("cp", 1.5, 0.1, method="gradient"), {**row("cp", 3.0, 1.0), "status": "failed"},
    ]  # fmt: skip


def test_table(rows):
    """By hand: a rate of a quarter of 20 has the standard error root(0.25 * 0.75 / 20) = 0.097."""
    first, *_, last = compare_recovery(rows)
    assert (first.target, first.order, first.width, first.observations_over_df, first.rate, first.seeds) == (
        "htf", 3, "2", 1.5, "0.25 ± 0.10", 20,
    )  # fmt: skip
    assert last.method == "gradient descent from near zero"
    assert len(compare_recovery(rows)) == 6


def test_notes(rows):
    first, second = recovery_notes(rows)
    name = "order 3, dim 5, width 2"
    assert first == (
        f"Levenberg-Marquardt, random starts, half of the problems recovered at 1.5 times the degrees of freedom or fewer: "
        f"cp, {name}. with more: htf, {name} at 3. at none of the ratios: Tucker-like, {name}."
    )
    assert "or fewer: none. at none of the ratios: cp" in second


def test_heat_maps(rows):
    one, other = draw_recovery(rows).axes
    assert [text.get_text() for text in one.get_xticklabels()] == ["0.9", "1.5", "3"]
    assert [text.get_text().split(",")[0] for text in one.get_yticklabels()] == ["cp", "Tucker-like", "htf"]
    assert one.images[0].get_array()[2].tolist() == [0, 0.25, 1]
    assert [line.get_xdata()[0] for line in one.lines] == [0.5]  # the floor, between 0.9 and 1.5
    assert len(other.images) == 1


@pytest.mark.parametrize("scale", ["mini", "full"])
def test_plans(scale):
    """At least 20 problems per cell; observations that exist; orders 3 to 16."""
    runs = planned_runs(PlanConfig.checked(plan(scale)))
    assert min(run.settings.problems for run in runs) >= 20
    assert {2, 3, 4, 6, 8, 16} <= {run.settings.order for run in runs}
    assert {"matrix", "cp", "htf"} == {run.settings.target for run in runs}
    assert min(run.settings.ratio for run in runs) < 1


def test_from_runs_to_table(htf, monkeypatch, tmp_path):
    """Two cells in one process: runs, heat map, table; the same command does nothing again."""
    tiny = {
        "command": "measure-recovery",
        "base": {"target": "matrix", "order": 2, "dim": 6, "width": 1, "problems": 2},
        "grid": {"ratio": [0.9, 3.0]},
    }
    monkeypatch.setattr(reproduction, "published_plan", lambda name, scale: PlanConfig.checked(tiny))
    done = htf("reproduce", "phase-transition", "-o", "out", "--workers", "1")
    assert done.code == 0, done.err
    assert [(r["kind"], r["observations_over_df"], r["rate"]) for r in done.records] == [
        ("recovery", 0.9, "0.00 ± 0.00"), ("recovery", 3.0, "1.00 ± 0.00"),
    ]  # fmt: skip
    table = (tmp_path / "out/phase-transition.md").read_text()
    assert "| matrix | 2 | 6 | 1 | Levenberg-Marquardt, random starts | 11 | 3.0 | 1.00 ± 0.00 | 1.0 | 2 |" in table
    again = htf("reproduce", "phase-transition", "-o", "out", "--workers", "1")
    assert "2 of them finished before" in again.err
    assert again.records == done.records
