"""The CUDA paths against the CPU ones: evaluation, captured iterations, optimizers, resuming, the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from htfcli.config.tensors import FitConfig, TargetConfig
from htfcli.engine.completion.members import Fit, Recipe
from htfcli.engine.completion.splits import Sample
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.fitting.fit import build_model
from htfcli.engine.fitting.gradient_descent import GradientFit
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.fitting.records import SampleLoss
from htfcli.engine.observations.observations import Observations
from htfcli.engine.observations.synthetic import make_observations
from tests.problems import GOLDEN, generator, golden_entries, golden_htf, random_sample

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def start(observations, device, **settings):
    base = {"width": 4, "dtype": "float64", "iterations": 60, "record_every": 10, "until_loss": None, "device": device}
    config = FitConfig(**(base | settings))
    return GradientFit(build_model(config, observations.dims, torch.device(device)), observations, config)


def assert_same_records(got, wanted):
    assert [r["iteration"] for r in got] == [r["iteration"] for r in wanted]
    for a, b in zip(got, wanted, strict=True):
        for key in ("train_loss", "test_loss", "reconstruction_error"):
            assert a[key] == pytest.approx(b[key], rel=1e-9)
        for x, y in zip(a["nodes"], b["nodes"], strict=True):
            for key in ("singular_values", "component_norms", "predicted_derivative", "measured_derivative"):
                if key in y:
                    scale = max(map(abs, y[key]))
                    assert x[key] == pytest.approx(y[key], rel=1e-6, abs=1e-8 * scale)


@pytest.mark.parametrize("tree", ["balanced", "chain", "star"])
@pytest.mark.parametrize("kind", ["entries", "vectors"])
def test_values_and_gradients(tree, kind):
    dims = (30, 20, 25, 10)
    model = HierarchicalTensorFactorization(dims, 5, ModeTree.named(tree, 4)).init_gaussian(1.0, generator())
    sample = random_sample(kind, dims, 300, 0)
    gradients = []
    for device in ("cpu", "cuda"):
        there = model.to(device=device)
        gradient = torch.zeros_like(there.parameters)
        loss = SampleLoss(there, sample, LOSSES["l2"], gradient)
        loss.forward_backward()
        gradients.append(gradient.cpu())
    assert torch.allclose(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adam"}, {"loss": "huber"}, {"batch_size": 48}],
)
def test_fits_agree_with_the_cpu(settings):
    observations = make_observations(TargetConfig(order=4, dim=4, rank=2))
    assert_same_records(
        list(start(observations, "cuda", **settings).run()), list(start(observations, "cpu", **settings).run())
    )


@pytest.mark.parametrize(
    "settings", [{"target": "cp", "dims": [5, 6, 7]}, {"target": "matrix", "dims": [9, 8], "task": "sensing"}]
)
def test_other_models(settings):
    observations = make_observations(TargetConfig(**settings, rank=2, observed="100"))
    options = {"model": settings["target"]}
    assert_same_records(
        list(start(observations, "cuda", **options).run()), list(start(observations, "cpu", **options).run())
    )


def test_golden_trajectory_on_the_gpu():
    name = "htf_order4_binary.npz"
    wanted = np.load(GOLDEN / name)["loss_per_iteration"]
    model = golden_htf(name, "init").to(device="cuda")
    config = FitConfig(iterations=len(wanted), record_every=1, until_loss=None)
    records = list(GradientFit(model, Observations(model.dims, golden_entries(name)), config).run())
    assert [r["train_loss"] for r in records[:-1]] == pytest.approx(wanted.tolist(), rel=1e-8)


def test_the_same_seed_is_the_same_run_and_resumes():
    observations = make_observations(TargetConfig(order=4, dim=4, rank=2))
    whole = list(start(observations, "cuda", dtype="float32").run())
    halted = start(observations, "cuda", dtype="float32")
    before = list(halted.run(lambda iteration: iteration == 33))
    resumed = start(observations, "cuda", dtype="float32")
    resumed.load_state({key: value.cpu() for key, value in halted.state().items()})
    assert before + list(resumed.run()) == whole


@pytest.mark.parametrize("settings", [{}, {"loss": "huber"}, {"smooth": 1.0}], ids=str)
def test_sweeps_of_completion(settings):
    wanted = []
    sample = random_sample("entries", (9, 8, 7), 300, 0)
    between = {0: torch.ones(8, dtype=torch.float64)}
    for device in ("cpu", "cuda"):
        recipe = Recipe(ModeTree.named("chain", 3), 3, device=device, **settings)
        swept = Fit(recipe, Sample(sample.index, sample.value, (9, 8, 7)), between)
        swept.run(3, 0.1, 0.0)
        wanted.append(swept.member().at(sample.index))
    assert torch.allclose(*wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("formulation", ["double-backward", "tangent"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16", "fp16"])
def test_networks(htf, tmp_path, precision, formulation):
    data = ("--task", "is-same-class", "--source", "digits", "--distance", 4, "--height", 8, "--width", 24)
    size = ("--train", 90, "--test", 60, "--model", "resnet-mini", "--batch-size", 20, "--epochs", 2)
    reg = ("--reg", "non-local", "--formulation", formulation)
    done = htf("train-cnn", *data, *size, *reg, "--precision", precision, "--device", "cuda", "-o", "run")
    assert done.code == 0, done.err
    assert f"{precision} on cuda" in done.err
    assert json.loads((tmp_path / "run/summary.json").read_text())["precision"] == precision
    assert all(0 < r["regularizer"] <= 1.001 for r in done.records)


def test_a_network_in_float64_is_that_of_the_cpu(htf):
    data = ("--task", "is-same-class", "--source", "digits", "--distance", 4, "--height", 8, "--width", 24)
    size = ("--train", 90, "--test", 60, "--model", "resnet-mini", "--batch-size", 20, "--epochs", 1)
    runs = [
        htf("train-cnn", *data, *size, "--reg", "non-local", "--dtype", "float64", "--device", device, "-o", device)
        for device in ("cpu", "cuda")
    ]
    for key in ("task_loss", "regularizer", "test_loss"):
        assert runs[1].records[0][key] == pytest.approx(runs[0].records[0][key], rel=1e-6)


def test_command(htf):
    htf("generate", "tensor", "--dim", 4, "-o", "data.safetensors")
    done = htf("fit", "data.safetensors", "--width", 4, "--iterations", 50, "--device", "cuda", "-o", "run")
    assert done.code == 0
    assert "on cuda" in done.err
    assert htf("measure-rank", "run").code == 0
