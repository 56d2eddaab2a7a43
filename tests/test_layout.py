"""The house: imports go downwards, files are short, the engine knows nothing of the command line."""

from __future__ import annotations

import ast
import shutil
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "htfcli"
FILES = sorted(PACKAGE.rglob("*.py"))

# Highest first: a file imports from its own folder and from lower ones only. The package's own files are at both ends.
FOLDERS = (
    "htfcli",
    "htfcli/commands",
    "htfcli/cli",
    "htfcli/api",
    "htfcli/experiments/paper",
    "htfcli/experiments/report",
    "htfcli/experiments/figures",
    "htfcli/experiments/sweeps",
    "htfcli/experiments/runs",
    "htfcli/files",
    "htfcli/files/tables",
    "htfcli/files/foreign",
    "htfcli/files/own",
    "htfcli/engine/entanglement",
    "htfcli/engine/vision",
    "htfcli/engine/vision/regularizer",
    "htfcli/engine/vision/datasets",
    "htfcli/engine/completion",
    "htfcli/engine/fitting",
    "htfcli/engine/observations",
    "htfcli/engine/least_squares",
    "htfcli/engine/ranks",
    "htfcli/engine/factorizations",
    "htfcli/engine",
    "htfcli/engine/runtime",
    "htfcli/config",
)
GROUND = {"htfcli.errors", "htfcli._version"}  # below every folder


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def depth_of(path: Path) -> int:
    if module_of(path) in GROUND:
        return len(FOLDERS)
    return FOLDERS.index(str(path.parent.relative_to(ROOT)))


def imports_of(path: Path) -> set[str]:
    """Modules a file imports, inside functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


def arrows(files: list[Path] = FILES) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports; packages themselves do not count."""
    modules = {module_of(path): path for path in files if path.name != "__init__.py"}
    return {module: imports_of(path) & modules.keys() - {module} for module, path in modules.items()}


def test_imports_go_downwards():
    paths = {module_of(path): path for path in FILES}
    upward = [
        f"{module} imports {other}"
        for module, others in arrows().items()
        for other in sorted(others)
        if depth_of(paths[other]) < depth_of(paths[module])
    ]
    assert upward == []


def test_no_files_import_each_other_in_a_circle():
    assert list(TopologicalSorter(arrows()).static_order())


def test_every_folder_is_listed():
    assert {str(path.parent.relative_to(ROOT)) for path in FILES if path.name != "__init__.py"} == set(FOLDERS)


def test_type_checking_imports_count(tmp_path):
    (tmp_path / "x.py").write_text("if TYPE_CHECKING:\n    from htfcli.files.own import container\n")
    assert "htfcli.files.own.container" in imports_of(tmp_path / "x.py")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", sorted((PACKAGE / "engine").rglob("*.py")), ids=module_of)
def test_the_engine_knows_nothing_of_the_command_line(path):
    assert command_line_words(path) == set()


def command_line_words(path: Path) -> set[str]:
    roots = {module.partition(".")[0] for module in imports_of(path)}
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    return (roots & {"typer", "rich", "sys", "argparse", "logging"}) | (names & {"print", "exit", "input"})


def test_the_check_above_can_fail_too(tmp_path):
    (tmp_path / "x.py").write_text("from rich.table import Table\nimport typer.core\nprint(3)\n")
    assert command_line_words(tmp_path / "x.py") == {"rich", "typer", "print"}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_nothing_is_unpickled_or_run(path):
    text = path.read_text()
    for word in ("pickle.", "yaml.load(", "eval(", "exec(", "os.system", "allow_pickle=True", "weights_only=False"):
        assert word not in text


def tracked(folder: Path) -> set[str]:
    """What git tracks at the top of a folder: not what a reader of the README has written beside it."""
    listed = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    names = subprocess.run(listed, cwd=folder, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name.partition("/")[0] for name in names if name}


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not a clone of the repository")
def test_top_level():
    allowed = {
        "htfcli", "tests", "sample_configs", "docs", "pyproject.toml", "constraints.txt", "mkdocs.yml",
        "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE",
    }  # fmt: skip
    assert {name for name in tracked(ROOT) if not name.startswith(".")} <= allowed


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_stray_files_at_the_top_level_do_not_count(tmp_path):
    for name in ("data.safetensors", "dynamics.png", "mine/own.txt", "ours/file.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for command in (["init", "-q"], ["add", "ours"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert tracked(tmp_path) == {"ours"}
