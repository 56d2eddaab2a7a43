"""The house: imports go downwards, files are short, the engine knows nothing of the command line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "htfcli"
FILES = sorted(PACKAGE.rglob("*.py"))

# Highest first; a file imports only from its own layer and from lower ones.
LAYERS = (
    "htfcli.app htfcli.__main__",
    "htfcli.commands",
    "htfcli.cli.console",
    "htfcli.cli.options",
    "htfcli.cli.interrupts htfcli.cli.usage",
    "htfcli.experiments",
    "htfcli.files",
    "htfcli.engine.vision.training htfcli.engine.vision.locality",
    "htfcli.engine.vision.regularizer.non_local",
    "htfcli.engine.vision.regularizer.directional_derivative htfcli.engine.vision.resnet htfcli.engine.vision.regularizer.patches",
    "htfcli.engine.vision.datasets.is_same_class htfcli.engine.vision.datasets.pathfinder",
    "htfcli.engine.vision.datasets.sources",
    "htfcli.engine.vision.datasets.cifar10 htfcli.engine.vision.datasets.image_folder",
    "htfcli.engine.vision.datasets.labelled",
    "htfcli.engine.vision.datasets.image_set htfcli.engine.vision.datasets.drawn_shapes htfcli.engine.vision.datasets.pathfinder_drawing",
    "htfcli.engine.runtime.processes",
    "htfcli.engine.completion.complete",
    "htfcli.engine.completion.report",
    "htfcli.engine.completion.model_selection htfcli.engine.completion.search.candidate_trees htfcli.engine.completion.diagnostics",
    "htfcli.engine.completion.search.large_scale",
    "htfcli.engine.completion.search.width_search",
    "htfcli.engine.completion.search.ridge_path",
    "htfcli.engine.completion.predictor htfcli.engine.completion.search.spectral_start",
    "htfcli.engine.observations.centring",
    "htfcli.engine.fitting.batched",
    "htfcli.engine.fitting.gradient_descent",
    "htfcli.engine.fitting.second_order",
    "htfcli.engine.fitting.records htfcli.engine.observations.synthetic",
    "htfcli.engine.least_squares.alternating htfcli.engine.completion.search.rank_truncation",
    "htfcli.engine.completion.search.initialization htfcli.engine.least_squares.levenberg_marquardt",
    "htfcli.engine.ranks.distance htfcli.engine.ranks.local_components",
    "htfcli.engine.ranks.hierarchical_rank",
    "htfcli.engine.factorizations.registry",
    "htfcli.engine.factorizations.hierarchical htfcli.engine.factorizations.cp htfcli.engine.factorizations.deep_matrix",
    "htfcli.engine.least_squares.jacobian",
    "htfcli.engine.factorizations.factorization",
    "htfcli.engine.factorizations.evaluation",
    "htfcli.engine.factorizations.subtree_tables",
    "htfcli.engine.observations.observations htfcli.engine.ranks.matricization htfcli.engine.fitting.optimizers",
    "htfcli.engine.factorizations.mode_tree htfcli.engine.fitting.losses",
    "htfcli.engine.least_squares.entry_groups htfcli.engine.least_squares.leaf_normal_equations",
    "htfcli.engine.training",
    "htfcli.config",
    "htfcli.engine.runtime.memory",
    "htfcli.errors htfcli._version htfcli.cli.units",
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer(module: str) -> int:
    for depth, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names.split()):
            return depth
    raise AssertionError(f"{module} has no layer in tests/test_layout.py")


def imports_of(path: Path) -> set[str]:
    """Modules a file imports, inside functions too; for type checkers only does not count."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def upward(path: Path) -> list[str]:
    own = layer(module_of(path))
    modules = {module_of(p) for p in FILES}
    packages = {module_of(p) for p in FILES if p.name == "__init__.py"}
    return sorted(m for m in imports_of(path) & modules - packages if layer(m) < own)


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "__init__.py"], ids=module_of)
def test_imports_go_downwards(path):
    assert upward(path) == []


def test_the_check_above_can_fail(tmp_path, monkeypatch):
    low, file = PACKAGE / "errors.py", tmp_path / "x.py"
    file.write_text("def f():\n    from htfcli.files import container\n")
    monkeypatch.setattr("tests.test_layout.imports_of", lambda path, read=imports_of: read(file))
    assert "htfcli.files.own.container" in upward(low)


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


def test_top_level():
    allowed = {
        "htfcli", "tests", "sample_configs", "docs", "pyproject.toml", "constraints.txt",
        "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE",
    }  # fmt: skip
    present = {
        path.name for path in ROOT.iterdir() if not path.name.startswith(".") and not path.name.endswith(".egg-info")
    }
    assert present - {"dist", "build", "runs"} <= allowed
