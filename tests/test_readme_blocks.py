"""Every code block of the README runs as it stands, in the order in which a reader meets them, in one folder.

Blocks under `<!-- not run: reason -->` are checked only: their commands and options exist. What a console block shows is
compared with what comes out: the words as they are, numbers roughly, times and threads not at all.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

import htfcli
from tests.option_tables import command_names, options_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
_BLOCK = re.compile(r"^(?:<!-- not run: ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", re.M | re.S)
_ROUGHLY = 0.25  # numbers of the README are of another machine
_TOOLS = {
    "htf",
    "jq",
    "python",
    "python3",
    "cat",
    "pip",
    "dask",
    "srun",
    "sleep",
    "torchrun",
    "until",
    "do",
    "done",
    ".",
}


@dataclass(frozen=True)
class Block:
    """A code block: its number and language, its text, and why it is not run, if it is not."""

    number: int
    language: str
    text: str
    reason: str

    @property
    def name(self) -> str:
        return f"{self.number}-{self.language}"

    @property
    def commands(self) -> list[str]:
        """The shell commands, a line each."""
        text = self.text.replace("\\\n", " ").replace("|\n", "| ").replace("&&\n", "&& ")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return [line.removeprefix("$ ") for line in lines if self.language == "bash" or line.startswith("$ ")]


BLOCKS = [Block(n, m[2], m[3], m[1] or "") for n, m in enumerate(_BLOCK.finditer(README))]
SHELL = [block for block in BLOCKS if block.language in ("bash", "console")]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def test_every_block_is_of_a_kind_that_is_checked():
    assert {block.language for block in BLOCKS} == {"bash", "console", "python", "yaml", "bibtex"}
    assert README.count("```") == 2 * len(BLOCKS)
    assert README.count("<!-- not run") == sum(bool(block.reason) for block in BLOCKS)
    assert not re.search(r"^(?: {4}|\t)\S", re.sub(_BLOCK, "", README), re.M), "an indented block runs nowhere"


def test_few_blocks_are_not_run():
    assert sum(bool(block.reason) for block in SHELL) <= 10
    assert not any(block.reason for block in PYTHON)


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the README takes for granted: data of the reader's, sample configurations."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "sample_configs", folder / "sample_configs")
    random = np.random.default_rng(0)
    full = np.einsum("ir,jr,kr->ijk", *(random.normal(size=(d, 2)) for d in (6, 5, 4)))
    cube = np.where(random.random(full.shape) < 0.2, np.nan, full)
    np.save(folder / "full.npy", full)
    np.save(folder / "cube.npy", cube)
    cells = list(itertools.product(range(6), range(5), range(4)))
    rows = [f"L{i},{10**j},c{k},{'' if np.isnan(cube[i, j, k]) else cube[i, j, k]}" for i, j, k in cells]
    (folder / "experiments.csv").write_text("\n".join(["ligand,dose,cell,response", *rows]) + "\n")
    (folder / "queries.csv").write_text("ligand,dose,cell\nL0,10,c1\nL5,1000,c2\n")
    ratings = [f"{i},{j},{k},{full[i, j, k]}" for i, j, k in cells if (i + j + k) % 5]
    (folder / "ratings.csv").write_text("\n".join(ratings) + "\n")
    plan = next(block for block in BLOCKS if block.language == "yaml")
    (folder / "plan.yaml").write_text(plan.text)
    network = "import torch\n\ndef network(channels, outputs):\n    return torch.nn.Sequential(\n"
    network += "        torch.nn.Conv2d(channels, 4, 5, 4), torch.nn.ReLU(), torch.nn.Flatten(),\n"
    network += "        torch.nn.LazyLinear(outputs))\n".replace("Lazy", "").replace("(outputs)", "(900, outputs)")
    (folder / "mine.py").write_text(network)
    code = "import mine, torch; torch.save(mine.network(1, 1).state_dict(), 'mine.pt')"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    return folder


def in_shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line in bash, with this interpreter's htf and python; any part of a pipe may fail it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    bash = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(bash, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("block", [b for b in SHELL if not b.reason], ids=lambda block: block.name)
def test_shell_blocks_run(folder, block):
    if "jq " in block.text and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    if block.language == "bash":
        for line in block.commands:
            done = in_shell(line, folder)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
        return
    for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
        line, _, shown = part.partition("\n")
        done = in_shell(f"{{ {line} ; }} 2>&1", folder)
        assert done.returncode == 0, done.stdout
        assert_alike(shown, done.stdout)


def assert_alike(shown: str, real: str) -> None:
    """The same words in the same order, numbers roughly alike. Lines are sorted: parts of a pipe narrate at once."""
    left, right = (
        sorted(" ".join(line.split()) for line in text.splitlines() if line.strip()) for text in (shown, real)
    )
    assert [words(line) for line in left] == [words(line) for line in right]
    for a, b in zip(left, right, strict=True):
        assert numbers(a) == pytest.approx(numbers(b), rel=_ROUGHLY, abs=0.1), f"{a}\n{b}"


_NUMBER = r"(?<![\w.])[\d,]*\.?\d+(?:e[-+]?\d+)?(?![\w.]*[\d\w])"


def words(line: str) -> str:
    return re.sub(_NUMBER, "#", settled(line))


def numbers(line: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(_NUMBER, settled(line)) if number.strip(",")]


def settled(line: str) -> str:
    """Without what differs from run to run: times and the number of threads."""
    return re.sub(r"\(\d+ threads?\)", "(threads)", re.sub(r"after [\d.,]+ \w+", "after a time", line))


def test_the_comparison_can_fail():
    assert_alike("b 2.0 of 1,000\na after 3 s", "a after 4.5 s\nb 2.1 of 1,001")
    for wrong in ("b 2.0 of 1,000", "b 9.0 of 1,000\na after 3 s", "c 2.0 of 1,000\na after 3 s"):
        with pytest.raises(AssertionError):
            assert_alike("b 2.0 of 1,000\na after 3 s", wrong)


def calls() -> list[tuple[str, list[str]]]:
    """Command and options of every call of htf in any shell block, run or not."""
    found = []
    for line in (line for block in SHELL for line in block.commands):
        for part in re.split(r"\s(?:\||&&|;)\s|\s&(?!\S)", line.replace("-m htfcli", "htf")):
            args = shlex.split(re.split(r"\s\d?>", part)[0])
            args = args[args.index("htf") + 1 :] if "htf" in args else []
            if args and not args[0].startswith("-"):
                name = " ".join(args[:2]) if args[0] == "generate" else args[0]
                found.append((name, [arg.partition("=")[0] for arg in args if re.match(r"--?[a-z]", arg)]))
    return found


def test_options_of_every_example_exist():
    known = {name: set(re.findall(r"--?[a-z][a-z-]*", " ".join(options_of(name)))) for name in command_names()}
    for name, options in calls():
        assert set(options) <= known[name], name


@pytest.mark.parametrize("name", command_names())
def test_every_command_has_two_examples(name):
    assert sum(called == name for called, _ in calls()) >= 2


def test_blocks_that_are_not_run_are_shell(folder):
    for block in (b for b in SHELL if b.reason and b.language == "bash"):
        assert subprocess.run(["bash", "-n", "-c", block.text], check=False).returncode == 0
        for line in block.commands:
            words = [part.split()[0] for part in re.split(r"&&|\|(?!\|)|;", line) if part.strip()]
            assert {re.sub(r"^.*/", "", word) for word in words if "=" not in word} <= _TOOLS | {"pytest"}, line


def test_the_plan_is_one():
    plan = yaml.safe_load(next(block for block in BLOCKS if block.language == "yaml").text)
    assert plan["command"] == "fit"


# --- Python -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.name)
def test_python_blocks_run(block, capsys):
    exec(compile(block.text, "README.md", "exec"), {})
    out = capsys.readouterr().out
    for number in re.findall(r"^R (.*)$", out, re.M):
        assert 0 < float(number) < 1
    if "FitConfig" in block.text:
        assert float(out.split()[0]) < 0.5


def test_every_public_name_has_an_example():
    used = {
        alias.name
        for block in PYTHON
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.ImportFrom) and node.module == "htfcli"
        for alias in node.names
    }
    assert used == set(htfcli.__all__) - {"__version__"}
    for block in PYTHON:
        names = [node.id for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Name)]
        imported = [a.name for n in ast.walk(ast.parse(block.text)) if isinstance(n, ast.ImportFrom) for a in n.names]
        assert set(imported) <= set(names), "imported and not used"
