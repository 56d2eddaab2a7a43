"""The README says what is true: its code runs, its commands exist, its files are there."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from htfcli.engine.factorizations.mode_tree import TREES, ModeTree
from htfcli.engine.vision.datasets.sources import SOURCES
from htfcli.experiments.figures.completions import PANELS
from htfcli.experiments.figures.fits import QUANTITIES
from htfcli.experiments.paper.published import NAMES
from htfcli.files.foreign.labelled_table import TABLES
from htfcli.files.foreign.readers import READERS
from tests import option_tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONFIGS = sorted((ROOT / "sample_configs").glob("*.yaml"))


def test_every_command_tree_quantity_and_format_is_there():
    for name in option_tables.command_names():
        assert f"### htf {name}" in README
    for name in (*TREES, *NAMES, *QUANTITIES, *PANELS, *READERS, *TABLES, *SOURCES):
        assert f"`{name}" in README, name


def test_trees_are_what_the_table_says():
    rows = re.findall(r"^\| `([\w:]+)` \|.*\| `(\[.*\])` \|$", README, re.M)
    assert len(rows) == 5
    for name, nested in rows:
        assert ModeTree.named(name, 8).to_nested() == yaml.safe_load(nested)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
    titles = re.findall(r"^#+ (.+)$", README, re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(#([^)]+)\)", README):
        assert target in anchors, target


def test_continuous_integration_calls_the_test_command():
    command = next(line.strip() for line in README.splitlines() if ".venv-test/bin/pytest" in line)
    assert command in (ROOT / ".ci/run").read_text().splitlines()


def test_options_are_those_of_the_commands():
    """All of them, said as `--help` does."""
    stands, made = option_tables.written(README), option_tables.tables()
    assert stands.keys() == made.keys()
    for name, table in made.items():
        assert stands[name] == table, f"{name}: python -m tests.option_tables writes the tables anew"


def test_docs_holds_only_what_the_readme_links():
    linked = set(re.findall(r"\]\((docs/[^)]+)\)", README))
    linked |= {f"docs/{name}" for name in re.findall(r"\]\(([^)/]+)\)", (ROOT / "docs/reproduced.md").read_text())}
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*") if path.is_file()} == linked


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
        text = [",".join([*cell, "" if n % 9 == 0 else str(n)]) for n, cell in enumerate(cells)]
        (tmp_path / args[1]).write_text("\n".join([",".join([*names, config["value"]]), *text]) + "\n")
        (tmp_path / "queries.csv").write_text("\n".join([",".join(names), *map(",".join, cells[:5])]) + "\n")
    done = htf(*args, "--set", "seconds=2", "--set", "splits=1")
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
