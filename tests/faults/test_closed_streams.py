"""Readers that go away, and standard streams that are closed from the start."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.processes import ENVIRONMENT, whole


@pytest.mark.parametrize(
    "argv",
    [
        "fit data.safetensors --iterations 3000 --record-every 1 -o run",
        pytest.param("measure-rank data.safetensors", marks=pytest.mark.long),
        pytest.param("generate tensor --observed 200000 --order 6 -o -", marks=pytest.mark.long),
        "--help",
        pytest.param("sweep plan.yaml --dry-run", marks=pytest.mark.long),
        pytest.param("complete table.csv --width 1 --all -o -", marks=pytest.mark.long),
    ],
)
def test_stdout_closed_early(place, argv, record_property):
    (place / "plan.yaml").write_text("command: fit\ndata: data.safetensors\nseeds: 3000\n")
    line = f"{sys.executable} -m htfcli {argv} | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=place, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1)
    for bad in ("Traceback", "Exception ignored", "BrokenPipe", "internal error"):
        assert bad not in done.stderr, done.stderr
    whole(place)
    if argv.startswith("fit"):
        assert done.returncode == 1
        assert (place / "run" / "checkpoint.safetensors").exists()
    record_property("fault", ("stdout closed early", argv.split()[0], 1))


@pytest.mark.parametrize(
    "closed", [">&-", *(pytest.param(c, marks=pytest.mark.long) for c in ("<&-", "2>&-", "<&- >&- 2>&-"))]
)
def test_streams_that_are_closed_from_the_start(place, closed, record_property):
    line = f"{sys.executable} -m htfcli fit data.safetensors --iterations 20 -o run {closed}"
    done = subprocess.run(["bash", "-c", line], cwd=place, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done
    assert "Traceback" not in done.stderr, done.stderr
    whole(place)
    record_property("fault", ("stream closed from the start", "fit", 1))
