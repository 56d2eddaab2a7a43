from __future__ import annotations

import gzip
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.observations.observations import Observations
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.readers import Dense
from htfcli.files.inputs import load_observations, load_tensor, open_artefact, open_input
from htfcli.files.locating import locate
from htfcli.files.own.artefacts import save_factorization, save_observations
from htfcli.files.own.container import Artefact
from htfcli.files.own.records import Records
from htfcli.files.tables.table import Table
from tests.problems import generator


def model():
    return HierarchicalTensorFactorization((3, 4, 5), 2).init_gaussian(1.0, generator())


@pytest.fixture
def stdin(monkeypatch):
    """Put bytes on stdin."""

    def put(content):
        stream = io.TextIOWrapper(io.BytesIO(content))
        stream.isatty = lambda: False
        monkeypatch.setattr(sys, "stdin", stream)

    return put


def saved(function, *args):
    """The bytes that a function writes to the path it is given first."""
    path = Path("saved")
    function(path, *args)
    content = path.read_bytes()
    path.unlink()
    return content


# --- where an input is --------------------------------------------------------------------------------------------------


def test_locations(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((2, 2)))
    assert locate(f"{tmp_path}/a.npz").key == ""
    located = locate(f"{tmp_path}/a.npz#x")
    assert (located.path, located.name, located.key) == (tmp_path / "a.npz", f"{tmp_path}/a.npz#x", "x")
    save_factorization(tmp_path / "model.safetensors", model())
    located = locate(str(tmp_path))
    assert (located.path, located.name, located.is_container) == (tmp_path / "model.safetensors", str(tmp_path), True)
    (tmp_path / "model.safetensors").rename(tmp_path / "unnamed")
    assert locate(f"{tmp_path}/unnamed").is_container


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("nowhere.npy", "nowhere.npy does not exist."),
        ("nowhere.npz#x", "nowhere.npz#x does not exist."),
        ("folder", "folder has no model.safetensors. Is it the folder of a finished run?"),
        ("pipe", "pipe is not a file (got a pipe or a device). Pipe it in, with - as its name."),
        ("pipe#x", "pipe is not a file (got a pipe or a device). Pipe it in, with - as its name."),
    ],
)
def test_nothing_to_read(tmp_path, monkeypatch, argument, message):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    os.mkfifo("pipe")
    with pytest.raises(DataError) as error:
        open_input(argument)
    assert str(error.value) == message


# --- stdin --------------------------------------------------------------------------------------------------------------


def test_stdin_is_recognized_by_its_first_bytes(tmp_path, monkeypatch, stdin):
    monkeypatch.chdir(tmp_path)
    array = np.arange(6.0).reshape(2, 3)
    buffers = [io.BytesIO(), io.BytesIO(), io.BytesIO()]
    np.save(buffers[0], array)
    np.savez(buffers[1], x=array)
    torch.save(torch.from_numpy(array), buffers[2])
    for buffer in buffers:
        stdin(buffer.getvalue())
        opened = open_input("-")
        assert isinstance(opened, Dense) and opened.name == "stdin"
        assert opened.values.tolist() == array.tolist()
    stdin(b"0,0,1\n1,2,5\n")
    assert isinstance(open_input("-"), Table)
    stdin(b'{"kind": "iteration", "iteration": 0}\n')
    assert isinstance(open_input("-"), Records)
    stdin(saved(save_factorization, model()))
    opened = open_input("-")
    assert isinstance(opened, Artefact) and (opened.name, opened.kind) == ("stdin", "factorization")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "stdin is empty. Did the command before the pipe fail?"),
    ],
)
def test_stdin_that_cannot_be_used(stdin, content, message):
    stdin(content)
    with pytest.raises(DataError) as error:
        locate("-")
    assert str(error.value) == message


def test_compressed_text_from_stdin(stdin):
    stdin(gzip.compress(b"1 1 5\n2 1 6\n", mtime=0))
    opened = open_input("-")
    assert isinstance(opened, Table) and (opened.dims, opened.value.tolist()) == ((2, 1), [5, 6])


def test_a_terminal_is_no_input(monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(ConfigError, match="stdin is a terminal"):
        locate("-")


# --- what is in it ------------------------------------------------------------------------------------------------------


def test_tensors_of_every_kind(tmp_path):
    first = model()
    save_factorization(tmp_path / "m.safetensors", first)
    loaded = load_tensor(str(tmp_path / "m.safetensors"))
    assert torch.equal(loaded.parameters, first.parameters)
    index = torch.cartesian_prod(torch.arange(2), torch.arange(3))
    whole = Observations((2, 3), Entries(index, torch.arange(6.0, dtype=torch.float64)))
    save_observations(tmp_path / "o.safetensors", whole)
    assert load_tensor(str(tmp_path / "o.safetensors")).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert torch.equal(load_observations(str(tmp_path / "o.safetensors")).train.index, index)


def test_kinds_that_do_not_fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_factorization("m.safetensors", model())
    np.save("a.npy", np.ones((2, 2)))
    Path("r.jsonl").write_text('{"kind": "iteration", "iteration": 0}\n')
    for argument, got in (("m.safetensors", "factorization"), ("a.npy", "a tensor"), ("r.jsonl", "records")):
        with pytest.raises(DataError, match=rf"holds something else \(got {got}, allowed cnn or images\)\."):
            open_artefact(argument, "cnn", "images")
    assert open_artefact("m.safetensors", "factorization").kind == "factorization"
