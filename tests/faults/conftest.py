"""One warm fork server a session of tests."""

from __future__ import annotations

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
