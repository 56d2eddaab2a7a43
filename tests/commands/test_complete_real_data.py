"""The IL-2 responses that tensorly bundles, as their owner would have them: a table with names and labels."""

from __future__ import annotations

import csv
import json
import warnings

import numpy as np
import pytest


@pytest.fixture
def il2(tmp_path):
    """experiments.csv: ligand, dose, cell, time, response; the 192 missing responses are empty. Returns the tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = pytest.importorskip("tensorly.datasets")
        bundle = datasets.load_IL2data()
    tensor, (ligands, times, doses, cells) = np.asarray(bundle.tensor), bundle.ticks
    assert tensor.shape == (13, 4, 12, 8)
    with open(tmp_path / "experiments.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["ligand", "dose", "cell", "time", "response"])
        for i, j, k, m in np.ndindex(tensor.shape):
            value = tensor[i, j, k, m]
            writer.writerow([ligands[i], float(doses[k]), cells[m], times[j], "" if np.isnan(value) else float(value)])
    np.save(tmp_path / "cube.npy", tensor)
    return tensor


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_table_of_experiments(htf, il2, tmp_path):
    done = htf("complete", "experiments.csv", "-o", "completed.csv", "--effort", "quick")
    assert done.code == 0, done.err
    (summary,) = done.records
    assert summary["modes"] == ["ligand", "dose", "cell", "time"]
    assert summary["dims"] == [13, 12, 8, 4]
    assert (summary["observed"], summary["predicted"]) == (4800, 192)
    assert sorted(summary["tree"].replace("(", "").replace(")", "").split(", ")) == ["cell", "dose", "ligand", "time"]
    before, after = rows(tmp_path / "experiments.csv"), rows(tmp_path / "completed.csv")
    assert len(before) == len(after) == il2.size
    filled = 0
    for old, new in zip(before, after, strict=True):
        if old["response"]:
            assert new == old
        else:
            filled += 1
            assert {**new, "response": ""} == old
            assert abs(float(new["response"])) < 5 * np.nanmax(il2)
    assert filled == 192
    assert htf("plot", "completed.csv.run", "-o", "why.png").code == 0

    hole = next(new for old, new in zip(before, after, strict=True) if not old["response"])
    asked = {
        **{k: hole[k] for k in ("time", "ligand", "cell")},
        "dose": f"{float(hole['dose']):.20e}",
    }  # the same number
    with open(tmp_path / "queries.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([asked.keys(), asked.values()])
    assert htf("complete", "completed.csv.run", "--predict", "queries.csv", "-o", "p.csv").code == 0
    assert [float(row["response"]) for row in rows(tmp_path / "p.csv")] == [pytest.approx(float(hole["response"]))]


def test_a_cube_with_uncertainty(htf, il2, tmp_path):
    done = htf("complete", "cube.npy", "-o", "filled.npy", "--uncertainty", "std.npy", "--effort", "quick", "-q")
    assert done.code == 0, done.err
    filled, std = np.load(tmp_path / "filled.npy"), np.load(tmp_path / "std.npy")
    known = ~np.isnan(il2)
    assert (filled[known] == il2[known]).all()
    assert np.isfinite(filled).all()
    assert std.shape == il2.shape
    assert (std >= 0).all()
    assert json.loads((tmp_path / "filled.npy.run/summary.json").read_text())["observed"] == known.sum()
