"""Files with code in them: no pickle is loaded, no YAML tag builds an object, and no file names what is imported."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.faults.fuzzing import command
from tests.faults.specimens import CNN, PAIRS


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_the_payload_works(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["x.pt", "x.npy", "x.npz", "x.safetensors", "x.parquet", "x.mat", "x", "x.jsonl"])
@pytest.mark.parametrize(
    "argv", ["inspect {}", "fit {} -o r", "measure-rank {}", "complete {} -o out.npy", "measure-locality {}"]
)
def test_nothing_is_unpickled(refused, tmp_path, name, argv):
    payload = Payload(tmp_path / "marker")
    if name == "x.npy":
        np.save(tmp_path / name, np.array([[payload, payload]], dtype=object), allow_pickle=True)
    elif name == "x.npz":
        np.savez(tmp_path / name, a=np.array([[payload, payload]], dtype=object), allow_pickle=True)
    elif name == "x.pt":
        torch.save({"a": payload}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(payload))
    before = set(tmp_path.iterdir())
    refused(*argv.format(name).split())
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("option", ["--mask {}", "--predict {}"])
@pytest.mark.parametrize("name", ["x.pt", "x.npy"])
def test_nothing_is_unpickled_beside_the_data(refused, tmp_path, name, option):
    np.save(tmp_path / "data.npy", np.ones((3, 3)))
    payload = Payload(tmp_path / "marker")
    if name == "x.pt":
        torch.save(payload, tmp_path / name)
    else:
        np.save(tmp_path / name, np.array([[payload]], dtype=object), allow_pickle=True)
    refused("complete", "data.npy", "-o", "out.npy", *option.format(name).split())
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "text",
    [
        "width: !!python/object/apply:os.system ['touch marker']",
        "!!python/name:os.system",
        "width: !<tag:yaml.org,2002:python/module:os> x",
    ],
)
@pytest.mark.parametrize(
    "argv", ["fit data.csv --config x.yaml -o r", "sweep x.yaml -o s", "train-cnn --config x.yaml -o r"]
)
def test_yaml_builds_no_objects(refused, tmp_path, text, argv):
    (tmp_path / "x.yaml").write_text(text)
    assert "could not determine a constructor" in refused(*argv.split())
    assert not (tmp_path / "marker").exists()


def test_a_file_cannot_ask_for_code(refused, tmp_path):
    """Neither a network's file nor a checkpoint: only the command line names module:function."""
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\nPath('marker').touch()\ndef build(c, k): return None\n"
    )
    (tmp_path / "pairs.safetensors").write_bytes(PAIRS(tmp_path))
    code, _ = command(tmp_path, *map(str, CNN), "-q", "-o", "run")
    assert code == 0
    for name in ("model", "checkpoint"):
        file = tmp_path / "run" / f"{name}.safetensors"
        data = file.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        header["__metadata__"]["htf.config"] = json.dumps(
            {**json.loads(header["__metadata__"]["htf.config"]), "model": "evil:build", "widths": None, "blocks": None}
        )
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    for argv in ("measure-locality run", "train-cnn --resume -o run"):
        assert "only your own code can build (got no --model, allowed --model evil:build)" in refused(*argv.split())
    assert not (tmp_path / "marker").exists()


def test_the_help_says_what_code_is_run(capsys):
    from htfcli.app import main

    for name in ("train-cnn", "measure-locality"):
        assert main([name, "--help"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "module:function" in said
        assert "the only way in which htf runs a user's code" in said
