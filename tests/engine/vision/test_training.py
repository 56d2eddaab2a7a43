from __future__ import annotations

import pytest
import torch

from htfcli.config.images import IsSameClassConfig
from htfcli.config.vision import TrainCnnConfig
from htfcli.engine.vision.datasets.is_same_class import make_is_same_class
from htfcli.engine.vision.locality import LocalityMeter
from htfcli.engine.vision.regularizer.non_local import NonLocalRegularizer
from htfcli.engine.vision.resnet import resnet
from htfcli.engine.vision.training import Training


@pytest.fixture(scope="module")
def pairs():
    return make_is_same_class(IsSameClassConfig(source="digits", distance=16, height=8, width=40, train=256, test=256))


def trained(pairs, reg: str, seed: int) -> torch.nn.Module:
    config = TrainCnnConfig.checked(
        {"model": "resnet-mini", "optimizer": "adam", "lr": 0.004, "epochs": 5, "seed": seed, "reg": reg}
        | ({"reg_coeff": 1.0} if reg == "non-local" else {})
    )
    torch.manual_seed(seed)
    model = resnet("resnet-mini", 1, 1)
    for _ in Training(model, pairs, config, torch.device("cpu")).run():
        pass
    return model


@pytest.mark.parametrize(
    ("settings", "sizes"), [({}, {51, 52}), ({"compile": True}, {51}), ({"compile": True, "accumulate": 2}, {50})]
)
def test_compiled_batches_have_one_size(pairs, settings, sizes, monkeypatch):
    """A compiler makes a program for every size; what is left over differs from epoch to epoch."""
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    config = TrainCnnConfig.checked({"model": "resnet-mini", "batch_size": 60} | settings)
    training = Training(resnet("resnet-mini", 1, 1), pairs, config, torch.device("cpu"))
    rows = []
    for training.epoch in (0, 1):
        batches = training._batches()
        assert {len(batch) for batch in batches} == sizes
        assert {len(p) for b in batches for p in b.tensor_split(config.accumulate)} == {
            s // config.accumulate for s in sizes
        }
        rows.append(torch.cat(batches))
        assert len(rows[-1].unique()) == len(rows[-1])
    assert len(pairs.train) - len(rows[0]) < len(batches) * config.accumulate
    assert not torch.equal(*rows)


def test_float16_learns_as_float32_does(pairs):
    """One step: the scale of losses and logits leaves the gradients as they are."""
    moved = {}
    for precision in ("float32", "bf16", "fp16"):
        config = TrainCnnConfig.checked(
            {"model": "resnet-mini", "lr": 1.0, "momentum": 0.0, "reg": "non-local", "precision": precision}
        )
        torch.manual_seed(0)
        model = resnet("resnet-mini", 1, 1)
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        training = Training(model, pairs, config, torch.device("cpu"))
        training._learn(training._batches()[0])
        moved[precision] = torch.cat([p.detach().flatten() for p in model.parameters()]) - before
    size = {name: float(value.norm()) for name, value in moved.items()}
    assert size["fp16"] == pytest.approx(size["float32"], rel=0.1)
    turned = {name: float(torch.cosine_similarity(moved[name], moved["float32"], 0)) for name in ("bf16", "fp16")}
    assert turned["bf16"] < turned["fp16"]
    assert turned["fp16"] > 0.8  # 0.97 here


@pytest.mark.parametrize("seed", range(3))
def test_the_regularizer_makes_the_network_depend_on_both_images(pairs, seed):
    """What holds on every processor, unlike a gain in accuracy: from the same weights on the same batches, R is lower and
    the measured dependence between the two images higher than after plain training.

    Measured over six seeds: R lower by 0.14 to 0.25, dependence 5 to 40 times as high.
    """
    penalty, dependence = {}, {}
    for reg in ("none", "non-local"):
        model = trained(pairs, reg, seed)
        rows = torch.arange(128)
        with torch.no_grad():
            regularizer = NonLocalRegularizer(pairs.train.patches)
            penalty[reg] = regularizer(model.train(), pairs.train.images(rows), pairs.train.labels[rows]).item()
        dependence[reg] = LocalityMeter(model, pairs.test, pairs=4, samples=64).at_images(pairs.test)["dependence"]
    assert penalty["non-local"] < penalty["none"] - 0.05
    assert dependence["non-local"] > 2 * dependence["none"]
