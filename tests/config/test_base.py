from __future__ import annotations

import re
from typing import Literal

import pytest
import yaml
from pydantic import Field

from htfcli.config.base import (
    Config,
    Device,
    Dims,
    Distances,
    ModeSets,
    Tree,
    Widths,
    parse_assignments,
    parse_mode_sets,
    parse_yaml,
    read_yaml_mapping,
)
from htfcli.errors import ConfigError


class Settings(Config):
    """A setting of every type."""

    width: Widths | None = Field(None)
    tree: Tree = Field("balanced")
    dims: Dims | None = Field(None)
    distance: Distances = Field([0])
    matricization: ModeSets = Field([])
    device: Device = Field("auto")
    learning_rate: float = Field(0.1, gt=0)
    loss: Literal["l2", "huber"] = Field("l2")


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("width", "8", 8), ("width", "8, 16", [8, 16]), ("width", "{'{0,1}': 8, default: 4}", {"{0,1}": 8, "default": 4}),
        ("width", 3, 3), ("width", {1: 2}, {"1": 2}),
        ("tree", "chain", "chain"), ("tree", "[[0, 1], 2]", [[0, 1], 2]),
        ("dims", "3,4", [3, 4]), ("dims", [3, 4, 5], [3, 4, 5]),
        ("distance", "8", [8]), ("distance", "0,8", [0, 8]),
        ("matricization", "0,2", [[0, 2]]), ("matricization", ["0,2", "{1}"], [[0, 2], [1]]), ("matricization", [[0, 2], 1], [[0, 2], [1]]),
        ("device", "cuda:1", "cuda:1"), ("learning_rate", "1e-3", 1e-3),
    ],
)  # fmt: skip
def test_values_from_text_and_yaml(name, given, value):
    assert getattr(Settings.checked({name: given}), name) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": "x"}, "width: not a width (got 'x', allowed 32, or 8,16 per level, or per node as {'{0,1}': 8, default: 4})."),
        ({"width": True}, "width: not a width (got True, "),
        ({"tree": 3}, "tree: not a mode tree (got 3, allowed a name, or nested lists as [[0, 1], [2, 3]])."),
        ({"dims": "5"}, "dims: not dimensions (got '5', allowed two or more positive numbers, as 13,4,12,8)."),
        ({"dims": "5,0"}, "dims: not dimensions (got '5,0', "),
        ({"distance": "-1"}, "distance: not distances (got '-1', allowed e.g. 0,8,16)."),
        ({"matricization": "a"}, "matricization: not sets of modes (got 'a', allowed e.g. 0,2, or in YAML [[0, 2], [1]])."),
        ({"device": "gpu"}, "device: not a device (got 'gpu', allowed auto, cpu, cuda or cuda:N)."),
        ({"learning_rate": float("nan")}, "learning-rate: input should be a finite number (got nan)."),
        ({"loss": "hubr"}, "loss: input should be 'l2' or 'huber' (got 'hubr') (Did you mean huber?)."),
        ({"rate": 0.1}, "unknown setting rate (Did you mean learning-rate?)."),
        ({"lr": 0.1, "device": "gpu"}, "2 problems: device: not a device (got 'gpu', allowed auto, cpu, cuda or cuda:N); unknown setting lr"),
    ],
)  # fmt: skip
def test_problems(values, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        Settings.checked(values)


def test_sources_override_each_other(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("learning-rate: 0.5\nloss: huber\ndevice: cpu\n")
    config = Settings.resolve({"device": "cuda"}, ["loss=l2", "learning-rate=0.25", "device=cpu"], str(path))
    assert (config.device, config.loss, config.learning_rate, config.tree) == ("cuda", "l2", 0.25, "balanced")
    assert config.changed("device", "loss", "learning_rate", "tree") == ["device", "learning-rate"]


def test_yaml_there_and_back(tmp_path):
    config = Settings(width={"{0,1}": 8, "default": 4}, tree=[[0, 1], 2], matricization=[[0, 2]], learning_rate=1e-3)
    (tmp_path / "s.yaml").write_text(config.to_yaml())
    assert Settings.resolve({}, [], str(tmp_path / "s.yaml")) == config


def test_assignments():
    assert parse_assignments(["lr = 0.01", "weight-norms=true", "a==b"]) == {
        "lr": 0.01,
        "weight_norms": True,
        "a": "=b",
    }
    with pytest.raises(ConfigError, match=re.escape("--set takes key=value (got 'lr', allowed e.g. --set lr=0.01).")):
        parse_assignments(["lr"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "x is not valid YAML at line 1, column 6: "),
        ("!!python/object/apply:os.system [true]", "x is not valid YAML at line 1, column 1: could not determine a constructor"),
        ("a: 2024-99-99", "x is not valid YAML: month must be in 1..12"),
        ("[" * 100_000, "x is nested too deeply"),
        ("&a [*a]", "x has too many values (got an alias inside itself, allowed 200000 values)."),
        pytest.param(f"[{', '.join(['0'] * 200_000)}]", "x has too many values (got 200001 values, ", marks=pytest.mark.long),
        ("a: &a [0,0,0,0,0,0,0,0,0,0]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n", "x has too many values (got "),
    ],
)  # fmt: skip
def test_yaml_that_is_refused(text, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        parse_yaml(text, "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "the configuration s.yaml is not UTF-8 text."),
        (b"- 1\n", "s.yaml does not contain settings (got list, allowed key: value lines)."),
        (b"# " + b"x" * 2**20, "s.yaml is too large for a configuration (allowed at most 1 MiB)."),
    ],
)
def test_files_that_are_no_settings(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read_yaml_mapping("s.yaml")


def test_files_without_settings(tmp_path):
    (tmp_path / "s.yaml").write_text("# nothing\n")
    assert read_yaml_mapping(str(tmp_path / "s.yaml")) == {}
    with pytest.raises(ConfigError, match=r"^cannot read the configuration nowhere: No such file or directory\.$"):
        read_yaml_mapping("nowhere")


def test_mode_sets_of_other_things():
    assert parse_mode_sets("0,x") is None
    assert parse_mode_sets([[]]) is None
    assert parse_mode_sets(True) is None


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Settings().device = "cpu"
    assert yaml.safe_load(Settings().to_yaml())["device"] == "auto"
