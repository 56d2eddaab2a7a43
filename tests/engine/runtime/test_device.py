from __future__ import annotations

import pytest
import torch

from htfcli.engine.runtime.device import captured, choose_device, describe_device, one_thread
from htfcli.errors import ConfigError


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_choice_without_a_gpu():
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError) as error:
        choose_device("cuda:1")
    assert (
        str(error.value) == "device cuda:1 is not available (got 0 CUDA devices, allowed auto, cpu). Use --device cpu."
    )


def test_choice_among_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert choose_device("auto") == choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"got 2 CUDA devices, allowed auto, cpu, cuda:0, cuda:1\)\.$"):
        choose_device("cuda:2")


def test_one_gpu_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ConfigError) as error:
        choose_device("cuda:0", processes=4)
    assert str(error.value) == (
        "--device cuda:0 would put every process on one GPU (got 4 processes). Use --device cuda: each takes its own."
    )
    assert choose_device("cuda", processes=4) == torch.device("cuda")


def test_threads():
    choose_device("cpu", 3)
    assert describe_device(torch.device("cpu")) == "cpu (3 threads)"
    with one_thread():
        assert describe_device(torch.device("cpu")) == "cpu (1 thread)"
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_nothing_is_captured_on_a_cpu():
    calls = []
    function = captured(lambda: calls.append(1), torch.device("cpu"))
    assert calls == []
    function()
    assert calls == [1]
