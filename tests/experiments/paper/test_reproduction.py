"""Figure, table and plan of a reproduction, from rows that are written here."""

from __future__ import annotations

import yaml

from htfcli.config.plan import PlanConfig
from htfcli.experiments.paper.published import published_plan
from htfcli.experiments.paper.reproduction import Reproduction


def rows(job):
    """Each run finished, with an accuracy of its own."""
    return [
        {"kind": "run", "run": j.run.name, "status": "finished", "command": "train-cnn", "data": None, "error": None, "varied": j.run.varied,
         "settings": j.run.settings.model_dump(mode="json"), "generate": None, "final": {"test_accuracy": 0.6 + 0.002 * number}}
        for number, j in enumerate(job.sweep.jobs)
    ]  # fmt: skip


def test_what_is_written(tmp_path):
    job = Reproduction("baselines", "mini", str(tmp_path), changes=["epochs=3"])
    assert job.sweep.path == tmp_path / "baselines"
    table = job.present(rows(job))
    assert {path.name for path in tmp_path.iterdir()} == {f"baselines.{kind}" for kind in ("pdf", "png", "md", "yaml")}
    lines = (tmp_path / "baselines.md").read_text().splitlines()
    assert lines[:3] == ["# baselines, scale mini", "", "| case | quantity | published | ours | seeds |"]
    assert "| distance 31 | test accuracy (%), no regularizer |  | 63.1 ± 0.3 | 32 |" in lines
    assert "| distance 31 | gain in points, paired, coefficient 0.1 |  | +6.4 ± 0.0 | 32 |" in lines
    assert len([line for line in lines if line.startswith("|")]) == len(table) + 2
    assert any("compare the pattern, not the numbers" in line for line in lines)
    head, *plan = (tmp_path / "baselines.yaml").read_text().splitlines()
    assert head == "# htf sweep baselines.yaml -o runs/baselines"
    written = PlanConfig.checked(yaml.safe_load("\n".join(plan)))
    assert written == published_plan("baselines", "mini").with_base(["epochs=3"])


def test_at_the_published_scale_numbers_stand_side_by_side(tmp_path):
    job = Reproduction("pathfinder", "full", str(tmp_path))
    table = job.present(rows(job))
    of_length_9 = [(row.published, row.quantity.split(",")[0]) for row in table if row.case == "path length 9"]
    assert of_length_9 == [*((p, "test accuracy (%)") for p in ("50.0", "63.5", "85.5")), *[("", "gain in points")] * 2]
    assert "compare the pattern" not in (tmp_path / "pathfinder.md").read_text()
