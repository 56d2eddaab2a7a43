from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.engine.observations.observations import Observations
from htfcli.engine.samples import Entries, RankOneMeasurements
from htfcli.errors import ConfigError, DataError
from htfcli.files.completion_input import load_data, load_queries, refuse_other_format
from htfcli.files.foreign.dense_tensor import DenseTensor
from htfcli.files.locating import locate
from htfcli.files.own.artefacts import save_observations
from htfcli.files.own.axes import Axis
from htfcli.files.tables.table import Table


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.array([[1.0, np.nan], [3.0, 4.0]]))
    np.save("mask.npy", np.ones((2, 2), bool))
    Path("a.csv").write_text("x,y,v\n0,1,5\n2,0,\n")
    Path("a.tns").write_text("1 2 5\n3 1 6\n")
    index = torch.tensor([[0, 1], [1, 0]])
    save_observations(
        "o.safetensors", Observations((2, 3), Entries(index, torch.tensor([5.0, 6.0], dtype=torch.float64)))
    )
    vectors = (torch.ones(2, 2, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64))
    save_observations(
        "s.safetensors", Observations((2, 3), RankOneMeasurements(vectors, torch.ones(2, dtype=torch.float64)))
    )


def test_every_kind_of_data(folder):
    dense = load_data(locate("a.npy"), CompletionRunConfig())
    assert isinstance(dense, DenseTensor) and (dense.dims, dense.lacking()) == ((2, 2), 1)
    table = load_data(locate("a.csv"), CompletionRunConfig())
    assert isinstance(table, Table) and (table.dims, table.value_name) == ((2, 2), "v")
    own = load_data(locate("o.safetensors"), CompletionRunConfig())
    assert isinstance(own, DenseTensor) and own.lacking() == 4
    assert own.entries().value.tolist() == [5.0, 6.0]


def test_dimensions_of_tables(folder):
    table = load_data(locate("a.csv"), CompletionRunConfig(dims=[4, 3]))
    assert (table.dims, table.index.tolist()) == ((4, 3), [[0, 1], [2, 0]])
    table = load_data(locate("a.tns"), CompletionRunConfig(dims=[4, 3]))
    assert (table.dims, table.index.tolist()) == ((4, 3), [[0, 1], [2, 0]])  # counted from 1 in the file
    assert table.axes[0].label(2) == "3"


@pytest.mark.parametrize(
    ("argument", "settings", "error", "message"),
    [
        ("a.csv", {"dims": [4, 3, 2]}, ConfigError, "--dims does not match a.csv (got 3 dimensions, allowed 2)."),
        ("a.csv", {"mask": "mask.npy"}, ConfigError, "--mask is for dense tensors; leave the value of a row empty (got mask.npy)."),
        ("a.npy", {"value": "v", "all": True}, ConfigError, "--value, --all: for tables; this input is a dense tensor (got a.npy)."),
        ("s.safetensors", {}, DataError, "s.safetensors does not hold entries to complete (got rank-one sensing, allowed completion)."),
        ("a.xlsx", {}, DataError, "a.xlsx does not exist."),
    ],
)  # fmt: skip
def test_settings_and_data_that_do_not_fit(folder, argument, settings, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        load_data(locate(argument), CompletionRunConfig(**settings))


def test_entries_to_predict(folder):
    axes = (Axis("x", 3), Axis("y", 2))
    assert load_queries("a.csv", axes, "v", CompletionRunConfig()).index.tolist() == [[0, 1], [2, 0]]
    with pytest.raises(DataError, match=r"^a\.npy is not a table of entries \(got \.npy, allowed \.csv, "):
        load_queries("a.npy", axes, "v", CompletionRunConfig())


@pytest.mark.parametrize(
    ("destination", "fits"), [("b.npy", True), ("-", True), ("b.csv", False), ("b.dat", False), ("b", False)]
)
def test_the_format_of_the_output(folder, destination, fits):
    data = load_data(locate("a.npy"), CompletionRunConfig())
    if fits:
        refuse_other_format(destination, data)
    else:
        with pytest.raises(
            ConfigError,
            match=rf"^{re.escape(destination)} is not in the format of a.npy \(got (\.csv|\.dat|no ending), allowed \.npy\)\.$",
        ):
            refuse_other_format(destination, data)
