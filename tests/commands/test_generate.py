from __future__ import annotations

import numpy as np
import pytest


def test_record_and_file(htf):
    done = htf("generate", "tensor", "--observed", 2048, "--seed", 0, "-o", "data.safetensors")
    assert (done.code, done.err) == (0, "")
    assert done.records == [
        {
            "kind": "observations",
            "output": "data.safetensors",
            "target": "htf",
            "task": "completion",
            "dims": [8, 8, 8, 8],
            "train": 2048,
            "test": 2048,
        }
    ]
    inspected = htf("inspect", "data.safetensors").records[0]
    assert inspected["target_ranks"] == [5, 5, 5]
    assert "seed=0" in inspected["config"]


def test_the_same_seed_is_the_same_file(htf, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert htf("generate", "tensor", "--dim", 4, "--seed", seed, "-o", name).code == 0
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_configuration_from_everywhere(htf, tmp_path):
    (tmp_path / "c.yaml").write_text("dim: 3\nrank: [2, 3]\nobserved: 0.25\ntree: [[0, 2], [1, 3]]\n")
    done = htf("generate", "tensor", "--config", "c.yaml", "--set", "observed=7", "--test", 2, "-o", "x")
    assert (done.records[0]["train"], done.records[0]["test"], done.records[0]["dims"]) == (7, 2, [3, 3, 3, 3])
    printed = htf(
        "generate", "tensor", "--config", "c.yaml", "--set", "dim=5", "--dim", 6, "--print-config", "-o", "y"
    ).out
    assert "dim: 6\n" in printed
    assert "observed: '0.25'\n" in printed
    (tmp_path / "printed.yaml").write_text(printed)
    assert htf("generate", "tensor", "--config", "printed.yaml", "--print-config").out == printed


def test_rank_is_another_name_of_width(htf, tmp_path):
    """As an option, in a YAML file and with --set; the stronger source wins whichever name it uses."""
    files = {}
    for name, args in {
        "option": ("--width", "2,3"),
        "alias": ("--rank", "2,3"),
        "set": ("--set", "rank=[2, 3]"),
        "stronger": ("--set", "rank=4", "--width", "2,3"),
        "weaker": ("--set", "width=4", "--rank", "2,3"),
    }.items():
        assert htf("generate", "tensor", "--dim", 3, *args, "-o", name).code == 0
        files[name] = (tmp_path / name).read_bytes()
    assert len(set(files.values())) == 1
    (tmp_path / "old.yaml").write_text("rank: [2, 3]\n")
    printed = htf("generate", "tensor", "--config", "old.yaml", "--print-config").out
    assert "width:\n- 2\n- 3\n" in printed
    assert "rank" not in printed
    done = htf("generate", "tensor", "--set", "rank=2", "--set", "width=3", "-o", "x")
    assert (done.code, done.error) == (2, "rank and width are the same setting. Give one of them.")


def test_mask(htf, tmp_path):
    mask = np.zeros((3, 4), bool)
    mask[1] = True
    np.save(tmp_path / "mask.npy", mask)
    done = htf(
        "generate", "tensor", "--target", "matrix", "--dims", "3,4", "--rank", 2, "--mask", "mask.npy", "-o", "x"
    )
    assert (done.records[0]["train"], done.records[0]["test"]) == (4, 8)
    np.save(tmp_path / "mask.npy", np.full((3, 4), 0.5))
    done = htf("generate", "tensor", "--target", "matrix", "--dims", "3,4", "--mask", "mask.npy", "-o", "y")
    assert (done.code, done.error) == (1, "mask.npy is not a mask (allowed a dense array of True and False).")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("--observed 4097", 2, "more entries requested than the tensor has (got 4097, allowed 0 to 4096)."),
        ("--observed 1.5", 2, "a fraction of observations is out of range (got 1.5, allowed 0.0 to 1.0)."),
        ("--observed many", 2, "not a number of observations (got many, allowed a count such as 2048, or a fraction such as 0.5)."),
        ("--width 0", 2, "the width of node {0,1} is not positive (got 0, allowed 1 or more)."),
        ("--rank 5,x", 2, "width: not a width (got '5,x', allowed 32, or 8,16 per level, or per node as {'{0,1}': 8, default: 4})."),
        ("--dims 3,0,2", 2, "dims: not dimensions (got '3,0,2', allowed two or more positive numbers, as 13,4,12,8)."),
        ("--dim x", 2, "dim: input should be a valid integer, unable to parse string as an integer (got 'x')."),
        ("--norm -1 --noise -2", 2, "2 problems: norm: input should be greater than 0 (got '-1'); "
         "noise: input should be greater than or equal to 0 (got '-2')."),
        ("--norm inf", 2, "norm: input should be a finite number (got 'inf')."),
        ("--order 3 --dims 4,4", 2, "order and dims disagree (got 3 and 2 dimensions)."),
        ("--target cp --tree star", 2, "tree: only for target htf or hierarchical-tucker (got target cp)."),
        ("--target matrix --order 3", 2, "target matrix has two modes (got 3)."),
        ("--target other", 2, "Invalid value for '--target': 'other' is not one of 'htf', 'cp', 'matrix', 'tucker', 'tensor-train', "
         "'hierarchical-tucker'. "
         "See 'htf generate tensor --help'."),
        ("--tree blanced", 2, "unknown mode tree (got blanced, allowed balanced, half, square, chain, star, layered). "
         "Did you mean balanced? Nested lists are possible too, e.g. '[[0, 1], [2, 3]]'."),
        ("--tree [[0,1],[2,2]]", 2, "a mode appears twice in the mode tree (got mode 2)."),
        ("--tree [[0,1],[2", 2, "the value is not valid YAML at line 1, column 10: expected ',' or ']', but got '<stream end>'."),
        ("--set rnk=3", 2, "unknown setting rnk (Did you mean rank?)."),
        ("--set rank", 2, "--set takes key=value (got 'rank', allowed e.g. --set lr=0.01)."),
        ("--config no.yaml", 2, "cannot read the configuration no.yaml: No such file or directory."),
        ("--order 32 --dim 4", 2, "too many entries requested (got 9.22e+18, allowed 1,000,000,000). Give a count, e.g. 20000."),
        ("--order 1000 --dim 4", 2, "too many entries requested (got far more, allowed 1,000,000,000). Give a count, e.g. 20000."),
        ("--mask no.npy --observed 9", 2, "mask and observed exclude each other: give one (got observed 9)."),
        ("--dims 5", 2, "dims: not dimensions (got '5', allowed two or more positive numbers, as 13,4,12,8)."),
        ("--seed 99999999999999999999", 2, "seed: input should be less than or equal to 9223372036854775807 (got '99999999999999999999')."),
        ("--mask no.npy", 1, "cannot read no.npy: No such file or directory."),
        ("--rnk 3", 2, "No such option: --rnk. Did you mean --rank? See 'htf generate tensor --help'."),
        ("-o no/where.safetensors", 1, "cannot write no/where.safetensors: No such file or directory."),
        ("-o .", 2, ". is a folder (allowed a file)."),
    ],
)  # fmt: skip
def test_bad_usage(htf, tmp_path, args, code, message):
    done = htf("generate", "tensor", *([] if args.startswith("-o ") else ["-o", "x"]), *args.split())
    assert (done.code, done.error) == (code, message)
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_existing_file(htf):
    assert htf("generate", "tensor", "-o", "x").code == 0
    done = htf("generate", "tensor", "-o", "x")
    assert (done.code, done.error) == (2, "x exists. Choose another name, or replace it with --force.")
    assert htf("generate", "tensor", "-o", "x", "--force").code == 0


def test_output_is_required(htf):
    done = htf("generate", "tensor")
    assert (done.code, done.error) == (2, "no output file. Name one with -o, or - for stdout.")
    assert htf("generate", "tensor", "--print-config").code == 0
