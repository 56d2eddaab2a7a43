"""Fits of factorizations with dense cores: exact second-order solutions, low rank from near zero, records."""

from __future__ import annotations

import pytest
import torch

from htfcli.config.tensors import FitConfig, TargetConfig
from htfcli.engine.fitting.fit import build_model, fit
from htfcli.engine.least_squares import jacobian, levenberg_marquardt
from htfcli.engine.least_squares.levenberg_marquardt import MATRIX_LIMIT
from htfcli.engine.observations.synthetic import make_observations
from htfcli.engine.ranks.hierarchical_rank import hierarchical_rank, spectra_of
from htfcli.engine.ranks.local_components import local_components
from tests.engine.fitting.small_fits import CPU, start


def observed(kind, **settings):
    return make_observations(
        TargetConfig(target=kind, **{"order": 3, "dim": 5, "width": 2, "observed": "70"} | settings)
    )


@pytest.mark.parametrize("kind", ["tucker", "tensor-train", "hierarchical-tucker"])
def test_second_order_finds_the_tensor(kind):
    """Seven or more of ten starts do."""
    observations = observed(kind)
    for seed in range(5):
        config = FitConfig(model=kind, solver="second-order", width=2, seed=seed, until_loss=1e-24, iterations=100)
        model, records = fit(observations, config)
        if records[-1]["reconstruction_error"] < 1e-9:
            break
    assert records[-1]["reconstruction_error"] < 1e-9
    assert set(hierarchical_rank(model, tolerance=1e-7)) == {2}


def test_second_order_steps_by_conjugate_gradients(monkeypatch):
    """As for models of more parameters than J^T J is built for: the same course as by Cholesky, up to their accuracy."""
    observations = observed("tensor-train", observed="100")
    settings = {"model": "tensor-train", "width": 2, "solver": "second-order", "iterations": 60, "record_every": 1}
    losses = {}
    for limit, core in ((MATRIX_LIMIT, 5000), (1, 5000), (0, 1)):  # the last with the diagonal of J^T J at cores alone
        monkeypatch.setattr(levenberg_marquardt, "MATRIX_LIMIT", limit)
        monkeypatch.setattr(jacobian, "_LARGEST_CORE", core)
        run = start(observations, **settings, seed=1)
        assert run._solver._small == (limit > 1)
        losses[limit] = [record["train_loss"] for record in run.run()]
    for limit in (0, 1):
        assert losses[limit][1] == pytest.approx(losses[MATRIX_LIMIT][1], rel=0.1)
    assert all(loss[-1] < 1e-20 for loss in losses.values())


@pytest.mark.parametrize(("kind", "depth"), [("tucker", 1), ("tucker", 2), ("tensor-train", 1)])
@pytest.mark.parametrize("seed", [0, 3])
def test_gradient_descent_from_near_zero_has_low_rank(kind, depth, seed):
    """Widths allow full rank, and large weights lead to it; small ones to about the rank of the target, two."""
    observations = observed("tucker", dim=6, observed="110", seed=seed)
    ranks, errors = [], []
    for init_std in (0.1, 0.8):
        settings = {"model": kind, "depth": depth, "width": 6, "init_std": init_std, "seed": seed}
        run = start(observations, **settings, iterations=1000, record_every=1000)
        *_, last = run.run()
        ranks.append([spectrum.effective_rank for spectrum in spectra_of(run.model)[:3]])
        errors.append(last["reconstruction_error"])
    assert max(ranks[0]) < 2.3 < min(ranks[1])
    assert errors[0] < 0.5 * errors[1]


def test_records_have_every_node():
    """Singular values and components at all nodes but the root; predicted derivatives are those measured."""
    observations = observed("tensor-train", order=4, dim=3, observed="40")
    settings = {
        "model": "tensor-train",
        "width": 3,
        "init": "balanced",
        "init_std": 0.4,
        "optimizer": "sgd",
        "lr": 1e-4,
    }
    run = start(observations, **settings, iterations=10, weight_norms=True)
    first, *_ = run.run()
    assert [node["node"] for node in first["nodes"]] == ["{0}", "{1}", "{2}", "{3}", "{0,1}", "{0,1,2}", "{0,1,2,3}"]
    assert first["unbalancedness"] < 1e-13
    model = run.model
    for node in first["nodes"][:-1]:
        assert len(node["singular_values"]) == len(node["component_norms"]) == 3
        assert node["measured_derivative"] == pytest.approx(node["predicted_derivative"], rel=1e-2, abs=1e-4)
    assert local_components(model).unbalancedness < 1e-6


@pytest.mark.parametrize("model", ["tucker", "tensor-train", "hierarchical-tucker"])
def test_starts_are_near_zero_and_balanced_where_asked(model):
    for init in ("gaussian", "balanced"):
        built = build_model(FitConfig(model=model, width=3, init=init, dtype="float64"), (4, 4, 4), CPU)
        rms = float(built.dense().square().mean().sqrt())
        assert 1e-6 < rms < 1e-2
        relative = local_components(built).unbalancedness / float(built.parameters.square().sum())
        assert (relative < 1e-14) == (init == "balanced")
        assert torch.isfinite(built.parameters).all()
