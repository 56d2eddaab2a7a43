"""Data read part by part are those read whole, and large tensors stay as entries mapped from their file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.engine import samples
from htfcli.engine.observations import observations
from htfcli.engine.observations.observations import Observations, checked_entries, first_duplicate, sample_entries
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError
from htfcli.experiments.runs import complete as complete_run
from htfcli.files import completion_input
from htfcli.files.completion_input import load_data
from htfcli.files.locating import locate
from htfcli.files.own.artefacts import save_observations
from htfcli.files.stored_entries import StoredEntries
from htfcli.files.tables import text
from htfcli.files.tables.formats import read_table
from htfcli.files.tables.table import Table
from tests.problems import generator

DIMS = (2000, 1500, 1000)


@pytest.fixture
def stored(tmp_path):
    index = sample_entries(DIMS, 500, generator(0))
    value = torch.arange(500.0, dtype=torch.float64)
    path = tmp_path / "data.safetensors"
    save_observations(path, Observations(DIMS, Entries(index, value)))
    return path, index, value


def test_a_large_tensor_stays_as_entries(stored):
    path, index, value = stored
    data = load_data(locate(str(path)), CompletionRunConfig())
    assert isinstance(data, StoredEntries)
    entries = data.entries()
    assert entries.index.dtype == torch.int32  # as in the file, not copied
    assert torch.equal(entries.index.long(), index) and torch.equal(entries.value, value)
    assert [axis.size for axis in data.axes] == list(DIMS)


def test_a_missing_value_and_a_mask(stored, tmp_path):
    path, _, _ = stored
    data = load_data(locate(str(path)), CompletionRunConfig(missing_value=3.0))
    assert len(data.entries()) == 499 and 3.0 not in data.entries().value.tolist()
    with pytest.raises(
        ConfigError, match=r"--missing-value does not occur in .* \(got -1, allowed a value from 0 to 499\)"
    ):
        load_data(locate(str(path)), CompletionRunConfig(missing_value=-1.0))
    with pytest.raises(ConfigError, match="--mask is for dense tensors"):
        load_data(locate(str(path)), CompletionRunConfig(mask="m.npy"))


def test_only_entries_that_are_asked_for_are_written(htf, monkeypatch):
    for module in (completion_input, complete_run):
        monkeypatch.setattr(module, "DENSE_LIMIT", 100)
    assert (
        htf("generate", "tensor", "--order", 3, "--dim", 6, "--rank", 1, "--observed", 180, "-o", "d.safetensors").code
        == 0
    )
    done = htf("complete", "d.safetensors", "-o", "out.npy")
    assert done.code == 1
    assert "too large to be written out" in done.err and "--predict" in done.err
    Path("asked.csv").write_text("0,1,2\n5,5,5\n")
    done = htf("complete", "d.safetensors", "--predict", "asked.csv", "-o", "out.csv", "--width", 1, "-q")
    assert done.code == 0, done.err
    rows = [line.split(",") for line in Path("out.csv").read_text().splitlines()]
    assert [row[:3] for row in rows] == [["0", "1", "2"], ["5", "5", "5"]]
    assert all(float(row[3]) == float(row[3]) for row in rows)


@pytest.mark.parametrize("suffix", [".tns", ".csv"])
def test_a_table_read_in_parts(tmp_path, monkeypatch, suffix):
    index = sample_entries((9, 8, 7), 200, generator(0)) + 1
    gap = " " if suffix == ".tns" else ","
    lines = [gap.join([*map(str, row), repr(0.1 * n)]) for n, row in enumerate(index.tolist())]
    path = tmp_path / f"data{suffix}"
    path.write_text("\n".join(lines) + "\n")
    whole = Table.of(read_table([path], path.name))
    monkeypatch.setattr(text, "_PARSED", 7)
    parts = Table.of(read_table([path], path.name))
    assert whole.index.dtype == torch.int32
    assert torch.equal(whole.index, parts.index) and torch.equal(whole.value, parts.value)
    assert whole.axes == parts.axes
    assert torch.equal(whole.index.long(), index - 1)


@pytest.mark.parametrize("sorted_at_once", [1, 7, 1000])
def test_repeats_are_found_part_by_part(monkeypatch, sorted_at_once):
    monkeypatch.setattr(observations, "_SORTED", sorted_at_once)
    dims = (50, 40, 3)
    index = sample_entries(dims, 300, generator(0)).to(torch.int32)
    assert first_duplicate(index, dims) is None
    for later, earlier in ((299, 12), (200, 100), (150, 149)):
        index[later] = index[earlier]
    assert first_duplicate(index, dims) == (149, 150)


@pytest.mark.parametrize("checked", [7, 1000])
def test_entries_are_checked_part_by_part(monkeypatch, checked):
    monkeypatch.setattr(samples, "_CHECKED", checked)
    index = sample_entries((9, 8, 7), 100, generator(0)).to(torch.int32)
    value = torch.ones(100, dtype=torch.float64)
    assert checked_entries(index, value, (9, 8, 7), "row").index is index
    index[61, 1] = 8
    with pytest.raises(DataError, match="row 61 has an index out of range"):
        checked_entries(index, value, (9, 8, 7), "row")
