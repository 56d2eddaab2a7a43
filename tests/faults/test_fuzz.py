"""Mutations of valid files of every format, read: an answer or one line, in bounded time and memory, nothing else."""

from __future__ import annotations

import random
import time
import zlib

import pytest
import torch

from tests.faults.fuzzing import command, survives
from tests.faults.specimens import SPECIMENS

CASES = 360  # of each format


@pytest.fixture(scope="module", params=list(SPECIMENS))
def specimen(request, tmp_path_factory):
    torch.set_num_threads(1)
    kind = SPECIMENS[request.param]
    return request.param, kind, kind.make(tmp_path_factory.mktemp("made"))


def fuzz(specimen, folder, cases: int, seed: int) -> int:
    """Number of broken files read."""
    name, kind, valid = specimen
    generator = random.Random(zlib.crc32(name.encode()) + seed)
    path = folder / f"case{kind.suffix}"
    path.write_bytes(valid)
    for read in kind.read:  # or nothing below is about what comes after the first bytes
        assert survives(folder, lambda read=read: read(str(path))) or read.__name__ in (
            "ranks",
            "load_tensor",
            "of_queries",
            "of_table",
        )
    taken, cases = 0, round(cases * kind.share)
    for number in range(cases):
        broken = kind.mutate[number % len(kind.mutate)](valid, generator)
        path.write_bytes(broken)
        read = kind.read[number % len(kind.read)]
        try:
            taken += survives(folder, lambda read=read: read(str(path)))
        except BaseException:
            (folder / f"failed{kind.suffix}").write_bytes(broken)
            raise
    assert taken < cases
    assert {p.name for p in folder.iterdir()} <= {path.name, "images"}
    return cases


def test_broken_files(specimen, tmp_path, record_property):
    started = time.monotonic()
    cases = fuzz(specimen, tmp_path, CASES, 0)
    record_property("fuzz", ("mutations", specimen[0], cases))
    record_property("fuzz seconds", time.monotonic() - started)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_broken_files(specimen, tmp_path, record_property, seed):
    cases = fuzz(specimen, tmp_path, 2000, seed)
    record_property("fuzz", ("mutations", specimen[0], cases))


def test_broken_files_by_the_command(specimen, tmp_path, record_property):
    name, kind, valid = specimen
    if kind.suffix == ".yaml" or kind.suffix in (".png", ".jpg", ".gif", ".tif"):
        pytest.skip("not read by htf inspect")
    generator = random.Random(zlib.crc32(name.encode()))
    path = tmp_path / f"case{kind.suffix}"
    cases = 12 if kind.share == 1 else 3
    for number in range(cases):
        path.write_bytes(kind.mutate[number % len(kind.mutate)](valid, generator))
        command(tmp_path, "inspect", path)
    record_property("fuzz", ("htf inspect", name, cases))
