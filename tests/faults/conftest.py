"""One warm fork server a session of tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.faults.fuzzing", "tests.faults.processes", "tests.faults.bench")

from tests.faults.processes import Server  # noqa: E402


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.close()
