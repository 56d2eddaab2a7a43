from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from htfcli.config.vision import TrainCnnConfig
from htfcli.engine.vision.datasets.image_set import ImageData, Normalization, StoredImages
from htfcli.errors import ConfigError, DataError
from htfcli.files.networks import (
    build_network,
    load_weights,
    outputs_of,
    save_network,
    to_network,
    user_network,
)
from htfcli.files.own import container
from htfcli.files.weights import read_weights
from tests.files.own.tampering import tamper

SHAPE = (1, 8, 12)
MINI = TrainCnnConfig(model="resnet-mini", widths=[4, 8], blocks=[1, 1], seed=3)
OWN = """
import torch
from torch import nn


class Open:
    def __reduce__(self):
        return (open, ("owned", "w"))


def good(channels, outputs):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))


def raises(channels, outputs):
    raise RuntimeError("no such layer\\nmore")


def returns_text(channels, outputs):
    return "network"


def wrong_outputs(channels, outputs):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs + 1))
"""


def data(classes=("a", "b", "c"), task="images"):
    normalization = Normalization(torch.zeros(1), torch.ones(1))
    images = StoredImages(torch.zeros(4, *SHAPE, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), normalization)
    return ImageData(task, classes, images, images, {})


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's module in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("own_networks.py").write_text(OWN)
    sys.modules.pop("own_networks", None)  # of another test
    yield
    sys.modules.pop("own_networks", None)


def test_the_seed_determines_the_weights():
    before = torch.get_rng_state()
    one, same = build_network(MINI, SHAPE, 3), build_network(MINI, SHAPE, 3)
    other = build_network(MINI.model_copy(update={"seed": 4}), SHAPE, 3)
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.linspace(0, 1, 2 * 8 * 12).view(2, *SHAPE)
    with torch.no_grad():
        outputs = [network.eval()(images) for network in (one, same, other)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_outputs():
    assert outputs_of(data()) == 3
    assert outputs_of(data(("no", "yes"), "pathfinder")) == 1


def test_there_and_back(tmp_path):
    model = build_network(MINI, SHAPE, 3)
    save_network(tmp_path / "n.safetensors", model, data(), "images.npy", MINI.model_dump(mode="json"))
    saved = to_network(container.read(tmp_path / "n.safetensors", "n"))
    assert (saved.name, saved.config, saved.shape, saved.data) == ("n", MINI, SHAPE, "images.npy")
    assert not saved.model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(saved.model.state_dict()[name], tensor)


def test_only_the_user_can_have_their_network_built(tmp_path, own):
    config = TrainCnnConfig(model="own_networks:good")
    save_network(
        tmp_path / "n.safetensors", build_network(config, SHAPE, 3), data(), None, config.model_dump(mode="json")
    )
    artefact = container.read(tmp_path / "n.safetensors", "n")
    for user, got in ((None, "no --model"), ("other:net", "--model other:net")):
        message = f"n is a network that only your own code can build (got {got}, allowed --model own_networks:good)."
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            to_network(artefact, user)
    assert isinstance(to_network(artefact, "own_networks:good").model, nn.Sequential)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing_here:net", "cannot import nothing_here:net: ModuleNotFoundError: No module named 'nothing_here'."),
        ("own_networks:nothing", "cannot import own_networks:nothing: AttributeError: module 'own_networks' has no attribute 'nothing'."),
        ("own_networks:raises", "own_networks:raises does not build a network for these images: RuntimeError: no such layer."),
        ("own_networks:returns_text", "own_networks:returns_text does not build a network for these images: TypeError: it returned a str, not a torch.nn.Module."),
        ("own_networks:wrong_outputs", "own_networks:wrong_outputs does not build a network for these images: ValueError: it gives outputs of shape (2, 4), not (2, 3), for two images."),
    ],
)  # fmt: skip
def test_functions_that_build_no_network(own, function, message):
    with pytest.raises(ConfigError) as error:
        user_network(function, SHAPE, 3)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content": '{"task": "images"}'}, "n is damaged: its description of the cnn is malformed."),
        ({"config": '{"model": "resnet9"}'}, "n is damaged: "),
        ({"tensors": {"a": torch.zeros(1)}}, "the weights in n do not fit the network: "),
    ],
)
def test_damaged_files(tmp_path, change, message):
    path = tmp_path / "n.safetensors"
    save_network(path, build_network(MINI, SHAPE, 3), data(), None, MINI.model_dump(mode="json"))
    config = container.read(path).config
    tamper(path, **{"config": json.dumps(config), **change})
    with pytest.raises(DataError) as error:
        to_network(container.read(path, "n"))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_weights(tmp_path):
    network = nn.Linear(2, 1)
    torch.save(network.state_dict(), tmp_path / "w.pt")
    other = nn.Linear(2, 1)
    load_weights(other, read_weights(str(tmp_path / "w.pt")), "w")
    assert torch.equal(other.weight, network.weight)
    load_weights(other, {name: tensor.double() for name, tensor in network.state_dict().items()}, "w")
    assert other.weight.dtype == torch.float64
    with pytest.raises(DataError, match="the weights in w do not fit the network: "):
        load_weights(nn.Linear(3, 1), network.state_dict(), "w")
