"""Commands killed by SIGKILL, at random moments and before changes of files; continued, they end as if uninterrupted.

By default three kills per command; `pytest -m long` has one before each change of a file and hundreds at random moments.
"""

from __future__ import annotations

import pytest

from tests.faults.killed_command import CASES, KilledCommand

RANDOM, CHANGE = "SIGKILL at a random moment", "SIGKILL before a file operation"
# Of the changes that every command makes: the first one (its folder or its temporary file), and the rename of a file
CHANGES = (1, 3)


@pytest.fixture(scope="module", params=list(CASES))
def killed(request, server, tmp_path_factory):
    return KilledCommand(request.param, server, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def count(record_property, request):
    return lambda fault, kills: record_property("fault", (fault, request.node.callspec.params["killed"], kills))


def test_killed_at_a_random_moment(killed, count):
    count(RANDOM, killed.kill_at_random(1, seed=1))


def test_killed_before_some_changes_of_files(killed, count):
    for number in CHANGES:
        assert killed.kill_before_change(number)
    count(CHANGE, len(CHANGES))


@pytest.mark.long
def test_killed_before_each_change_of_a_file(killed, count):
    """All of the first changes, then ever fewer: those of a long run repeat."""
    kills = 0
    for number in range(1, 400):
        if not killed.kill_before_change(number if number <= 10 else number * (number - 9)):
            break
        kills += 1
    assert kills >= 3
    count(CHANGE, kills)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_many_random_moments(killed, seed, count):
    count(RANDOM, killed.kill_at_random(40, seed))


@pytest.mark.parametrize(
    ("name", "content"),
    [("data.safetensors", b"cut off"), ("more.json", b"{}"), (".data.safetensors.1.tmp", b"")],
    ids=["another result", "another file", "a temporary file"],
)
def test_the_check_of_results_can_fail(server, tmp_path, name, content):
    command = KilledCommand("generate", server, tmp_path)
    folder = command.fresh()
    assert server.run(*command.argv(folder, begun=False), cwd=folder).code == 0
    (folder / name).write_bytes(content)
    with pytest.raises(AssertionError):
        command.check(folder)
