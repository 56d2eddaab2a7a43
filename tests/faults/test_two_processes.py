"""Two processes that want the same run folder or sweep: the second is refused, the first goes on."""

from __future__ import annotations

import signal

import pytest

from tests.faults.long_commands import LONG, until
from tests.faults.processes import whole


@pytest.mark.parametrize("name", list(LONG))
def test_the_second_process_is_refused(server, place, name, record_property):
    argv, sign, _ = LONG[name]
    first = server.start(*argv, cwd=place)
    until(lambda: (place / "run" / sign).exists())
    first.send(signal.SIGSTOP)  # or it might end before the second one begins
    for more in ("--force", "--resume"):
        if name != "complete" or more == "--force":
            second = server.run(*argv, more, cwd=place)
            assert second.code == 2, second
            assert second.error.startswith(("another process is using run.", "run has no checkpoint")), second.error
            record_property("fault", ("second process", name, 1))
    assert first.poll() is None
    first.send(signal.SIGTERM)
    first.send(signal.SIGCONT)
    assert first.wait().code == 130
    whole(place)


def test_the_second_sweep_is_refused(server, place, record_property):
    (place / "plan.yaml").write_text(
        "command: fit\ndata: data.safetensors\nbase: {iterations: 1000000, until_loss: 1e-300}\n"
    )
    first = server.start("sweep", "plan.yaml", "-o", "sweep", cwd=place)
    until(lambda: list(place.glob("sweep/runs/*/.lock")))
    assert server.run("sweep", "sweep", cwd=place).error.startswith("another sweep is using")
    run = next(place.glob("sweep/runs/*"))
    assert server.run("fit", "data.safetensors", "-o", run, "--force", cwd=place).error.startswith(
        "another process is using"
    )
    first.send(signal.SIGTERM)
    assert first.wait().code == 130
    record_property("fault", ("second process", "sweep", 2))
