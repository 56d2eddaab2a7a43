"""Fixtures: one warm fork server per session, inputs, and commands that must fail."""

from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("tests.faults.fuzzing", "tests.faults.processes", "tests.faults.killed_command")

from tests.faults.fuzzing import command  # noqa: E402
from tests.faults.processes import Server  # noqa: E402


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.close()


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """The error of a command line that must fail, run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: object) -> str:
        code, said = command(tmp_path, *argv)
        assert code in (1, 2), said
        return said.removeprefix("Error: ").rstrip("\n")

    return run


@pytest.fixture(scope="session")
def inputs(server, tmp_path_factory):
    """A folder with a table, observations and image pairs, for `long_commands`."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = [
        f"{a},{b},{c},{(a + 1) * (b + 2) + c}"
        for a in range(9)
        for b in range(9)
        for c in range(9)
        if (a * 5 + b * 3 + c) % 7
    ]
    (folder / "table.csv").write_text("a,b,c,value\n" + "\n".join(rows) + "\n")
    for argv in (
        "generate tensor --order 4 --dim 6 --rank 2 --observed 600 -o data.safetensors",
        "generate is-same-class --images 120 --height 32 --width 80 --distance 8 --train 24 --test 8 -o pairs.safetensors",
    ):
        assert server.run(*argv.split(), cwd=folder).code == 0
    return folder


@pytest.fixture
def place(inputs, tmp_path):
    """An empty folder with the inputs."""
    for file in inputs.iterdir():
        os.link(file, tmp_path / file.name)
    return tmp_path
