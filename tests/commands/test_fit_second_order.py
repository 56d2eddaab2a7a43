"""`htf fit --solver second-order`."""

from __future__ import annotations

import json

import pytest
import yaml

from htfcli.files.own.container import read


@pytest.fixture
def data(htf):
    assert htf("generate", "tensor", "--dim", 4, "--width", 2, "-o", "data.safetensors").code == 0
    return "data.safetensors"


SECOND_ORDER = ("--solver", "second-order", "--width", 2, "--seed", 1)


def test_second_order_finds_the_tensor(htf, data, tmp_path):
    done = htf("fit", data, *SECOND_ORDER, "-o", "r")
    assert done.code == 0
    assert [r["iteration"] for r in done.records] == list(range(len(done.records)))
    assert done.records[-1]["reconstruction_error"] < 1e-12
    first, last = done.err.splitlines()
    assert first.endswith("128 observations, 128 held out; float64 on cpu (1 thread)")
    assert last.startswith(f"converged at iteration {len(done.records) - 1} after ")
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert summary["stop_reason"] == "converged"
    assert set(summary["hierarchical_rank"].values()) == {2}
    config = yaml.safe_load((tmp_path / "r/config.yaml").read_text())
    assert (config["solver"], config["dtype"], config["record_every"]) == ("second-order", "float64", 1)
    assert htf("fit", data, "--config", "r/config.yaml", "-o", "again").out == done.out
    assert htf("measure-rank", "r").code == 0


def test_second_order_resumes(htf, data, tmp_path):
    whole = htf("fit", data, *SECOND_ORDER, "-o", "whole")
    assert htf("fit", data, *SECOND_ORDER, "--iterations", 4, "-o", "part").code == 0
    resumed = htf("fit", "--resume", "-o", "part", "--iterations", 1000)
    assert resumed.code == 0, resumed.err
    assert (tmp_path / "part/records.jsonl").read_text() == whole.out
    a, b = (read(tmp_path / run / "model.safetensors").tensors() for run in ("part", "whole"))
    assert all((a[k] == b[k]).all() for k in b)


def test_second_order_interrupted(htf, data, tmp_path, monkeypatch):
    from htfcli.cli.interrupts import StopSignals

    whole = htf("fit", data, *SECOND_ORDER, "-o", "whole")
    seen: list[int] = []
    monkeypatch.setattr(StopSignals, "received", property(lambda self: len(seen.append(1) or seen) > 3))
    done = htf("fit", data, *SECOND_ORDER, "-o", "r", "-q")
    assert (done.code, done.error) == (
        130,
        "interrupted at iteration 3; the state of iteration 3 is saved, continue with: htf fit --resume -o r.",
    )
    monkeypatch.undo()
    assert htf("fit", str(tmp_path / data), "--resume", "-o", str(tmp_path / "r")).code == 0
    assert (tmp_path / "r/records.jsonl").read_text() == whole.out


def test_second_order_in_a_pipe(htf, data, shell):
    line = (
        "htf generate tensor --dim 4 --rank 2 --target cp -o - | htf fit - --model cp --solver second-order --width 2 "
        "--seed 1 -o - -q | htf measure-rank -"
    )
    done = shell(line)
    assert done.code == 0, done.err
    assert {r["rank"] for r in done.records} == {2}


def test_second_order_on_measurements(htf, tmp_path):
    htf("generate", "tensor", "--task", "sensing", "--order", 3, "--dim", 3, "--observed", 20, "-o", "s")
    done = htf("fit", "s", *SECOND_ORDER, "-o", "r", "-q")
    message = "solver second-order is for observed entries (got measurements). Leave out --solver."
    assert (done.code, done.error) == (2, message)
    assert not (tmp_path / "r").exists()


def test_what_means_nothing_to_a_resumed_run_is_refused(htf):
    htf("generate", "tensor", "--order", 3, "--dim", 4, "--rank", 2, "-o", "data.safetensors")
    assert htf("fit", "data.safetensors", "--solver", "second-order", "--iterations", 3, "-o", "runs/a").code == 0
    done = htf("fit", "--resume", "-o", "runs/a", "--lr", 0.5)
    assert (done.code, done.error) == (2, "lr: only for solver gradient (got solver second-order).")
    assert htf("fit", "--resume", "-o", "runs/a", "--iterations", 5).code == 0
