"""`SecondOrderFit`: the records, stop rules and resumable state of a fit, and the solutions it finds."""

from __future__ import annotations

import pytest
import torch

from htfcli.config.tensors import FitConfig, TargetConfig
from htfcli.engine.fitting.fit import build_model, fit
from htfcli.engine.fitting.second_order import SecondOrderFit
from htfcli.engine.observations.observations import Observations
from htfcli.engine.observations.synthetic import make_observations
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError, RunError
from tests.problems import generator

SMALL = TargetConfig(order=4, dim=4, rank=2, observed="0.5", seed=0)
CPU = torch.device("cpu")


def start(observations, **settings):
    config = FitConfig(**{"solver": "second-order", "width": 3, "until_loss": None} | settings)
    return SecondOrderFit(build_model(config, observations.dims, CPU), observations, config)


def test_records_say_what_a_dense_computation_says():
    observations = make_observations(SMALL)
    run = start(observations, iterations=7, record_every=3)
    records = list(run.run())
    assert [r["iteration"] for r in records] == [0, 3, 6, 7]
    tensor, target = run.model.dense(), observations.target.dense()
    residual = tensor[observations.train.index.unbind(1)] - observations.train.value
    assert records[-1]["train_loss"] == pytest.approx(float(residual.square().mean()), rel=1e-9)
    assert records[-1]["reconstruction_error"] == pytest.approx(float((tensor - target).norm() / target.norm()))
    losses = [r["train_loss"] for r in records]
    assert losses == sorted(losses, reverse=True)
    assert all("measured_derivative" not in node for r in records for node in r["nodes"])


@pytest.mark.parametrize("model", ["htf", "cp", "matrix"])
def test_every_kind_of_model_is_recovered(model):
    """To rounding, from one of several starts (a single one may end in a local minimum), and it stops by itself."""
    sizes = {"observed": "0.9", "dims": [12, 10]} if model == "matrix" else {"observed": "0.6", "dims": [5, 6, 4, 5]}
    observations = make_observations(TargetConfig(target=model, rank=2, **sizes))
    errors = []
    for seed in range(10):
        run = start(observations, model=model, width=2, seed=seed)
        *_, last = run.run()
        assert run.stop_reason == "converged"
        errors.append(last["reconstruction_error"])
        if errors[-1] < 1e-12:
            break
    assert errors[-1] < 1e-12, errors


def test_the_start_is_not_the_target():
    """A target and a model of the same seed and widths must not have the same weights, or fits look better than they
    are."""
    observations = make_observations(SMALL)
    first, target = start(observations, width=2).model.dense().flatten(), observations.target.dense().flatten()
    assert abs(float(first @ target / first.norm() / target.norm())) < 0.5


@pytest.mark.parametrize("settings", [{}, {"loss": "huber"}, {"loss": "l1"}, {"ridge": 1e-3}, {"record_every": 4}])
@pytest.mark.parametrize("cut", [0, 5, 8])
def test_resume_is_bit_for_bit(settings, cut):
    observations = make_observations(SMALL)
    whole = start(observations, **settings, iterations=25)
    records = list(whole.run())
    halted = start(observations, **settings, iterations=25)
    before = list(halted.run(lambda iteration: iteration == cut))
    assert halted.stop_reason == "interrupted"
    resumed = start(observations, **settings, iterations=25)
    resumed.load_state(halted.state())
    assert before + list(resumed.run()) == records
    assert torch.equal(resumed.model.parameters, whole.model.parameters)
    assert resumed.stop_reason == whole.stop_reason


def test_resume_of_a_rejected_step():
    """The damping after a step that was not taken is part of the state."""

    def fit_of(seed):
        return start(make_observations(TargetConfig(order=4, dim=5, width=3, observed="0.4", seed=seed)), iterations=30)

    for seed in range(20):  # most runs have such a step
        whole, steps = fit_of(seed), []
        step = whole._solver.step
        whole._solver.step = lambda step=step, steps=steps: steps.append(step()) or steps[-1]
        records = list(whole.run())
        if False in steps:
            break
    assert False in steps
    cut = steps.index(False) + 1
    halted, resumed = fit_of(seed), fit_of(seed)
    before = list(halted.run(lambda iteration: iteration == cut))
    resumed.load_state(halted.state())
    assert before + list(resumed.run()) == records


def test_stop_rules():
    observations = make_observations(SMALL)
    run = start(observations, iterations=4)
    assert [r["iteration"] for r in run.run()] == [0, 1, 2, 3, 4]
    assert run.stop_reason == "iterations"
    run = start(observations, until_loss=0.1, patience=3)
    records = list(run.run())
    assert run.stop_reason == "loss"
    assert [r["train_loss"] < 0.1 for r in records[-4:]] == [False, True, True, True]
    run = start(observations, seconds=1e-9)
    assert len(list(run.run())) == 1
    assert run.stop_reason == "seconds"
    run = start(make_observations(SMALL.model_copy(update={"noise": 0.3})), ridge=1e-2)
    *_, last = run.run()
    assert run.stop_reason == "converged"
    assert last["train_error"] > 0.05
    assert list(run.run()) == [last]  # again at once


def test_ridge_shrinks():
    observations = make_observations(SMALL)
    sizes = []
    for ridge in (0.0, 1e-3, 1e-1):
        run = start(observations, ridge=ridge)
        list(run.run())
        sizes.append(float(run.model.parameters.square().sum()))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.9 * sizes[1]


@pytest.mark.parametrize("loss", ["huber", "l1"])
def test_outliers(loss):
    observations = make_observations(TargetConfig(order=3, dim=6, rank=2, observed="1.0", seed=3))
    value = observations.train.value.clone()
    value[torch.randperm(len(value), generator=generator(1))[:4]] += 10.0
    spoilt = Observations(observations.dims, Entries(observations.train.index, value), None, observations.target)
    errors = {}
    for name in ("l2", loss):
        *_, last = start(spoilt, width=2, loss=name, iterations=100).run()
        errors[name] = last["reconstruction_error"]
    assert errors[loss] < 1e-3
    assert errors["l2"] > 0.1


def test_python_api_undoes_the_scale():
    observations = make_observations(SMALL)
    data = Observations(observations.dims, Entries(observations.train.index, observations.train.value * 1e200))
    model, records = fit(data, FitConfig(solver="second-order", width=2))
    assert records[-1]["train_error"] < 1e-12
    wanted = observations.target.dense()
    assert float((model.dense() / 1e200 - wanted).norm() / wanted.norm()) < 1e-10


def test_measurements_and_float32_are_refused():
    config = FitConfig(solver="second-order", width=2)
    sensing = make_observations(TargetConfig(order=3, dim=3, rank=1, task="sensing", observed="30"))
    model = build_model(config, sensing.dims, CPU)
    with pytest.raises(ConfigError, match=r"solver second-order is for observed entries \(got measurements\)"):
        SecondOrderFit(model, sensing, config)
    observations = make_observations(TargetConfig(order=3, dim=3, rank=1))
    with pytest.raises(ConfigError, match=r"computes in float64 \(got float32\)"):
        SecondOrderFit(model.to(torch.float32), observations, config)


def test_first_weights_that_overflow():
    with pytest.raises(RunError, match=r"the first weights are too large \(got train loss nan\). Lower --init-std"):
        list(start(make_observations(SMALL), init_std=1e80).run())


def test_a_state_of_another_model():
    observations = make_observations(SMALL)
    with pytest.raises(DataError, match="the checkpoint does not fit the model"):
        start(observations, width=5).load_state(start(observations).state())
