"""One warm fork server a session of tests."""

from __future__ import annotations

import pytest

from tests.faults.processes import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.close()
