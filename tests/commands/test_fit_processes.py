"""`htf fit` by several processes."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from htfcli.engine.observations.observations import Observations, sample_entries
from htfcli.engine.samples import Entries
from htfcli.files.own.artefacts import save_observations


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "options"),
    [
        ("--order 4 --dim 5 --rank 2 --observed 257", ""),
        pytest.param("--order 4 --dim 5 --rank 2 --observed 257 --test 1", "", marks=pytest.mark.long),
        pytest.param("--order 3 --dim 5 --rank 2 --task sensing --observed 61", "--batch-size 20 --optimizer adam --lr 0.003 --loss huber", marks=pytest.mark.long),
        pytest.param("", "", marks=pytest.mark.long),
    ],
    ids=["completion", "one held out", "sensing in batches", "data of unknown size"],
)  # fmt: skip
def test_two_processes_are_as_one(shell, data, options):
    """Uneven parts of the observations, whole or in batches: records, weights and a resumed run to 1e-10."""
    options += " --width 6 --init-std 0.2 --dtype float64 --record-every 20 --matricization 0,2"
    team = "-m torch.distributed.run --standalone --nproc-per-node 2 -m htfcli"
    make = f"htf generate tensor {data} -o data.safetensors"
    if not data:  # no target, which scales the values by their rms
        make = "true"
        index = sample_entries((5, 6, 7), 101, torch.Generator().manual_seed(0))
        sample = Entries(index, 1e3 * index.double().sin().sum(1))
        whole = Observations((5, 6, 7), sample.select(torch.arange(80)), sample.select(torch.arange(80, 101)))
        save_observations(shell.folder / "data.safetensors", whole)
    done = shell(
        f"{make} > /dev/null && "
        f"htf fit data.safetensors {options} --iterations 200 -q -o one > /dev/null && "
        f"{sys.executable} {team} fit data.safetensors {options} --iterations 120 -o two && "
        f"{sys.executable} {team} fit --resume --iterations 160 -o two > /dev/null && "
        f"htf fit --resume --iterations 200 -o two > /dev/null"
    )
    assert done.code == 0, done.err
    assert ", 2 processes" in done.err
    assert len(done.records) == 7  # only the first process writes records
    one, two = (
        [json.loads(line) for line in (shell.folder / name / "records.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert len(one) == len(two) == 11
    for mine, wanted in zip(two, one, strict=True):
        for key in wanted.keys() & {"train_loss", "train_error", "test_loss", "test_error", "reconstruction_error"}:
            assert mine[key] == pytest.approx(wanted[key], rel=1e-10)
    first, second = (load_file(shell.folder / name / "model.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert float((weight - second[name]).norm() / weight.norm()) < 1e-10


def test_what_one_process_finds_is_said_once(shell):
    index = sample_entries((5, 6, 7), 80, torch.Generator().manual_seed(0))
    value = torch.ones(80, dtype=torch.float64)
    value[-1] = float("inf")
    save_observations(shell.folder / "data.safetensors", Observations((5, 6, 7), Entries(index, value)))
    done = shell(
        f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2 -m htfcli fit data.safetensors -o two"
    )
    assert done.code == 1  # torchrun's
    said = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert said == ["Error: data.safetensors: train observation 40 + 39 has no finite value (got inf)."]
    assert not (shell.folder / "two").exists()


def test_processes_that_have_nothing_to_do(shell):
    done = shell(
        "htf generate tensor --dim 3 --rank 1 --observed 1 -o data.safetensors > /dev/null && "
        f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2 -m htfcli fit data.safetensors -o two"
    )
    assert done.code == 1  # torchrun's
    said = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert said == ["Error: fewer observations than processes (got 1 for 2 processes)."]


def test_one_gpu_for_all_processes_is_refused(shell):
    """Whether there is one or not."""
    done = shell(
        "htf generate tensor --dim 3 --rank 1 -o data.safetensors > /dev/null && "
        f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2 -m htfcli fit data.safetensors "
        "--device cuda:0 -o two"
    )
    assert done.code == 1  # torchrun's
    said = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert said == [
        "Error: --device cuda:0 would put every process on one GPU (got 2 processes). Use --device cuda: each takes its own."
    ]
    assert not (shell.folder / "two").exists()
