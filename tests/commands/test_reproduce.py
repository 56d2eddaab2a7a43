"""`htf reproduce`: a published experiment from its runs to figure and table."""

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
from htfcli.experiments.paper.curves import DYNAMICS, MATRICIZATIONS, fits_of, one_after_another, rises
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


def test_everything_is_written_and_kept(htf, smaller, tmp_path):
    """A few iterations of the one fit of an experiment: figure, table and plan, and nothing is run again."""
    done = htf("reproduce", "matricizations", "-o", "out", "--set", "iterations=50")
    assert done.code == 0, done.err
    assert {r["kind"] for r in done.records} == {"comparison"}
    assert [r["case"] for r in done.records][:2] == [panel.title for panel in MATRICIZATIONS[:2]]
    table = (tmp_path / "out/matricizations.md").read_text()
    assert table.startswith("# matricizations, scale mini\n\n| case | quantity | published | ours | seeds |\n")
    for kind in ("png", "pdf"):
        assert (tmp_path / f"out/matricizations.{kind}").stat().st_size > 5000
    with Image.open(tmp_path / "out/matricizations.png") as image:
        assert image.size[0] > 1500
    before = (tmp_path / "out/matricizations.png").read_bytes()
    again = htf("reproduce", "matricizations", "-o", "out", "--set", "iterations=50")
    assert "1 run of htf fit, 1 of them finished before" in again.err
    assert again.records == done.records
    assert (tmp_path / "out/matricizations.png").read_bytes() == before
    same = htf("sweep", "out/matricizations.yaml", "-o", "out/matricizations")  # the plan that was written was run
    assert "1 run of htf fit, 1 of them finished before" in same.err


@pytest.mark.long
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
        (fit,) = fits_of(rows, tmp_path / "out/dynamics", panel.model)
        target = to_observations(read(tmp_path / row["data"])).target
        (spectrum,) = [s for s in spectra_of(target) if s.label == node]
        place = next(p for p in fit.run.records[-1]["nodes"] if p["node"] == node)
        values = np.array(spectrum.scaled(3))
        times = rises(panel, fit.run)
        assert one_after_another(times)
        assert len(times) == 3
        assert place["singular_values"][:3] == pytest.approx(values, abs=0.02 * values[0])
        assert max(place["singular_values"][3:], default=0.0) < 0.02 * values[0]
    table = (tmp_path / "out/dynamics.md").read_text()
    assert "| matrix factorization | values that leave zero | about 5 | 3 | 1 |" in table


def test_unknown_names(htf):
    done = htf("reproduce", "dynamic")
    assert done.error == f"unknown experiment (got dynamic, allowed {', '.join(EXPERIMENTS)}). Did you mean dynamics?"
    assert htf("reproduce", "dynamics", "--set", "model=cp").error == "set twice: model."


def test_is_same_class_end_to_end(htf, monkeypatch, tmp_path):
    """A few pairs and one epoch: that everything is written, not how good it is."""
    plan = paper.published_plan("is-same-class", "mini").model_dump(exclude_unset=True)
    plan["base"] |= {"train": 64, "test": 32, "epochs": 1, "widths": [4, 8]}
    plan["grid"] = {"distance": [31]}
    monkeypatch.setattr(reproduce, "published_plan", lambda name, scale: PlanConfig.checked({**plan, "seeds": 1}))
    done = htf("reproduce", "is-same-class", "-o", "out")
    assert done.code == 0, done.err
    assert len(done.records) == 2 + 1 + 15  # ours, the gain, published
    assert yaml.safe_load((tmp_path / "out/is-same-class.yaml").read_text())["base"]["train"] == 64
    assert "compare the pattern" in (tmp_path / "out/is-same-class.md").read_text()
    rows = load_summary("out/is-same-class")
    assert [r["settings"]["distance"] for r in rows] == [31, 31]
    assert (
        json.loads((tmp_path / "out/is-same-class/runs" / rows[0]["run"] / "summary.json").read_text())["kind"] == "cnn"
    )
