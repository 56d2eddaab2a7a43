"""Commands killed by SIGKILL before each change that they make to files; going on ends as if nothing was."""

from __future__ import annotations

import signal

import pytest

from tests.faults.bench import CASES, Bench


@pytest.fixture(params=list(CASES))
def bench(request, server, tmp_path):
    return Bench(request.param, server, tmp_path)


def test_killed_before_each_change_of_a_file(bench, record_property, request):
    """The first, second, ... file that it opens for writing, renames or removes is the one it does not come to."""
    kills = 0
    for number in range(1, 400):
        folder = bench.fresh()
        ended = bench.server.run(*bench.argv(folder, False), cwd=folder, die_at=number * _stride(number))
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL, ended
        kills += 1
        bench.settle(folder)
    assert kills >= 3
    record_property("fault", ("SIGKILL before a file operation", request.node.callspec.id, kills))


def _stride(number: int) -> int:
    """All of the first changes, then ever fewer: those of a long run repeat."""
    return 1 if number <= 10 else 1 + (number - 10)
