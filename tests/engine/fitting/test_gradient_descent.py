"""Gradient descent: its iterations against autograd, mini-batches, and divergence."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.observations.synthetic import make_observations
from htfcli.errors import RunError
from tests.engine.fitting.small_fits import SMALL, start
from tests.problems import reference_tensor, reference_values


@pytest.mark.parametrize(("lr", "optimizer"), [(1e3, "sgd"), (50.0, "group-rmsprop")])
def test_divergence_stops_and_keeps_the_last_good_state(lr, optimizer):
    run = start(make_observations(SMALL), lr=lr, optimizer=optimizer, init_std=0.5, record_every=1, iterations=1000)
    with pytest.raises(RunError, match=r"training diverged by iteration \d+ \(got train loss .*\). Lower --lr"):
        list(run.run())
    assert torch.isfinite(run.good_state["parameters"]).all()


def autograd_fit(run, config, iterations):
    """The weights after some iterations of torch's own optimizers with gradients by autograd through the whole tensor;
    group RMSprop by its formula."""
    model, sample = run.model.to(), run.train
    weights = model.parameters.clone().requires_grad_()
    losses = {
        "l2": torch.nn.functional.mse_loss,
        "l1": torch.nn.functional.l1_loss,
        "huber": torch.nn.functional.smooth_l1_loss,
    }
    optimizer = {
        "sgd": lambda: torch.optim.SGD([weights], lr=config["lr"], momentum=config.get("momentum", 0.0)),
        "adam": lambda: torch.optim.Adam([weights], lr=config["lr"]),
        "group-rmsprop": lambda: None,
    }[config["optimizer"]]()
    moment = 0.0
    for t in range(1, iterations + 1):
        values = reference_values(reference_tensor(model, model.views(weights)), sample)
        (weights.grad,) = torch.autograd.grad(losses[config["loss"]](values, sample.value), weights)
        if optimizer is not None:
            optimizer.step()
            continue
        moment = 0.99 * moment + 0.01 * float(weights.grad.square().sum())
        with torch.no_grad():
            weights -= config["lr"] / ((moment / (1 - 0.99**t)) ** 0.5 + 1e-6) * weights.grad
    return weights.detach()


@pytest.mark.parametrize("loss", ["l2", "l1", "huber"])
@pytest.mark.parametrize(("optimizer", "lr"), [("group-rmsprop", 0.01), ("sgd", 0.05), ("adam", 0.01)])
def test_iterations_are_those_of_autograd_and_lower_the_loss(loss, optimizer, lr):
    config = {"loss": loss, "optimizer": optimizer, "lr": lr, "init_std": 0.3}
    if optimizer == "sgd":
        config["momentum"] = 0.9
    run = start(make_observations(SMALL), iterations=25, record_every=25, **config)
    wanted = autograd_fit(run, config, 25)
    first, last = run.run()
    assert torch.allclose(run.model.parameters, wanted, rtol=1e-8, atol=1e-10)
    assert last["train_loss"] < first["train_loss"]


def test_mini_batches_follow_their_own_gradient_and_record_the_whole_loss():
    observations = make_observations(SMALL)
    run = start(observations, batch_size=48, iterations=40, record_every=40, optimizer="adam", init_std=0.3)
    first, last = run.run()
    residual = run.model.values(observations.train.index) - observations.train.value
    assert last["train_loss"] == pytest.approx(float(residual.square().mean()), rel=1e-9)
    assert last["train_loss"] < first["train_loss"]
    run._descend()
    part = run.iteration % 3  # 128 observations in batches of 48, 48 and 32
    batch = observations.train.select(run._permutation[48 * part : 48 * (part + 1)])
    weights = run.model.parameters.clone().requires_grad_()
    values = reference_values(reference_tensor(run.model, run.model.views(weights)), batch)
    (wanted,) = torch.autograd.grad((values - batch.value).square().mean(), weights)
    assert torch.allclose(run.gradient, wanted, rtol=1e-9, atol=1e-12)


def test_an_epoch_of_mini_batches_sees_every_observation_once():
    run = start(make_observations(SMALL), batch_size=48)
    seen = []
    for run.iteration in range(3):
        run._descend()
        seen.append(run._permutation[48 * run.iteration : 48 * (run.iteration + 1)])
    assert sorted(torch.cat(seen).tolist()) == list(range(128))
