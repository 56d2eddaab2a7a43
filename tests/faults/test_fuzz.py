"""Mutations of valid files of every format: reading one ends well or with a one-line error, in bounded time and memory."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest

from tests.faults.fuzzing import command, survives
from tests.faults.specimens import SPECIMENS

CASES = 40  # of each format: every way to break it, with every reader
MANY = 2000
# Readers that may refuse the unbroken file: it has another format's content (labels, holes, a mask)
PARTIAL = ("ranks", "load_tensor", "of_queries", "of_table")
# In so many mutations one at least does harm: 57 % of mutated GIFs can be read, fewer of other formats
ENOUGH = 20


@pytest.fixture(scope="module", params=list(SPECIMENS))
def specimen(request, tmp_path_factory):
    kind = SPECIMENS[request.param]
    return request.param, kind, kind.make(tmp_path_factory.mktemp("made"))


def fuzz(specimen, folder, cases: int, seed: int) -> int:
    """Number of broken files read."""
    name, kind, valid = specimen
    generator = random.Random(zlib.crc32(name.encode()) + seed)
    path = folder / f"case{kind.suffix}"
    path.write_bytes(valid)
    for read in kind.read:  # a reader that refuses everything would pass what follows
        assert survives(folder, lambda read=read: read(str(path))) or read.__name__ in PARTIAL
    readable, cases = 0, max(round(cases * kind.share), len(kind.mutate) * len(kind.read))
    for number in range(cases):
        reader, way = divmod(number, len(kind.mutate))
        broken = kind.mutate[way](valid, generator)
        path.write_bytes(broken)
        read = kind.read[reader % len(kind.read)]
        try:
            readable += survives(folder, lambda read=read: read(str(path)))
        except BaseException:
            (folder / f"failed{kind.suffix}").write_bytes(broken)
            raise
    assert readable < cases or cases < ENOUGH
    assert {p.name for p in folder.iterdir()} <= {path.name, "images"}
    return cases


def test_broken_files(specimen, tmp_path, record_property):
    cases = fuzz(specimen, tmp_path, CASES, 0)
    record_property("fuzz", ("mutations", specimen[0], cases))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_broken_files(specimen, tmp_path, record_property, seed):
    cases = fuzz(specimen, tmp_path, MANY, seed)
    record_property("fuzz", ("mutations", specimen[0], cases))


def inspect_broken(specimen, folder, cases: int) -> int:
    """Number of broken files given to `htf inspect`."""
    name, kind, valid = specimen
    if kind.suffix in (".yaml", ".png", ".jpg", ".gif", ".tif"):
        pytest.skip("not read by htf inspect")
    generator = random.Random(zlib.crc32(name.encode()))
    path, cases = folder / f"case{kind.suffix}", max(round(cases * kind.share), 1)
    for number in range(cases):
        path.write_bytes(kind.mutate[number % len(kind.mutate)](valid, generator))
        command(folder, "inspect", path)
    return cases


def test_broken_files_by_the_command(specimen, tmp_path, record_property):
    record_property("fuzz", ("htf inspect", specimen[0], inspect_broken(specimen, tmp_path, 6)))


@pytest.mark.long
def test_many_broken_files_by_the_command(specimen, tmp_path, record_property):
    record_property("fuzz", ("htf inspect", specimen[0], inspect_broken(specimen, tmp_path, 60)))


@pytest.mark.parametrize(
    "read",
    [lambda path: 1 / 0, lambda path: bytes(2 << 30), lambda path: Path(f"{path}.stray").touch()],
    ids=["an error of its own", "memory", "a stray file"],
)
def test_the_check_of_broken_files_can_fail(tmp_path, read):
    kind = SPECIMENS["csv"]

    def bad(path):
        if Path(path).read_bytes() != valid:
            read(path)

    valid = kind.make(tmp_path)
    folder = tmp_path / "fuzz"
    folder.mkdir()
    with pytest.raises((ZeroDivisionError, MemoryError, AssertionError)):
        fuzz(("csv", type(kind)(kind.suffix, kind.make, (bad,)), valid), folder, 4, 0)
