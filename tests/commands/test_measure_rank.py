from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def run(htf):
    htf("generate", "tensor", "--dim", 4, "--rank", 2, "--test", 9, "-o", "data.safetensors")
    assert htf("fit", "data.safetensors", "--width", 4, "--iterations", 30, "-o", "run").code == 0
    return "run"


def test_factorization(htf, run):
    done = htf("measure-rank", run, "--tolerance", 1e-9, "--matricization", "0,2", "--top", 3)
    assert (done.code, done.err) == (0, "")
    assert [r["node"] for r in done.records] == ["{0}", "{1}", "{2}", "{3}", "{0,1}", "{2,3}", "{0,2}"]
    pair = done.records[4]
    assert (pair["kind"], pair["modes"], pair["shape"], pair["tolerance"]) == ("rank", [0, 1], [16, 16], 1e-9)
    assert pair["rank"] == 4
    assert pair["energy"] == pytest.approx(1.0)
    assert 1 <= pair["effective_rank"] <= 4
    assert len(pair["singular_values"]) == 3


def test_dense_is_what_factored_is(htf, run, tmp_path):
    from htfcli.files.own.artefacts import to_factorization
    from htfcli.files.own.container import read

    model = to_factorization(read(tmp_path / run / "model.safetensors"))
    np.save(tmp_path / "dense.npy", model.dense().double().numpy())
    factored, dense = htf("measure-rank", run).records, htf("measure-rank", "dense.npy").records
    for a, b in zip(factored, dense, strict=True):
        assert a["node"] == b["node"]
        k = len(a["singular_values"])
        assert a["singular_values"] == pytest.approx(
            b["singular_values"][:k], rel=1e-4, abs=1e-6 * a["singular_values"][0]
        )


@pytest.mark.parametrize("tree", ["half", "chain", "star", "[[[0, 3], 2], 1]"])
def test_other_trees(htf, run, tree):
    nodes = [r["modes"] for r in htf("measure-rank", run, "--tree", tree).records]
    assert nodes[:4] == [[0], [1], [2], [3]]
    assert [2, 3] not in nodes


def test_every_dense_format(htf, tmp_path):
    tensor = np.random.default_rng(0).random((3, 4, 2))
    np.save(tmp_path / "a.npy", tensor)
    rows = [f"{i},{j},{k},{tensor[i, j, k]}" for i, j, k in np.ndindex(tensor.shape)]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    wanted = htf("measure-rank", "a.npy").out
    assert htf("measure-rank", "a.csv").out == wanted
    htf(
        "generate",
        "tensor",
        "--dims",
        "3,4",
        "--target",
        "matrix",
        "--rank",
        2,
        "--observed",
        "1.0",
        "-o",
        "full.safetensors",
    )
    assert [r["rank"] for r in htf("measure-rank", "full.safetensors", "--tolerance", 1e-9).records] == [2, 2]


def test_table(htf, run):
    lines = htf("measure-rank", run, "--format", "table").out.splitlines()
    assert "effective" in "".join(lines[:3])
    assert any("{0,1}" in line for line in lines)


def test_shapes_beyond_numbers(htf, tmp_path):
    htf(
        "generate",
        "tensor",
        "--order",
        520,
        "--dim",
        4,
        "--rank",
        2,
        "--observed",
        "10",
        "--test",
        "0",
        "--norm",
        1,
        "-o",
        "x",
    )
    assert htf("fit", "x", "--width", 2, "--init-std", 1, "--iterations", 0, "-o", "run").code == 0
    done = htf("measure-rank", "run")
    assert done.code == 0
    assert done.records[0]["shape"] == [4, "10^312"]
    assert done.records[0]["rank"] >= 1


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("{run} --tree [[0,1],2]", 2, "the mode tree does not fit the tensor (got 3 modes, allowed 4)."),
        ("{run} --matricization 0,1,2,3", 2, "a matricization needs at least one mode, but not all, and each once (got 0,1,2,3, allowed modes from 0 to 3)."),
        ("{run} --tolerance 1", 2, "tolerance: input should be less than 1 (got '1')."),
        ("{run} --top 0", 2, "top: input should be greater than or equal to 1 (got '0')."),
        ("{run} --dims 4,4,4,4", 2, "--dims is for tables; this input has its own dimensions (got [4, 4, 4, 4])."),
        ("run/records.jsonl", 1, "records holds something else (got records, allowed factorization or completion or observations)."),
        ("data.safetensors", 1, "the observations do not cover the tensor (got 137 of 256 entries). Fit a factorization to them first: htf fit."),
        ("run/checkpoint.safetensors", 1, "run/checkpoint.safetensors holds something else (got checkpoint, allowed factorization or completion or observations)."),
        ("nowhere", 1, "nowhere does not exist."),
    ],
)  # fmt: skip
def test_bad_usage(htf, run, args, code, message):
    done = htf("measure-rank", *args.replace("{run}", run).split())
    assert (done.code, done.error) == (code, message)
    assert done.out == ""


def test_arity_alone_is_that_of_a_balanced_tree(htf, run):
    assert [r["modes"] for r in htf("measure-rank", run, "--arity", 3).records][4:] == [[0, 1, 2]]


def test_settings_from_a_file(htf, run, tmp_path):
    (tmp_path / "c.yaml").write_text("tree: [[0, 2], [1, 3]]\ntolerance: 0.5\n")
    records = htf("measure-rank", run, "--config", "c.yaml").records
    assert [r["modes"] for r in records[4:]] == [[0, 2], [1, 3]]
    assert {r["tolerance"] for r in records} == {0.5}


@pytest.mark.parametrize("tree", ["balanced", "chain"])
def test_large_orders_from_the_command_line(htf, tree):
    """Nothing is built: 2^200 entries."""
    args = ("--order", 200, "--dim", 2, "--rank", 3, "--tree", tree, "--observed", 5, "--test", 0, "--norm", 1)
    htf("generate", "tensor", *args, "-o", "data.safetensors")
    htf("fit", "data.safetensors", "--tree", tree, "--width", 3, "--init-std", 0.5, "--iterations", 0, "-o", "run")
    records = htf("measure-rank", "run").records
    assert len(records) == 398
