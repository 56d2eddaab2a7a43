"""Figures and tables of the theorem and of initializations, from short runs and from rows that are written here."""

from __future__ import annotations

import json

import pytest

from htfcli.config.plan import PlanConfig
from htfcli.experiments.paper import initialization, theorem
from htfcli.experiments.sweeps.plan import planned_runs

FITS = planned_runs(PlanConfig.checked(theorem.plan("mini")))
STARTS = planned_runs(PlanConfig.checked(initialization.plan("mini")))


def written(folder, runs, record):
    """Finished rows of these runs, whose three records `record` gives by run and number."""
    rows = []
    for run in runs:
        (folder / "runs" / run.name).mkdir(parents=True)
        lines = [json.dumps({"kind": "iteration", "iteration": 10 * k, **record(run, k)}) for k in range(3)]
        (folder / "runs" / run.name / "records.jsonl").write_text("\n".join(lines) + "\n")
        rows.append(
            {
                "run": run.name,
                "status": "finished",
                "settings": run.settings.model_dump(mode="json"),
                "generate": run.target.model_dump(mode="json"),
            }
        )
    return rows


def derivatives(run, k):
    """Measured derivatives 1 % off; the last record has none."""
    place = {"node": "{0,1}", "modes": [0, 1], "effective_rank": 2.0 + run.settings.seed}
    found = {} if k == 2 else {"predicted_derivative": [1.0, 2.0], "measured_derivative": [1.01, 2.02]}
    balance = 1e-12 if run.settings.init == "balanced" else 0.5
    return {"nodes": [{**place, **found}], "unbalancedness": balance, "test_error": 0.1}


def test_the_theorem_is_shown_for_every_factorization_tree_and_loss(tmp_path):
    assert {(r.settings.model, r.settings.loss) for r in FITS} == {
        (m, loss) for m in ("matrix", "cp", "htf") for loss in ("l2", "huber", "l1")
    }
    assert {r.settings.tree for r in FITS if r.settings.model == "htf"} == {"balanced", "half"}
    assert {r.settings.init for r in FITS} == {"balanced"}
    rows = written(tmp_path, FITS, derivatives)
    table = theorem.compare_theorem([*rows, {**rows[0], "status": "failed"}], tmp_path)
    assert len(table) == 5 * 3 * 3
    assert {(row.ours, row.seeds) for row in table} == {("1.0e-02", 3), ("1.0e-12", 3)}
    figure = theorem.draw_theorem(rows, tmp_path)
    assert len(figure.axes) == 10
    dots = figure.axes[0].lines[0]
    assert list(dots.get_xdata()) == [1, 2, 1, 2]
    assert list(dots.get_ydata()) == [1.01, 2.02, 1.01, 2.02]


def test_initializations_side_by_side(tmp_path):
    """Effective ranks 2 to 11 over ten seeds: median 6.5, quartiles 4.25 and 8.75."""
    rows = written(tmp_path, STARTS, derivatives)
    table = {(row.case, row.quantity.split(",")[0]): (row.ours, row.seeds)
             for row in initialization.compare_initialization(rows, tmp_path)}  # fmt: skip
    for init, balance in (("balanced", "1e-12"), ("gaussian", "0.5")):
        case = f"{init}, standard deviation 0.15"
        assert table[case, "unbalancedness"] == (f"{balance} ({balance} to {balance})", 10)
        assert table[case, "derivative: relative difference"] == ("0.01 (0.01 to 0.01)", 10)
        assert table[case, "effective rank at {1"] == ("6.5 (4.2 to 8.8)", 10)
    figure = initialization.draw_initialization(rows, tmp_path)
    ranks = figure.axes[2 * 3]
    assert [line.get_label() for line in ranks.lines] == ["balanced", "gaussian"]
    assert ranks.lines[0].get_ydata() == pytest.approx([6.5, 6.5])
