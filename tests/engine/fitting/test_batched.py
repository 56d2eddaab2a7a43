"""Fits trained as one batch end as they do one by one."""

from __future__ import annotations

import pytest
import torch

from htfcli.config.tensors import FitConfig, TargetConfig
from htfcli.engine.fitting.batched import BatchGradient, batch_key, train_together
from htfcli.engine.fitting.fit import build_model, prepare
from htfcli.engine.fitting.gradient_descent import GradientFit
from htfcli.engine.observations.synthetic import make_observations

CASES = {
    "hierarchical": ({"order": 4, "dim": 4, "rank": 2, "observed": "100"}, {"width": 5}),
    "float32, widths by level": ({"order": 4, "dim": 4, "rank": 2, "observed": "100"}, {"width": [3, 5], "dtype": "float32"}),
    "wide tree": ({"order": 5, "dim": 3, "rank": 2, "observed": "90"}, {"width": 4, "arity": 3, "optimizer": "adam", "lr": 1e-3}),
    "cp": ({"target": "cp", "dims": [5, 4, 3], "rank": 2, "observed": "40"}, {"model": "cp", "width": 6, "loss": "huber"}),
    "tensor train": ({"target": "tensor-train", "dims": [4, 3, 5], "rank": 2, "observed": "40"}, {"model": "tensor-train", "width": 3}),
    "matrix": ({"target": "matrix", "dims": [6, 5], "rank": 2, "observed": "20"}, {"model": "matrix", "depth": 4, "optimizer": "sgd", "lr": 0.05, "loss": "l1"}),
}  # fmt: skip


def fits(target, settings, seeds=3, **further):
    """Of other seeds, starts and learning rates; in float64 unless settings say."""
    found = []
    for seed in range(seeds):
        config = FitConfig.checked({
            **{"iterations": 60, "record_every": 20, "dtype": "float64", "init_std": 0.3 + 0.05 * seed},
            **settings, **further, "seed": seed,
        })  # fmt: skip
        config = config.model_copy(update={"lr": config.lr * (1 + seed)})
        observations, _ = prepare(make_observations(TargetConfig.checked({**target, "seed": seed})), config)
        found.append(GradientFit(build_model(config, observations.dims, torch.device("cpu")), observations, config))
    return found


def together(runs):
    """Train them as one batch; the records of each."""
    records = [[] for _ in runs]

    def course(fit, kept):
        for record in fit.course():
            if record is None:
                yield
            else:
                kept.append(record)

    train_together([(fit, course(fit, kept)) for fit, kept in zip(runs, records, strict=True)])
    return records


def close(a, b, tolerance):
    """Whether two records say the same, number by number."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key], tolerance) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(close(x, y, tolerance) for x, y in zip(a, b, strict=True))
    return a == pytest.approx(b, rel=tolerance, abs=tolerance) if isinstance(a, float) else a == b


@pytest.mark.parametrize("case", CASES)
def test_equal_to_one_by_one(case):
    target, settings = CASES[case]
    alone, batched = fits(target, settings), fits(target, settings)
    (key,) = {batch_key(fit) for fit in batched}
    assert key is not None
    expected, found = [list(fit.run()) for fit in alone], together(batched)
    # bit for bit where BLAS multiplies a batch as it does one matrix; float32 rounds at 6e-8
    tolerance = 1e-4 if settings.get("dtype") == "float32" else 1e-12
    for one, other in zip(alone, batched, strict=True):
        torch.testing.assert_close(other.model.parameters, one.model.parameters, rtol=tolerance, atol=tolerance)
        assert (other.iteration, other.stop_reason) == (one.iteration, one.stop_reason) == (60, "iterations")
    derived = 1e-2 if settings.get("dtype") == "float32" else 1e-9  # a derivative is a small difference over a step
    assert close(found, expected, derived)


def test_gradients_are_those_of_autograd():
    runs = fits(*CASES["hierarchical"])
    BatchGradient(runs)()
    for fit in runs:
        weights = fit.model.parameters.clone().requires_grad_()
        model = fit.model.to()
        model._set_parameters(weights)
        dense = torch.einsum("ar,br,rs,cu,du,uv,sw,vw,w->abcd", *einsum_operands(model))
        loss = (dense[tuple(fit.train.index.T)] - fit.train.value).square().mean()
        (expected,) = torch.autograd.grad(loss, weights)
        torch.testing.assert_close(fit.gradient, expected, rtol=1e-11, atol=1e-13)


def einsum_operands(model):
    a, b, c, d, left, right, root = model.node_weights
    eye = torch.eye(len(root), dtype=root.dtype)
    return a, b, left, c, d, right, eye, eye, root[:, 0]


def test_runs_may_end_at_different_times():
    """By their own stop rules: one after fewer iterations, one by its loss, one at the end."""
    target, settings = CASES["hierarchical"]

    def three():
        runs = fits(target, settings, record_every=5, patience=1)
        for fit, change in zip(runs, ({"iterations": 22}, {"until_loss": 1e9, "patience": 4}, {}), strict=True):
            fit.config = fit.config.model_copy(update=change)
        return runs

    alone, batched = three(), three()
    expected, found = [list(fit.run()) for fit in alone], together(batched)
    assert [(fit.iteration, fit.stop_reason) for fit in alone] == [(22, "iterations"), (15, "loss"), (60, "iterations")]
    assert [(fit.iteration, fit.stop_reason) for fit in batched] == [(fit.iteration, fit.stop_reason) for fit in alone]
    assert close(found, expected, 1e-9)


def test_runs_may_go_on_from_different_iterations():
    target, settings = CASES["cp"]
    alone, batched = fits(target, settings), fits(target, settings)
    begun = fits(target, settings)
    records = begun[1].run()
    next(records), next(records)
    batched[1].load_state(begun[1].state())
    for fit in alone:
        list(fit.run())
    together(batched)
    for one, other in zip(alone, batched, strict=True):
        torch.testing.assert_close(other.model.parameters, one.model.parameters, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ({"observed": "100"}, {"batch_size": 10}),
        ({"observed": "100"}, {"seconds": 5}),
        ({"observed": "20"}, {}),  # a grid of 256 cells for 20 entries
        ({"observed": "100"}, {"width": 200}),
        ({"task": "sensing", "observed": "100"}, {}),
    ],
)
def test_what_a_batch_does_not_pay_for(target, settings):
    shape = {"order": 4, "dim": 4, "rank": 2}
    (fit,) = fits({**shape, **target}, {"width": 4, **settings}, seeds=1)
    assert batch_key(fit) is None


def test_other_shapes_are_other_batches():
    keys = [batch_key(fits(*CASES[case], seeds=1)[0]) for case in CASES]
    assert len(set(keys)) == len(keys)
