from __future__ import annotations

import resource

import numpy as np
import pytest
import torch

from htfcli.engine.runtime import memory
from htfcli.engine.runtime.memory import available_memory, is_out_of_memory, refuse_unless_fits, requested_bytes
from htfcli.errors import DataError


def test_what_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
    refuse_unless_fits("the tensor", 2**20, "shape [4]")
    with pytest.raises(DataError) as error:
        refuse_unless_fits("the tensor", 3 * 2**30, "shape [4]", "Use less.")
    assert str(error.value) == "the tensor does not fit in memory (got shape [4]: 3 GiB, allowed 1 MiB). Use less."
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    refuse_unless_fits("the tensor", 2**60, "shape [4]")


def test_the_smallest_limit_counts(monkeypatch):
    for name, size in (("_machine", 300), ("_container", None), ("_limits", 200)):
        monkeypatch.setattr(memory, name, lambda size=size: size)
    assert available_memory() == 200
    monkeypatch.setattr(memory, "_limits", lambda: -5)
    assert available_memory() == 0
    for name in ("_machine", "_limits"):
        monkeypatch.setattr(memory, name, lambda: None)
    assert available_memory() is None


def test_limits_of_container_and_process(monkeypatch):
    files = {"/sys/fs/cgroup/memory.max": "1000\n", "/sys/fs/cgroup/memory.current": "400\n"}
    monkeypatch.setattr(memory, "_read", lambda path, parse: parse(files[path]) if path in files else None)
    assert memory._container() == 600
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (5000 if kind == resource.RLIMIT_AS else -1, -1))
    assert memory._limits() == 5000
    files["/proc/self/status"] = "VmSize:\t   2 kB\nVmData:\t   1 kB\n"
    assert memory._limits() == 5000 - 2048


def test_a_file_without_a_number_is_no_limit(tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._read(str(tmp_path / "memory.max"), int) is None
    assert memory._read(str(tmp_path / "none"), int) is None


def test_errors_of_memory():
    with pytest.raises(MemoryError) as refused:
        np.empty(2**60, dtype=np.int8)
    assert is_out_of_memory(refused.value)
    assert requested_bytes(refused.value) == "1.00 EiB"
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.int8)
    assert is_out_of_memory(refused.value)
    assert "TiB" in requested_bytes(refused.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert requested_bytes(RuntimeError("shape mismatch")) == ""
