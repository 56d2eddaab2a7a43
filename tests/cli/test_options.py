from __future__ import annotations

from typing import Literal

import pytest
import typer
from pydantic import Field

from htfcli.cli.options import FormatOption, with_config
from htfcli.config.base import Config, ModeSets, Tree, Widths


class Settings(Config):
    """One setting for every kind of option."""

    data: str | None = Field(None, description="Left to the command.")
    width: Widths | None = Field(None, description="Set the width.")
    tree: Tree = Field("balanced", description="Use this tree.")
    loss: Literal["l2", "huber"] = Field("l2", description="Use this loss.")
    learning_rate: float = Field(0.1, gt=0, description="Set the rate.")
    iterations: int = Field(5, description="Stop after N iterations.")
    amp: bool = Field(False, description="Use mixed precision.")
    matricization: ModeSets = Field([], description="Record this too.")


@pytest.fixture
def call(capsys):
    """Run a command with these options; returns the arguments it received and its output."""
    received = []
    app = typer.Typer(rich_markup_mode=None, add_completion=False)

    @app.command()
    @with_config(Settings)
    def command(config: Settings, data: str = typer.Argument(None), format: FormatOption = None) -> None:
        """Do it."""
        received.append((config, data, format))

    def run(*args):
        received.clear()
        typer.main.get_command(app).main(list(args), standalone_mode=False)
        return (received[0] if received else None), capsys.readouterr().out

    return run


def test_options_become_settings(call):
    (config, data, format), _ = call(
        "x.npy", "--width", "8,16", "--tree", "chain", "--loss", "huber", "--learning-rate", "0.5", "--iterations", "3",
        "--amp", "--matricization", "0,2", "--matricization", "1", "--format", "csv",
    )  # fmt: skip
    assert (data, format, config.data) == ("x.npy", "csv", None)
    assert config == Settings(
        width=[8, 16], tree="chain", loss="huber", learning_rate=0.5, iterations=3, amp=True, matricization=[[0, 2], [1]]
    )  # fmt: skip
    assert config.model_fields_set == set(Settings.model_fields) - {"data"}


def test_only_options_that_are_given_count_as_set(call):
    (config, data, _), _ = call("--iterations", "5")
    assert (data, config.model_fields_set) == (None, {"iterations"})


def test_options_override_assignments_and_the_file(call, tmp_path):
    (tmp_path / "s.yaml").write_text("iterations: 1\nlearning-rate: 0.2\namp: true\n")
    args = ("--config", str(tmp_path / "s.yaml"), "--set", "learning-rate=0.3", "--set", "iterations=2")
    (config, _, _), _ = call(*args, "--iterations", "3", "--no-amp")
    assert (config.iterations, config.learning_rate, config.amp) == (3, 0.3, False)


def test_print_config_does_nothing_else(call, tmp_path):
    received, out = call("--width", "4", "--print-config")
    assert received is None
    (tmp_path / "s.yaml").write_text(out)
    assert Settings.resolve({}, [], str(tmp_path / "s.yaml")) == Settings(width=4)


def test_help(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    _, out = call("--help")
    text = " ".join(out.split())
    for line in (
        "--width N[,N...] Set the width.",
        "--tree TREE Use this tree. [default: balanced]",
        "--loss <l2|huber> Use this loss. [default: l2]",
        "--learning-rate X Set the rate. [default: 0.1]",
        "--iterations N Stop after N iterations. [default: 5]",
        "--amp / --no-amp Use mixed precision.",
        "--matricization MODES Record this too.",
    ):
        assert line in text
    assert "Left to the command." not in out
