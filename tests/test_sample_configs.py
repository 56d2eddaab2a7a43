"""Sample configurations run by the command in their first line, with few iterations or images."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "sample_configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_sample_configurations_run(htf, tmp_path, path):
    """Each by the command in its first line, with few iterations or images."""
    command = shlex.split(path.read_text().splitlines()[0].removeprefix("# "))
    args = [str(path) if a.startswith("sample_configs/") else a for a in command[1:]]
    if args[0] == "sweep":
        run_plan(htf, tmp_path, path)
        return
    if args[0] == "complete":
        run_complete_configuration(htf, tmp_path, args)
        return
    if args[0] == "fit":
        target = {"cp.safetensors": "cp", "matrix.safetensors": "matrix"}.get(args[1], "hierarchical")
        source = ROOT / f"sample_configs/target_{target}.yaml"
        held_out = ("--test", 0) if "own_data" in path.stem else ()
        assert htf("generate", "tensor", "--config", source, "-o", "data.safetensors", *held_out).code == 0
        args = [args[0], "data.safetensors", *args[2:], "--set", "iterations=10"]
    elif args[1] != "tensor":
        args += ["--train", "20", "--test", "20"]
    if args[0] == "train-cnn":
        args += ["--train", "4", "--test", "2", "--epochs", "1"]
        if "source: cifar10" in path.read_text():  # not downloaded by tests
            args += ["--source", "shapes", "--no-download"]
    done = htf(*args)
    assert done.code == 0, done.err
    assert done.records


def run_complete_configuration(htf, tmp_path, args):
    """On data of a few entries, in the columns that the file names."""
    config = yaml.safe_load(Path(args[args.index("--config") + 1]).read_text())
    if args[1].endswith(".npy"):
        np.save(tmp_path / args[1], np.where(np.eye(4, 3) == 1, -999.0, np.arange(60.0).reshape(5, 4, 3)))
    else:
        names = config["index"]
        cells = list(itertools.product("abc", repeat=len(names)))
        text = [",".join([*cell, "" if n % 9 == 0 else str(1 + n % 5)]) for n, cell in enumerate(cells)]
        (tmp_path / args[1]).write_text("\n".join([",".join([*names, config["value"]]), *text]) + "\n")
        (tmp_path / "queries.csv").write_text("\n".join([",".join(names), *map(",".join, cells[:5])]) + "\n")
    done = htf(*args, "--set", "seconds=2")
    assert done.code == 0, done.err
    assert done.records[0]["predicted"] > 0


def run_plan(htf, tmp_path, path):
    """All its runs are planned; one of them is done, with few iterations."""
    assert len(htf("sweep", path, "--dry-run").records) >= 12
    plan = yaml.safe_load(path.read_text())
    for part in ("grid", "zip"):
        plan[part] = {key: values[:1] for key, values in plan.get(part, {}).items()}
    plan |= {"base": {**plan["base"], "iterations": 10, "record_every": 5}, "seeds": 1}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    done = htf("sweep", "plan.yaml")
    assert done.code == 0, done.err
    assert [record["status"] for record in done.records] == ["finished"]


def test_there_are_sample_configurations():
    assert len(CONFIGS) >= 20
