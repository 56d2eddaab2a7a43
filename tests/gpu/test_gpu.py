"""The script for a GPU, rehearsed on the CPU: what runs, what is kept, what is refused."""

from __future__ import annotations

import csv
import itertools
import sys
import time
from collections.abc import Iterator

import pytest
import torch

from htfcli.engine.vision.regularizer.non_local import swap
from tests.benchmarks.network_steps import batch, functional_gradient, network, ours, patches, published
from tests.gpu import __main__ as script
from tests.gpu import paths, rounding
from tests.gpu.setting import ROOT, Row, Setting, output_of, python


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tests.gpu", *map(str, arguments)])
    return script.main()


def table(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_rehearsal(monkeypatch, tmp_path):
    assert run(monkeypatch, "--smoke", "--out", tmp_path, "--only", "rounding,factorizations,paths") == 0
    report = (tmp_path / "gpu.md").read_text()
    assert "its figures mean nothing" in report
    assert [line for line in report.splitlines() if line.startswith("## ")] == [
        "## Precision", "## Fits and completion", "## Pathfinder",
    ]  # fmt: skip
    rows = table(tmp_path / "rounding.csv")
    assert {(r["weights"], r["precision"], r["scale"]) for r in rows} == {
        (w, p, s)
        for w in ("random", "trained")
        for p, s in (("float32", "1"), ("bf16", "1"), ("fp16", "1"), ("fp16", "32"), ("fp16", "1024"))
    }
    exact = [float(r["cosine, R"]) for r in rows if r["precision"] == "float32"]
    rounded = [float(r["cosine, R"]) for r in rows if r["precision"] == "bf16"]
    assert min(exact) > 0.9999 > max(rounded)
    assert {r["difference"] for r in table(tmp_path / "factorizations.csv")} == {"0.0"}  # the CPU against itself
    runs = table(tmp_path / "paths.csv")
    assert [(r["length"], r["c"], r["epochs"], r["ended"]) for r in runs] == [
        ("9", "0", "2", "epochs"), ("9", "9", "2", "epochs"),
    ]  # fmt: skip
    assert len(table(tmp_path / "paths_records.csv")) == 4
    assert len(list(tmp_path.iterdir())) <= 8


@pytest.mark.long
def test_rehearsal_of_everything(tmp_path):
    code, said = output_of(python("-m", "tests.gpu", "--smoke", "--out", tmp_path), 560)
    assert code == 0, said
    assert not [r for r in table(tmp_path / "step_times.csv") if not r["/ plain"]]  # the compiled ones too
    assert table(tmp_path / "suite.csv")[0]["ended"] == "exit code 0"
    assert len(list(tmp_path.iterdir())) <= 8


@pytest.mark.long
def test_a_training_is_stopped_at_its_limit_and_its_epochs_are_kept(monkeypatch, tmp_path):
    """Two trainings that would go on for hours, one after the other within a minute and a half."""
    longer = ("--epochs", 10**6, "--patience", 10**6)
    monkeypatch.setattr(paths, "python", lambda *words: python(*words, *longer * ("train-cnn" in words)))
    started = time.monotonic()
    rows = list(paths.rows(Setting(torch.device("cpu"), tmp_path, smoke=True, deadline=started + 90)))
    assert time.monotonic() - started < 90
    assert [(r["c"], r["ended"]) for r in rows] == [(0, "stopped at the time limit"), (9, "stopped at the time limit")]
    assert all(r["epochs"] > 2 for r in rows)
    assert len(table(tmp_path / "paths_records.csv")) == sum(r["epochs"] for r in rows)


def test_what_is_there_is_kept_when_the_time_is_up(monkeypatch, tmp_path):
    ticks = itertools.count()
    monkeypatch.setattr(Setting, "left", property(lambda self: 1 - next(ticks)))
    assert run(monkeypatch, "--smoke", "--out", tmp_path, "--only", "rounding") == 0
    assert 0 < len(table(tmp_path / "rounding.csv")) < 10
    assert "## Precision" in (tmp_path / "gpu.md").read_text()


def test_a_job_that_fails_does_not_end_the_others(monkeypatch, tmp_path):
    def fails(setting: Setting) -> Iterator[Row]:
        yield {"precision": "float32"}
        raise RuntimeError("no such kernel")

    def works(setting: Setting) -> Iterator[Row]:
        yield {"ended": "exit code 0"}

    monkeypatch.setattr(rounding, "rows", fails)
    monkeypatch.setattr(script.suite, "rows", works)
    monkeypatch.setattr(script.factorizations, "rows", works)
    assert run(monkeypatch, "--smoke", "--out", tmp_path, "--only", "suite,rounding,factorizations") == 1
    assert table(tmp_path / "rounding.csv") == [{"precision": "float32"}]
    assert table(tmp_path / "factorizations.csv") == [{"ended": "exit code 0"}]
    assert "Stopped by RuntimeError: no such kernel" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "results"), "there is no CUDA device; --smoke rehearses on the CPU"),
        (("--smoke", "--out", ROOT / "docs/results"), "figures of a rehearsal do not go into the documentation"),
        (("--smoke", "--out", "results", "--only", "speed"), "no such job: speed"),
    ],
)
def test_refused(monkeypatch, tmp_path, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_formulations_that_are_timed_are_the_same_step():
    """Published, ours in both formulations, and the gradient of gradients by torch.func."""
    device = torch.device("cpu")
    x, y = batch(4, 24, device)
    x = x.double()
    found = []
    for loss in (published, ours(), ours(formulation="tangent")):
        model = network("resnet-mini", device)[0].double()
        loss(model, x, y).backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    model = network("resnet-mini", device)[0].double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    swapped = swap(x, x.roll(-1, 0), patches(24)[1])
    found.append(functional_gradient(model)(parameters, dict(model.named_buffers()), x, swapped, y)[0])
    for other in found[1:]:
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-6, atol=1e-8)
