from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from htfcli.engine.vision.resnet import resnet
from htfcli.errors import DataError
from htfcli.files.weights import read_weights, start_from, without_prefixes


def network(outputs: int = 3, channels: int = 1) -> nn.Module:
    return resnet("resnet-mini", channels, outputs, widths=(4, 8), blocks=(1, 1))


def same(model, weights):
    return all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())


class Evil:
    """What unpickling would create a file of."""

    def __reduce__(self):
        return (open, ("owned", "w"))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module."])
@pytest.mark.parametrize("within", [None, "state_dict", "model_state_dict", "model"])
def test_files_of_other_trainings(tmp_path, prefix, within):
    torch.manual_seed(0)
    weights = network().state_dict()
    renamed = OrderedDict((prefix + name, tensor) for name, tensor in weights.items())
    file = tmp_path / "w.pth"
    torch.save(renamed if within is None else {"epoch": 3, within: renamed, "optimizer": {"lr": 0.1}}, file)
    model = network()
    assert not same(model, weights)
    assert start_from(model, read_weights(str(file)), "w") == []
    assert same(model, weights)


def test_safetensors_and_run_folders(tmp_path):
    weights = network().state_dict()
    (tmp_path / "run").mkdir()
    save_file(weights, tmp_path / "run/model.safetensors")
    for path in ("run", "run/model.safetensors"):
        model = network()
        assert start_from(model, read_weights(str(tmp_path / path)), path) == []
        assert same(model, weights)


def test_our_own_checkpoints(tmp_path):
    """The network's weights are among the optimizer's state and counters."""
    weights = network().state_dict()
    save_file({**{f"model.{k}": v for k, v in weights.items()}, "optimizer.0.momentum_buffer": torch.zeros(2),
               "counters": torch.zeros(3)}, tmp_path / "c.safetensors")  # fmt: skip
    model = network()
    assert start_from(model, read_weights(str(tmp_path / "c.safetensors")), "c") == []
    assert same(model, weights)


def test_a_network_that_has_the_names_of_a_wrapper():
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.net = nn.Linear(2, 2), nn.Linear(2, 1)

    weights = Wrapped().state_dict()
    assert without_prefixes(weights, Wrapped()) == weights
    assert without_prefixes({f"module.{k}": v for k, v in weights.items()}, Wrapped()) == weights


def test_another_head_is_new_as_a_whole():
    """More classes, so another shape; the bias, too, stays that of the new head."""
    before, model = network(10).state_dict(), network(1)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert start_from(model, before, "w") == ["fc.weight", "fc.bias"]
    body = {name: tensor for name, tensor in before.items() if not name.startswith("fc.")}
    assert same(model, body)
    assert same(model, {name: own[name] for name in ("fc.weight", "fc.bias")})


def test_a_head_of_another_name_or_none():
    before, model = network().state_dict(), network()
    body = {name: tensor for name, tensor in before.items() if not name.startswith("fc.")}
    other = {"head.weight": before["fc.weight"], "head.bias": before["fc.bias"]}
    for weights in (body, {**body, **other}):
        assert start_from(model, weights, "w") == ["fc.weight", "fc.bias"]
        assert same(model, body)


def test_files_without_counters_and_of_other_precision():
    before, model = network().state_dict(), network()
    weights = {k: v.double() for k, v in before.items() if not k.endswith("num_batches_tracked")}
    assert start_from(model, weights, "w") == []
    assert same(model, {k: before[k] for k in weights})
    assert model.fc.weight.dtype == torch.float32


def test_weights_that_do_not_fit():
    names = network().state_dict()
    missing = {k: v for k, v in names.items() if k != "conv1.weight"}
    for weights, message in (
        (missing, "w does not fit the network at conv1.weight (got nothing, allowed [4, 1, 3, 3])."),
        (network(channels=3).state_dict(), "w does not fit the network at conv1.weight (got [4, 3, 3, 3], allowed [4, 1, 3, 3])."),
        ({"layer9.0.conv1.weight": torch.zeros(1), **names}, "w has weights that the network lacks (got layer9.0.conv1.weight)."),
        ({"a": torch.zeros(1), "b": torch.zeros(2)}, "w has no weights of this network (got a, b, allowed conv1.weight, bn1.weight, bn1.bias)."),
    ):  # fmt: skip
        model = network()
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(DataError) as error:
            start_from(model, weights, "w")
        assert str(error.value) == message
        assert same(model, own)


def test_weights_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), "evil.pt")
    torch.save([1, 2], "list.pt")
    torch.save({"epoch": 3, "lr": 0.1}, "none.pt")
    torch.save({}, "empty.pt")
    Path("bytes.pt").write_bytes(b"\x00" * 40)
    Path("bytes.safetensors").write_bytes(b"\x00" * 40)
    Path("folder").mkdir()
    for path, message in (
        ("evil.pt", "cannot read the weights evil.pt: UnpicklingError"),
        ("list.pt", "list.pt does not contain a state dict (got list, allowed names and tensors)."),
        (
            "none.pt",
            "none.pt does not contain a state dict (got a dictionary of epoch, lr, allowed names and tensors).",
        ),
        ("empty.pt", "empty.pt does not contain a state dict (got an empty dictionary, allowed names and tensors)."),
        ("bytes.pt", "cannot read the weights bytes.pt: "),
        ("bytes.safetensors", "cannot read the weights bytes.safetensors: "),
        ("nowhere.safetensors", "nowhere.safetensors does not exist."),
        ("folder", "folder has no model.safetensors."),
    ):
        with pytest.raises(DataError) as error:
            read_weights(path)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)
    assert not Path("owned").exists()
