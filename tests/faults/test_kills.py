"""Commands killed by SIGKILL at random moments, many times over; going on ends as if nothing was."""

from __future__ import annotations

import random

import pytest

from tests.faults.bench import CASES, Bench
from tests.faults.processes import whole


@pytest.fixture(params=list(CASES))
def bench(request, server, tmp_path):
    return Bench(request.param, server, tmp_path)


def kill_at_random(bench: Bench, kills: int, seed: int) -> int:
    """Kill runs at random moments, each of them several times, until so many kills have been survived."""
    generator = random.Random(seed)
    survived = 0
    while survived < kills:
        folder, begun = bench.fresh(), False
        while True:
            running = bench.server.start(*bench.argv(folder, begun), cwd=folder)
            killed = running.kill_after(generator.uniform(0.0, bench.seconds))
            whole(folder)
            if not killed:
                bench.same(folder)
                break
            survived, begun = survived + 1, True
    return survived


def test_killed_at_random_moments(bench, record_property, request):
    kills = kill_at_random(bench, 14, seed=hash_of(request.node.callspec.id))
    record_property("fault", ("SIGKILL at a random moment", request.node.callspec.id, kills))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_many_random_moments(bench, seed, record_property, request):
    kills = kill_at_random(bench, 40, seed)
    record_property("fault", ("SIGKILL at a random moment", request.node.callspec.id, kills))


def hash_of(name: str) -> int:
    """The same in every process, unlike `hash`."""
    return sum(map(ord, name))
