"""Processes that share observations read their own rows; together they have the whole."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from htfcli.engine.observations.observations import Observations, sample_entries
from htfcli.engine.samples import Entries, RankOneMeasurements
from htfcli.errors import DataError
from htfcli.files.own import container
from htfcli.files.own.artefacts import save_observations, to_observations
from htfcli.files.shards import fingerprint, load_shard
from tests.problems import generator


@pytest.fixture
def stored(tmp_path):
    index = sample_entries((9, 8, 7), 120, generator(0))
    sample = Entries(index, torch.randn(120, generator=generator(1), dtype=torch.float64))
    whole = Observations((9, 8, 7), sample.select(torch.arange(101)), sample.select(torch.arange(101, 120)))
    path = tmp_path / "data.safetensors"
    save_observations(path, whole)
    return path, whole


def team(count, totals=None):
    """Processes one after another; what they sum is collected in `totals`."""
    totals = [] if totals is None else totals
    return [
        SimpleNamespace(rank=rank, count=count, first=rank == 0, heard=str, sum=lambda t: (totals.append(int(t)), t)[1])
        for rank in range(count)
    ]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_parts_make_the_whole(stored, count):
    path, whole = stored
    parts = [load_shard(str(path), workers) for workers in team(count)]
    for name in ("train", "test"):
        samples = [getattr(part, name) for part in parts]
        assert torch.equal(torch.cat([s.index for s in samples]), getattr(whole, name).index)
        assert torch.equal(torch.cat([s.value for s in samples]), getattr(whole, name).value)
        expected = [len(rows) for rows in torch.arange(len(getattr(whole, name))).tensor_split(count)]
        assert [len(s) for s in samples] == expected
    assert {part.counts for part in parts} == {(101, 19)}


def test_no_process_reads_the_rows_of_another(stored):
    path, whole = stored
    whole.train.value[-1] = float("nan")  # what only its reader can find
    save_observations(path, whole)
    first, second = team(2)
    assert len(load_shard(str(path), first).train) == 51
    with pytest.raises(DataError, match=r"train observation 51 \+ 49 has no finite value"):
        load_shard(str(path), second)


def test_more_processes_than_observations(stored):
    path, _ = stored
    part = to_observations(container.read(path), (3, 25))
    assert (len(part.train), len(part.test)) == (4, 19)  # every process has all 19


def test_fingerprints_do_not_depend_on_the_processes(stored):
    path, whole = stored
    sums = {}
    for count in (1, 2, 7, 25):
        for workers in team(count, sums.setdefault(count, [])):
            fingerprint(load_shard(str(path), workers) if count > 1 else whole, workers)
    assert len({sum(values) % 2**64 for values in sums.values()}) == 1


def test_fingerprints_tell_data_apart(stored):
    _, whole = stored
    (alone,) = team(1)

    def changed(**parts):
        return Observations(whole.dims, parts.get("train", whole.train), parts.get("test", whole.test))

    index, value = whole.train.index, whole.train.value
    swapped = torch.arange(101)
    swapped[:2] = torch.tensor([1, 0])
    other = value.clone()
    other[50] = torch.nextafter(other[50], other[51])
    vectors = tuple(torch.ones(3, d, dtype=torch.float64) for d in whole.dims)
    several = [
        whole,
        changed(train=Entries(index, other)),
        changed(train=whole.train.select(swapped)),
        changed(train=Entries(index.flip(1), value)),
        changed(test=None),
        changed(train=whole.test, test=whole.train),
        changed(train=RankOneMeasurements(vectors, torch.ones(3, dtype=torch.float64))),
        changed(train=RankOneMeasurements(vectors, torch.zeros(3, dtype=torch.float64))),
    ]
    assert len({fingerprint(observations, alone) for observations in several}) == len(several)
    assert fingerprint(changed(), alone) == fingerprint(whole, alone)
