"""The same seed gives the same bytes, whatever the number of workers; a run in float32 reports its exact loss."""

from __future__ import annotations

import json

import numpy as np
import pytest

from htfcli.config.tensors import FitConfig
from htfcli.engine.fitting.fit import prepare
from htfcli.files.inputs import load_observations
from htfcli.files.own.artefacts import to_factorization
from htfcli.files.own.container import read
from tests.faults.processes import content

PREPARE = (
    "generate tensor --order 3 --dim 6 --rank 2 --observed 150 -o data.safetensors",
    "generate is-same-class --images 120 --height 32 --width 80 --distance 8 --train 24 --test 8 -o pairs.safetensors",
)
CASES = {
    "generate": "generate tensor --order 5 --dim 7 --rank 3 --observed 3000 -o out",
    "generate sensing": "generate tensor --task sensing --order 3 --dim 5 --rank 2 --observed 50 -o out",
    "generate is-same-class": "generate is-same-class --images 120 --height 32 --width 80 --train 24 --test 8 -o out",
    "generate pathfinder": "generate pathfinder --size 32 --path-length 3 --train 24 --test 8 --workers 1 -o out",
    "fit": "fit ../data.safetensors --width 8 --iterations 200 --record-every 10 -o out",
    "fit in batches": "fit ../data.safetensors --width 8 --iterations 200 --batch-size 32 --optimizer adam -o out",
    "fit second-order": "fit ../data.safetensors --width 3 --solver second-order --iterations 20 -o out",
    "fit cp": "fit ../data.safetensors --model cp --width 8 --iterations 100 --init balanced -o out",
    "train-cnn": "train-cnn ../pairs.safetensors --model resnet-mini --widths 4,8 --blocks 1,1 --epochs 2 --batch-size 8 "
    "--reg non-local --dropout 0.2 -o out",
    "complete": "complete ../data.safetensors --width 3 --uncertainty spread.npy -o out.npy",
}


@pytest.mark.parametrize("name", list(CASES))
def test_the_same_seed_is_the_same_bytes(server, tmp_path, name):
    for argv in PREPARE:
        if argv.rpartition(" ")[2] in CASES[name]:
            assert server.run(*argv.split(), cwd=tmp_path).code == 0
    found = {}
    for folder, seed, more in (("a", 3, ()), ("b", 3, ("--workers", "2")), ("c", 4, ())):
        (tmp_path / folder).mkdir()
        argv = [*CASES[name].split(), "--seed", seed, *(more if "pathfinder" in name else ())]
        ended = server.run(*argv, cwd=tmp_path / folder)
        assert ended.code == 0, ended
        found[folder] = content(tmp_path / folder)
    assert found["a"] == found["b"]
    results = [key for key in found["a"] if key in ("out", "out.npy", "out/model.safetensors", "spread.npy")]
    assert results
    assert all(found["a"][key] != found["c"][key] for key in results)


@pytest.mark.slow
def test_a_sweep_is_the_same_with_two_workers(server, tmp_path):
    (tmp_path / "plan.yaml").write_text(
        "command: fit\ngenerate: {order: 3, dim: 5, rank: 2, observed: 60}\n"
        "base: {width: 4, iterations: 60, record_every: 20, threads: 1}\nseeds: 2\n"
    )
    for number in (1, 2):
        ended = server.run("sweep", "plan.yaml", "-o", f"s{number}", "--workers", number, cwd=tmp_path)
        assert ended.code == 0, ended
    one, two = (tmp_path / "s1" / "runs", tmp_path / "s2" / "runs")
    for run in ("seed=0", "seed=1"):
        for file in ("records.jsonl", "model.safetensors"):
            assert (one / run / file).read_bytes() == (two / run / file).read_bytes()


def test_float32_reports_its_loss_in_float64(server, tmp_path):
    """Compared with the loss of the saved model, entry by entry in float64."""
    assert server.run(*PREPARE[0].split(), cwd=tmp_path).code == 0
    argv = ["fit", "data.safetensors", "--width", "8", "--iterations", "600", "--lr", "0.05", "--until-loss", "1e-300"]
    for dtype in ("float32", "float64"):
        assert server.run(*argv, "--dtype", dtype, "-o", dtype, cwd=tmp_path).code == 0
    summary = {d: json.loads((tmp_path / d / "summary.json").read_text()) for d in ("float32", "float64")}
    assert "train_loss_float64" not in summary["float64"]
    problem, scale = prepare(load_observations(str(tmp_path / "data.safetensors")), FitConfig())
    assert scale == 1.0
    model = to_factorization(read(tmp_path / "float32" / "model.safetensors"))
    weights = [None if w is None else w.double().numpy() for w in model.node_weights]
    values = []
    for index in problem.train.index.tolist():
        at = [w[i] for w, i in zip(weights[: model.order], index, strict=True)]
        for node in model.tree.interior:
            product = np.prod([at[child] for child in model.tree.children[node]], axis=0)
            at.append(product @ weights[node])
        values.append(float(at[-1][0]))
    wanted = float(np.mean((np.array(values) - problem.train.value.numpy()) ** 2))
    assert summary["float32"]["train_loss_float64"] == pytest.approx(wanted, rel=1e-9)
    assert summary["float32"]["train_loss_float64"] != summary["float32"]["train_loss"]
    assert summary["float32"]["train_loss_float64"] == pytest.approx(summary["float32"]["train_loss"], rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_float32_gets_wrong_is_reported(server, tmp_path, seed):
    """At the floor of float32 the loss that it computes is its own rounding: how far off, the processor decides."""
    target = "generate tensor --order 3 --dim 4 --rank 1 --observed 60 -o data.safetensors"
    assert server.run(*target.split(), "--seed", seed, cwd=tmp_path).code == 0
    argv = "fit data.safetensors --width 1 --init-std 0.6 --iterations 4000 --lr 0.05 --optimizer sgd --momentum 0.9"
    ended = server.run(*argv.split(), "--seed", seed, "--until-loss", 1e-300, "-o", "run", cwd=tmp_path)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    rounded, exact = summary["train_loss"], summary["train_loss_float64"]
    assert 0 < exact < 1e-12
    message = f"train loss {rounded:.4g} is {exact:.4g} in float64, try --dtype float64"
    assert (message in ended.err) == (abs(rounded - exact) > 0.01 * exact)
    assert ("in float64" in ended.err) == (message in ended.err)


@pytest.mark.parametrize("modes", ["0,2", "0,1"])
def test_a_matricization_beyond_memory_is_refused(server, tmp_path, modes):
    """Neither a wrong answer nor a process that is killed: dense, and of a factorization off its tree."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((40, 40, 40, 40)))  # 20 MiB
    ended = server.run("measure-rank", "x.npy", "--matricization", modes, cwd=tmp_path, more_memory=55 << 20)
    assert ended.code == 1
    assert "does not fit in memory (got " in ended.error
    assert "Ask for smaller matricizations" in ended.error or "x.npy" in ended.error
    argv = "generate tensor --order 32 --dim 4 --rank 4 --observed 100 -o big.safetensors"
    assert server.run(*argv.split(), cwd=tmp_path).code == 0
    assert server.run("fit", "big.safetensors", "--width", 9, "--iterations", 2, "-o", "run", cwd=tmp_path).code == 0
    odd = ",".join(map(str, range(0, 32, 2)))
    ended = server.run("measure-rank", "run", "--matricization", odd, cwd=tmp_path)
    assert ended.code == 1
    assert "cuts the mode tree in too many places (got an intermediate of " in ended.error
