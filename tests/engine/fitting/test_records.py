"""Records of a fit against dense computations."""

from __future__ import annotations

import math

import pytest
import torch

from htfcli.config.tensors import TargetConfig
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.fitting.records import SampleLoss, derivative_error
from htfcli.engine.observations.synthetic import make_observations
from htfcli.engine.ranks.matricization import dense_spectrum
from htfcli.engine.samples import Entries
from tests.engine.fitting.small_fits import SMALL, start
from tests.problems import generator, random_sample, reference_values


def test_records_say_what_a_dense_computation_says():
    observations = make_observations(SMALL)
    config = {"iterations": 40, "matricization": [[0, 2]], "weight_norms": True, "top": 3, "width": [4, 5]}
    run = start(observations, **config)
    *_, record = run.run()
    model = run.model
    tensor, target = model.dense(), observations.target.dense()
    residual = model.values(observations.train.index) - observations.train.value
    assert record["iteration"] == 40
    assert record["train_loss"] == pytest.approx(float(residual.square().mean()), rel=1e-9)
    assert record["train_error"] == pytest.approx(float(residual.norm() / observations.train.value.norm()), rel=1e-9)
    residual = model.values(observations.test.index) - observations.test.value
    assert record["test_loss"] == pytest.approx(float(residual.square().mean()), rel=1e-9)
    assert record["reconstruction_error"] == pytest.approx(float((tensor - target).norm() / target.norm()), rel=1e-9)
    nodes = {node["node"]: node for node in record["nodes"]}
    assert list(nodes) == ["{0}", "{1}", "{2}", "{3}", "{0,1}", "{2,3}", "{0,1,2,3}"]
    for modes in ([0], [3], [0, 1]):
        label = "{" + ",".join(map(str, modes)) + "}"
        wanted = dense_spectrum(tensor, modes)
        assert nodes[label]["singular_values"] == pytest.approx(
            wanted.singular_values[:3].tolist(), rel=1e-9, abs=1e-12
        )
        assert nodes[label]["effective_rank"] == pytest.approx(wanted.effective_rank, rel=1e-9)
    extra = record["matricizations"][0]
    assert extra["node"] == "{0,2}"
    assert extra["singular_values"] == pytest.approx(
        dense_spectrum(tensor, [0, 2]).singular_values[:3].tolist(), rel=1e-9
    )
    root = nodes["{0,1,2,3}"]
    weights = model.weights
    norms = weights["{0,1,2,3}"].abs().flatten() * weights["{0,1}"].norm(dim=0) * weights["{2,3}"].norm(dim=0)
    top = norms.sort(descending=True)
    assert root["component_norms"] == pytest.approx(top.values[:3].tolist(), rel=1e-9)
    assert root["components"] == top.indices[:3].tolist()
    assert nodes["{0}"]["weight_norms"] == pytest.approx(
        weights["{0}"].norm(dim=0).sort(descending=True).values[:3].tolist(), rel=1e-9
    )


def test_measured_derivative_is_predicted_from_a_balanced_start():
    run = start(make_observations(SMALL), init="balanced", init_std=0.5, lr=1e-5, iterations=1, record_every=1)
    first = next(run.run())
    for node in first["nodes"]:
        if "component_norms" in node:
            assert node["measured_derivative"] == pytest.approx(node["predicted_derivative"], rel=1e-3)


def test_the_last_record_has_no_step_to_measure():
    *_, last = start(make_observations(SMALL), iterations=5).run()
    assert all("measured_derivative" not in node for node in last["nodes"])


@pytest.mark.parametrize("model", ["htf", "cp", "matrix"])
def test_reconstruction_error_without_the_tensor(model, monkeypatch):
    """For targets too large to write out it comes from the factors, and is the same."""
    from htfcli.engine.fitting import records as recording

    settings = {"target": model, "rank": 2, "observed": "0.5", "dims": [6, 5] if model == "matrix" else [3, 4, 3, 2]}
    observations = make_observations(TargetConfig(**settings))
    options = {"model": model, "iterations": 30} | ({"depth": 2} if model == "matrix" else {})
    dense = [r["reconstruction_error"] for r in start(observations, **options).run()]
    monkeypatch.setattr(recording, "_DENSE_TARGET", 0)
    assert [r["reconstruction_error"] for r in start(observations, **options).run()] == pytest.approx(dense, rel=1e-9)


def test_reconstruction_error_is_unknown_on_another_tree(monkeypatch):
    from htfcli.engine.fitting import records as recording

    monkeypatch.setattr(recording, "_DENSE_TARGET", 0)
    record = next(start(make_observations(SMALL), tree="chain").run())
    assert record["reconstruction_error"] is None


def test_weight_norms_of_every_layer():
    observations = make_observations(TargetConfig(target="matrix", dims=[5, 4], rank=2))
    record = next(start(observations, model="matrix", depth=4, weight_norms=True).run())
    assert [n["node"] for n in record["nodes"] if "weight_norms" in n] == ["{0}", "{1}", "{0}'", "{0}''"]


@pytest.mark.parametrize("kind", ["entries", "matrices", "vectors"])
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_error_of_a_sample(kind, loss):
    """Against the dense tensor; and in parts of unequal size, which one process sums by hand."""
    model = CPFactorization((4, 3), 2).init_gaussian(1.0, generator())
    sample = random_sample(kind, model.dims, 9, seed=1)
    residual = reference_values(model.dense(), sample) - sample.value
    wanted = {"l2": residual.square(), "l1": residual.abs(), "huber": huber(residual)}[loss].mean()
    gradient = torch.zeros_like(model.parameters)
    whole = SampleLoss(model, sample, LOSSES[loss], gradient)
    whole.forward_backward()
    assert whole.loss() == pytest.approx(float(wanted), rel=1e-12)
    assert whole.error() == pytest.approx(float(residual.norm() / sample.value.norm()), rel=1e-12)
    loss_sum, gradient_sum = 0.0, torch.zeros_like(gradient)
    for rows in (torch.arange(6), torch.arange(6, 9)):
        part = torch.zeros_like(gradient)
        fitted = SampleLoss(model, sample.select(rows), LOSSES[loss], part, total=9)
        fitted.forward_backward()
        loss_sum += fitted.loss()
        gradient_sum += part
    assert loss_sum == pytest.approx(whole.loss(), rel=1e-12)
    assert torch.allclose(gradient_sum, gradient, rtol=1e-11, atol=1e-14)


def huber(residual):
    return torch.nn.functional.smooth_l1_loss(residual, torch.zeros_like(residual), reduction="none")


def test_the_error_of_zeros_is_nan():
    model = CPFactorization((2, 2), 1).init_gaussian(1.0, generator())
    fitted = SampleLoss(model, Entries(torch.tensor([[0, 1]]), torch.zeros(1, dtype=torch.float64)), LOSSES["l2"])
    model.parameters.zero_()
    fitted.forward()
    assert math.isnan(fitted.error())


def test_derivative_error():
    """Relative distance of all measured derivatives from all predicted ones."""
    nodes = [
        {"measured_derivative": [1.0, 2.0], "predicted_derivative": [1.0, 5.0]},
        {"singular_values": [1.0]},
        {"measured_derivative": [7.0], "predicted_derivative": [3.0]},
    ]
    assert derivative_error({"nodes": nodes}) == pytest.approx(5 / 35**0.5)
    nodes[0]["measured_derivative"][0] = None
    assert derivative_error({"nodes": nodes}) is None
    assert derivative_error({"nodes": [{"predicted_derivative": [1.0]}]}) is None
    assert derivative_error({}) is None
