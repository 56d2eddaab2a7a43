from __future__ import annotations

import numpy as np
import pytest
import torch

from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.observations.observations import Observations
from htfcli.engine.samples import Entries, RankOneMeasurements
from htfcli.files.description import describe_input
from htfcli.files.own import container
from htfcli.files.own.artefacts import save_factorization, save_observations
from htfcli.files.own.run_folder import RunFolder
from tests.problems import generator


def model():
    return HierarchicalTensorFactorization((3, 4, 5), [2, 6]).init_gaussian(1.0, generator())


def test_a_dense_tensor(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[np.nan, 1.0], [-2.0, 2.0]]))
    assert describe_input(str(tmp_path / "a.npy")) == {
        "kind": "dense tensor", "dims": [2, 2], "missing": 1, "min": -2.0, "max": 2.0, "rms": pytest.approx(3**0.5),
    }  # fmt: skip


def test_a_factorization(tmp_path):
    save_factorization(tmp_path / "m.safetensors", model(), {"seed": 3, "tree": None, "weight_norms": False})
    record = describe_input(str(tmp_path / "m.safetensors"))
    assert [record[key] for key in ("kind", "model", "dims", "dtype")] == ["factorization", "htf", [3, 4, 5], "float64"]
    assert record["parameters"] == len(model().parameters)
    assert record["config"] == "seed=3"
    assert [node["node"] for node in record["nodes"]][-1] == "{0,1,2}"
    leaves = [node for node in record["nodes"] if not node["children"]]
    assert [(node["node"], node["dimension"]) for node in leaves] == [("{0}", 3), ("{1}", 4), ("{2}", 5)]


def test_observations(tmp_path):
    index = torch.cartesian_prod(torch.arange(2), torch.arange(3))
    entries = Entries(index, torch.arange(6.0, dtype=torch.float64))
    save_observations(
        tmp_path / "o.safetensors",
        Observations((2, 3), entries.select(torch.arange(4)), entries.select(torch.tensor([5]))),
    )
    record = describe_input(str(tmp_path / "o.safetensors"))
    assert record["rms"] == pytest.approx((14 / 4) ** 0.5)
    assert {key: record[key] for key in ("task", "dims", "train", "test", "min", "max")} == {
        "task": "completion", "dims": [2, 3], "train": 4, "test": 1, "min": 0.0, "max": 3.0,
    }  # fmt: skip
    vectors = (torch.ones(5, 2, dtype=torch.float64), torch.ones(5, 3, dtype=torch.float64))
    save_observations(
        tmp_path / "s.safetensors",
        Observations((2, 3), RankOneMeasurements(vectors, torch.ones(5, dtype=torch.float64))),
    )
    assert describe_input(str(tmp_path / "s.safetensors"))["task"] == "rank-one sensing"


def test_run_folders_before_and_after_their_end(tmp_path):
    with RunFolder(str(tmp_path / "run")) as folder:
        folder.start_records()
        for iteration in range(3):
            folder.append({"kind": "iteration", "iteration": iteration, "train_loss": 0.5, "nodes": []})
        folder.save_checkpoint({"counters": torch.tensor([2])}, {"iterations": 9}, {})
    records = {"records": 3, "iteration": 2, "train_loss": 0.5}
    assert describe_input(str(tmp_path / "run")) == {"kind": "records of a fit", **records}
    assert describe_input(str(tmp_path / "run" / "checkpoint.safetensors"))["iteration"] == 2
    save_factorization(tmp_path / "run" / "model.safetensors", model())
    record = describe_input(str(tmp_path / "run"))
    assert record["kind"] == "factorization"
    assert {key: record[f"run_{key}"] for key in records} == records


def test_a_kind_of_another_version(tmp_path):
    container.save(tmp_path / "x.safetensors", "later", {"a": torch.zeros(2, 3)}, {})
    assert describe_input(str(tmp_path / "x.safetensors")) == {"kind": "later", "tensors": {"a": [2, 3]}}
