"""Training, fits and completion on a pretended GPU: no mixed devices, no waits in a step, the numbers of the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from htfcli.config.completion import CompleteConfig
from htfcli.config.images import IsSameClassConfig
from htfcli.config.tensors import FitConfig, TargetConfig
from htfcli.config.vision import TrainCnnConfig
from htfcli.engine.completion.complete import complete
from htfcli.engine.completion.links import Link
from htfcli.engine.completion.members import Fit, Recipe
from htfcli.engine.completion.splits import Sample
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.fitting.fit import fit
from htfcli.engine.observations.synthetic import make_observations
from htfcli.engine.samples import Entries
from htfcli.engine.vision.datasets.is_same_class import make_is_same_class
from htfcli.engine.vision.locality import LocalityMeter
from htfcli.engine.vision.resnet import resnet
from htfcli.engine.vision.training import Training
from tests.pretended_cuda import GPU, MixedDevicesError, pretended_cuda

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs():
    return make_is_same_class(IsSameClassConfig(source="digits", distance=4, height=8, width=24, train=40, test=30))


# --- the pretence itself ----------------------------------------------------------------------------------------------


def test_devices():
    with pretended_cuda() as log:
        x = torch.ones(3, device="cuda")
        layer = nn.Linear(3, 2).to(GPU)
        assert x.device == layer.weight.device == layer(x).device == (x + 1)[:2].device == GPU
        assert x.is_cuda and not torch.ones(3).is_cuda
        assert (x + torch.tensor(2.0)).device == GPU  # a number of the host may go anywhere
        log.waits.clear()
        layer(x).sum().backward()
        assert layer.weight.grad.device == GPU
        assert log.waits == []


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x + torch.arange(3),
        lambda x: torch.cat([x, torch.zeros(3)]),
        lambda x: torch.zeros(3).index_add_(0, torch.arange(3), x),
        lambda x: nn.functional.linear(x, torch.ones(2, 3)),
        lambda x: torch.rand(3, device="cuda", generator=torch.Generator()),
        lambda x: x.numpy(),
        lambda x: x.index_put_((torch.arange(2, device="cuda"),), torch.zeros(2)),
    ],
)
def test_mixed_devices_are_refused(mistake):
    with pretended_cuda():
        x = torch.ones(3, device="cuda")
        with pytest.raises(MixedDevicesError):
            mistake(x)


@pytest.mark.parametrize(
    ("waits", "what"),
    [
        (lambda x: float(x.sum()), "_local_scalar_dense"),
        (lambda x: bool((x > 0).all()), "_local_scalar_dense"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.cpu(), "copy from cuda to cpu"),
        (lambda x: torch.zeros(3).to(x), "copy from cpu to cuda"),
        (lambda x: torch.zeros(3).to("cuda", non_blocking=True), "copy from cpu to cuda"),  # of pageable memory
        (lambda x: x.copy_(torch.zeros(3)), "copy from cpu to cuda"),
        (lambda x: x[x > 0], "index by a mask"),
        (lambda x: x[torch.arange(2)], "index by an index of the CPU"),
        (lambda x: x.new_tensor([1.0]), "new_tensor from the host"),
        (lambda x: torch.tensor([1.0], device=x.device), "tensor from the host"),
        (lambda x: torch.nonzero(x), "nonzero"),
        (lambda x: torch.bincount(x.long()), "bincount"),
        (lambda x: torch.linalg.cholesky(torch.diag(x)), "_linalg_check_errors"),
    ],
)
def test_waits_are_listed(waits, what):
    with pretended_cuda() as log:
        x = torch.ones(3, device="cuda")
        waits(x)
        assert [wait.split(" at ")[0] for wait in log.waits] == [what]


@pytest.mark.parametrize(
    "free",
    [
        lambda x: torch.zeros(3).pin_memory().to("cuda", non_blocking=True),
        lambda x: x.new_full((2,), 3.0),
        lambda x: torch.linalg.cholesky_ex(torch.diag(x)),
        lambda x: x.index_select(0, torch.arange(2, device="cuda")).to(torch.float64),
    ],
)
def test_what_does_not_wait(free):
    with pretended_cuda() as log:
        assert log.waits == []
        free(torch.ones(3, device="cuda"))
        assert log.waits == []


# --- training ---------------------------------------------------------------------------------------------------------


def training_on(device, pairs, **settings):
    config = TrainCnnConfig.checked(
        {"model": "resnet-mini", "widths": [4, 8], "blocks": [1, 1], "batch_size": 20, "epochs": 1, "dtype": "float64"}
        | settings
    )
    torch.manual_seed(0)
    model = resnet("resnet-mini", 1, 1, **config.mini_shape)
    return Training(model, pairs, config, device)


SETTINGS = [
    {},
    {"optimizer": "adam", "lr": 0.01, "channels_last": True},
    {"reg": "non-local"},
    {"reg": "non-local", "formulation": "tangent"},
    {"reg": "non-local", "patch_size": 2, "accumulate": 2},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_training_is_that_of_the_cpu(pairs, settings):
    wanted = list(training_on(CPU, pairs, **settings).run())
    with pretended_cuda():
        training = training_on(GPU, pairs, **settings)
        assert all(tensor.device == GPU for tensor in training.model.state_dict().values())
        found = list(training.run())
    for a, b in zip(found, wanted, strict=True):
        speed = {"images_per_second": None}
        assert a | speed == pytest.approx(b | speed)


@pytest.mark.parametrize(
    ("settings", "stored"), [*((s, "on the device") for s in SETTINGS), (SETTINGS[-1], "on the CPU")], ids=str
)
def test_the_host_waits_for_nothing_in_a_step(pairs, settings, stored, monkeypatch):
    """Nor where the images do not fit on the device: they come from pinned memory."""
    if stored == "on the CPU":
        monkeypatch.setattr("htfcli.engine.vision.training.settled", lambda images, device: images)
    with pretended_cuda() as log:
        training = training_on(GPU, pairs, **settings)
        batches = training._batches()
        log.waits.clear()
        training._learn(batches[0])
        assert log.waits == []


def test_a_mistake_in_a_network_is_caught(pairs):
    class OnTheCpu(nn.Module):
        def forward(self, x):
            return x.mean(dim=(1, 2, 3))[:, None] * torch.ones(len(x), 1, dtype=x.dtype)

    class Waits(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 1))

        def forward(self, x):
            return x.mean(dim=(1, 2, 3))[:, None] @ self.weight * (2 if x.sum() > 0 else 1)

    config = TrainCnnConfig(batch_size=20)
    with pretended_cuda() as log:
        with pytest.raises(MixedDevicesError, match="mul of tensors on cpu and cuda"):
            Training(nn.Sequential(nn.Conv2d(1, 1, 1), OnTheCpu()), pairs, config, GPU)._learn(
                torch.arange(20, device=GPU)
            )
        training = Training(Waits(), pairs, config, GPU)
        log.waits.clear()
        training._learn(torch.arange(20, device=GPU))
        assert [wait.split(" at ")[0] for wait in log.waits] == ["_local_scalar_dense"]


def test_locality_is_that_of_the_cpu(pairs):
    torch.manual_seed(0)
    model = resnet("resnet-mini", 1, 1).double()
    wanted = LocalityMeter(model, pairs.test, pairs=2, samples=8).at_images(pairs.test)
    with pretended_cuda():
        found = LocalityMeter(model.to(GPU), pairs.test, pairs=2, samples=8).at_images(pairs.test)
    assert found.pop("singular_values") == pytest.approx(wanted.pop("singular_values"))
    assert found == pytest.approx(wanted)


# --- factorizations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"task": "sensing"},
        {"optimizer": "adam", "loss": "huber"},
        {"optimizer": "sgd", "momentum": 0.9, "batch_size": 20},
        {"solver": "second-order", "loss": "l1", "iterations": 3},
    ],
    ids=str,
)
def test_fits_are_those_of_the_cpu(settings):
    settings = dict(settings)
    task = settings.pop("task", "completion")
    observations = make_observations(TargetConfig(order=4, dim=3, rank=2, task=task, observed="60"))
    fits = []
    for device in ("cpu", "cuda"):
        config = FitConfig(
            **{"width": 3, "dtype": "float64", "iterations": 6, "record_every": 3, "device": device} | settings
        )
        with pretended_cuda():
            fits.append([r["train_loss"] for r in fit(observations, config)[1]])
    assert fits[1] == pytest.approx(fits[0], rel=1e-9)


RECIPES = [
    (Recipe(ModeTree.named("star", 3), 4), {}),
    (Recipe(ModeTree.named("chain", 3), 3, loss="huber", centre="effects"), {}),
    (Recipe(ModeTree.named("chain", 3), 3, link=Link("log", noise=1.0), centre="effects"), {}),
    (Recipe(ModeTree.named("balanced", 3), 3, smooth=1.0), {0: torch.ones(8, dtype=torch.float64)}),
]


@pytest.mark.parametrize(("recipe", "between"), RECIPES, ids=["star", "huber", "log", "smooth"])
@pytest.mark.parametrize("block", [2**22, 2**6], ids=["", "in blocks"])
def test_wide_factorizations_are_those_of_the_cpu(recipe, between, block, monkeypatch):
    """The sweeps of `htf complete --device cuda`."""
    monkeypatch.setattr("htfcli.engine.completion.wide.BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    dims = (9, 8, 7)
    index = torch.cartesian_prod(*map(torch.arange, dims))[torch.randperm(504, generator=generator)[:300]]
    value = torch.poisson(4 * torch.rand(300, generator=generator, dtype=torch.float64), generator=generator)
    weight = torch.rand(300, generator=generator, dtype=torch.float64)
    sample, wanted = Sample(index, value, dims, weight), []
    for device in ("cpu", "cuda"):
        with pretended_cuda() as log:
            fit = Fit(replace(recipe, device=device), sample, between)
            fit.run(3, 0.1, 0.0)
            fit.restore(fit.member().model)
            fit.run(1, 0.1, 0.0)
            assert bool(log.waits) == (device == "cuda")
            member = fit.member()
            assert member.model.parameters.device == CPU
        wanted.append((fit.train_error, member.at(index)))
    assert wanted[1][0] == pytest.approx(wanted[0][0], rel=1e-9)
    torch.testing.assert_close(wanted[1][1], wanted[0][1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("asked", "used"), [("auto", "cpu"), ("cpu", "cpu"), ("cuda", "cuda")])
def test_completion_takes_the_gpu_only_when_asked(asked, used, monkeypatch):
    """The sweeps, which are what it can do there; `auto` will take it where it is measured to be faster."""

    class ReachedError(Exception):
        pass

    def seen(recipe, *args, **more):
        raise ReachedError(recipe.device)

    monkeypatch.setattr("htfcli.engine.completion.training.Fit", seen)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    entries = Entries(torch.cartesian_prod(torch.arange(8), torch.arange(9)), torch.rand(72, dtype=torch.float64))
    with pytest.raises(ReachedError, match=f"^{used}$"):
        complete(entries, (8, 9), CompleteConfig(device=asked))
