"""`htf fit` on measured data."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest


@pytest.fixture
def il2(tmp_path):
    """The IL-2 response tensor that tensorly bundles: 13 x 4 x 12 x 8, 3.8 % missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = pytest.importorskip("tensorly.datasets")
        tensor = np.asarray(datasets.load_IL2data().tensor)
    assert tensor.shape == (13, 4, 12, 8)
    assert np.isnan(tensor).mean() == pytest.approx(0.038, abs=1e-3)
    np.save(tmp_path / "il2.npy", tensor)
    return tensor


def test_il2(htf, il2, tmp_path):
    done = htf("fit", "il2.npy", "--test-fraction", 0.1, "--iterations", 1500, "--lr", 0.03, "-o", "runs/il2")
    assert done.code == 0
    assert "480 held out" in done.err
    summary = json.loads((tmp_path / "runs/il2/summary.json").read_text())
    assert summary["test_error"] < 0.6  # of 1 for zeros; seeds reach 0.30 to 0.39
    assert f"held-out relative error {summary['test_error']:.4g}" in done.err
    ranks = htf("measure-rank", "runs/il2", "--tolerance", 0.05).records
    assert [r["shape"] for r in ranks] == [[13, 384], [4, 1248], [12, 416], [8, 624], [52, 96], [96, 52]]
    assert all(1 <= r["effective_rank"] <= 12 for r in ranks)
    norm = np.sqrt(np.nansum(il2**2))
    assert 0.8 * norm < np.sqrt(sum(s**2 for s in ranks[0]["singular_values"])) < 1.2 * norm  # in the data's units
