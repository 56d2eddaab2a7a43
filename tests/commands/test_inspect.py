from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def files(htf, tmp_path):
    tensor = np.arange(6.0).reshape(2, 3)
    tensor[0, 0] = np.nan
    np.save(tmp_path / "a.npy", tensor)
    (tmp_path / "a.csv").write_text("0,0,1\n1,2,3\n")
    htf("generate", "tensor", "--dim", 4, "--rank", "2,3", "--seed", 7, "-o", "data.safetensors")
    htf("fit", "data.safetensors", "--width", 4, "--iterations", 25, "--record-every", 10, "-o", "run")


def test_every_kind(htf, files):
    dense = htf("inspect", "a.npy").records[0]
    assert dense == {
        "kind": "dense tensor",
        "dims": [2, 3],
        "missing": 1,
        "min": 1.0,
        "max": 5.0,
        "rms": pytest.approx(11**0.5),
    }
    table = htf("inspect", "a.csv").records[0]
    assert (table["kind"], table["dims"], table["observed"]) == ("table", [2, 2], 2)
    data = htf("inspect", "data.safetensors").records[0]
    assert (data["kind"], data["task"], data["train"], data["test"]) == ("observations", "completion", 128, 128)
    assert (data["target"], data["target_ranks"]) == ("htf", [2, 2, 3])
    assert "seed=7" in data["config"]
    run = htf("inspect", "run").records[0]
    assert (run["kind"], run["model"], run["parameters"], run["dtype"]) == ("factorization", "htf", 100, "float32")
    assert (run["run_records"], run["run_iteration"]) == (4, 25)
    assert run["nodes"][-1] == {"node": "{0,1,2,3}", "children": ["{0,1}", "{2,3}"], "width": 4, "weights": [4, 1]}
    checkpoint = htf("inspect", "run/checkpoint.safetensors").records[0]
    assert (checkpoint["kind"], checkpoint["iteration"]) == ("checkpoint", 25)
    records = htf("inspect", "run/records.jsonl").records[0]
    assert (records["kind"], records["records"], records["iteration"]) == ("records of a fit", 4, 25)


def test_the_mode_tree_is_drawn(htf, files):
    out = htf("inspect", "run", "--format", "table").out
    assert "factorization" in out
    tree = out[out.index("{0,1,2,3}") :].splitlines()
    assert tree[0].split() == ["{0,1,2,3}", "width", "4,", "weights", "4", "x", "1"]
    assert tree[1].startswith("├── {0,1}")
    assert tree[2].startswith("│   ├── {0}")
    assert len(tree) == 7


def test_large_trees_are_drawn_in_part(htf):
    htf(
        "generate",
        "tensor",
        "--order",
        300,
        "--dim",
        2,
        "--rank",
        2,
        "--tree",
        "chain",
        "--observed",
        5,
        "--test",
        0,
        "--norm",
        1,
        "-o",
        "x",
    )
    out = htf("inspect", "x", "--format", "table").out
    assert "... 399 more nodes" in out
    assert out.count("\n") < 230


def test_nothing_there(htf):
    done = htf("inspect", "nowhere")
    assert (done.code, done.error) == (1, "nowhere does not exist.")
