"""The documentation says what is true: its code runs and gives what it shows, its reference is that of the commands.

Outputs are compared by shape (`tests.documentation.shape`), not by digits. Blocks marked long run under `pytest -m long`.
`python -m tests.documentation` writes outputs, pictures and reference anew.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import htfcli
from htfcli.engine.factorizations.mode_tree import TREES, ModeTree
from htfcli.engine.vision.datasets.sources import SOURCES
from htfcli.experiments.figures.completions import PANELS
from htfcli.experiments.figures.fits import QUANTITIES
from htfcli.experiments.paper.published import NAMES
from htfcli.files.foreign.readers import READERS
from htfcli.files.tables.formats import TABLES
from tests.documentation import reference
from tests.documentation.pages import DOCS, PAGES, ROOT, Block, blocks_of, prose_of
from tests.documentation.running import run_page
from tests.documentation.shape import masked, shape

TEXTS = {page: page.read_text() for page in PAGES}
SITE = "\n".join(text for page, text in TEXTS.items() if page != ROOT / "README.md")
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHELL = [block for block in BLOCKS if block.shell]
PYTHON = [block for block in BLOCKS if block.language == "python"]
RENEW = "python -m tests.documentation writes it anew"
WAITING_PAGES: set[str] = set()


def of_page(block: Block) -> str:
    return f"{block.page.relative_to(ROOT)}: {block.text}"


def pages_with(blocks: list[Block]) -> list[Path]:
    return [page for page in PAGES if any(block.page == page for block in blocks)]


# --- what pages show --------------------------------------------------------------------------------------------------


def check(page: Path, folder: Path, long: bool) -> None:
    if "| jq " in TEXTS[page] and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    for shown, made in run_page(page, folder, long):
        if shown.language == "console":
            pairs = zip(shown.parts, made.parts, strict=True)
            for (command, before), (_, after) in pairs:
                labels = shown.long
                assert shape(before, labels) == shape(after, labels), f"{page.name}: {command}\n{after}\n{RENEW}"
        else:
            assert shape(shown.text) == shape(made.text), f"{page.name}:\n{made.text}\n{RENEW}"


@pytest.mark.parametrize("page", pages_with([b for b in BLOCKS if b.runs and not b.long]), ids=lambda page: page.stem)
def test_blocks_give_what_pages_show(tmp_path, page):
    check(page, tmp_path, long=False)


@pytest.mark.long
@pytest.mark.parametrize("page", pages_with([b for b in BLOCKS if b.runs and b.long]), ids=lambda page: page.stem)
def test_long_blocks_give_what_pages_show(tmp_path, page):
    check(page, tmp_path, long=True)


def test_console_blocks_have_been_run():
    console = [block for block in SHELL if block.language == "console" and block.runs]
    empty = {block.page.stem for block in console if not any(output for _, output in block.parts)}
    assert empty == WAITING_PAGES, RENEW


def test_the_reference_is_that_of_the_commands():
    assert reference.PATH.read_text() == reference.reference(), RENEW


@pytest.mark.parametrize(
    ("shown", "made", "same"),
    [
        ("b 2.0 of 1,000\na after 3 s", "a after 4.5 min\nb 21 of 1,001", True),
        ("b 2.0 of 1,000\na after 3 s", "b 2.0 of 1,000", False),
        ("tensor of 8 x 8 x 8 (2 threads)", "tensor of 13 x 4 (1 thread)", True),
        ('{"rank": 3}', '{"rank": 4}', True),
        ('{"rank": 3}', '{"ranks": 3}', False),
        ("rank  3\ntree  ((0, 1), 2)", "tree  (0, (1, 2))\nrank  2", True),
        ("rank of {0, 1}  3", "rank of {2}  3", True),
        ("rank  3", "size  3", False),
        ("done", "done twice", False),
        ("nan of 3", "0.5 of 3", True),
    ],
)
def test_the_shape_of_outputs(shown, made, same):
    assert (shape(shown) == shape(made)) is same


def test_labels_alone_are_compared_in_long_outputs():
    assert shape("centre  none\nWarning: few", labels=True) == shape("centre  mean", labels=True)
    assert shape("centre  none", labels=True) != shape("loss  none", labels=True)
    assert masked("held-out error 0.12 +- 0.01, 3 threads") == "held-out error # +- # threads"


# --- commands, options, names -----------------------------------------------------------------------------------------


def known_options() -> dict[str, set[str]]:
    names = {name: " ".join(reference.options_of(name)) for name in ["", *reference.command_names()]}
    return {name: set(re.findall(r"--?[a-z][a-z-]*", text)) for name, text in names.items()}


def calls(blocks: list[Block]) -> list[tuple[str, list[str], Block]]:
    """Command and options of every call of htf in shell blocks, run or not."""
    found = []
    for block in blocks:
        for line in block.commands:
            for part in re.split(r"\s(?:\|\|?|&&|;)\s|\s&(?!\S)|<\(", line.replace("-m htfcli", "htf")):
                words = shlex.split(re.split(r"\s\d?>", part)[0].replace(")", ""))
                args = words[words.index("htf") + 1 :] if "htf" in words else []
                if args and not args[0].startswith("-"):
                    name = " ".join(args[:2]) if args[0] == "generate" else args[0]
                    found.append((name, [a.partition("=")[0] for a in args if re.match(r"--?[a-z]", a)], block))
    return found


def test_options_of_every_example_exist():
    known = known_options()
    for name, options, block in calls(SHELL):
        if name == "measure-ranks":  # the wrong name that exit-codes.md shows
            continue
        assert set(options) <= known[name], of_page(block)


def test_options_named_in_the_text_exist():
    known = set().union(*known_options().values())
    named = {
        option
        for page in PAGES
        for code in re.findall(r"`([^`\n]+)`", prose_of(page))
        if not re.match(r"(pip|mkdocs|pytest|python|torchrun|tensorboard)\b|\.venv", code)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)
    }
    assert named <= known


@pytest.mark.parametrize("name", reference.command_names())
def test_every_command_is_shown_and_listed(name):
    others = [block for block in SHELL if block.page not in (reference.PATH, ROOT / "README.md")]
    assert any(called == name for called, _, _ in calls(others)), "an example outside the reference"
    assert f"htf {name}" in TEXTS[DOCS / "which-command.md"]
    assert f"htf {name.split()[0]}" in TEXTS[ROOT / "README.md"]


def test_every_tree_quantity_and_format_is_named():
    for name in (*TREES, *NAMES, *QUANTITIES, *PANELS, *READERS, *TABLES, *SOURCES):
        assert re.search(rf"`{re.escape(name)}|reproduce {name}", SITE), name


def test_trees_are_what_the_table_says():
    rows = re.findall(r"^\| `([\w:]+)` \|.*\| `(\[.*\])` \|$", TEXTS[DOCS / "reference/mode-trees.md"], re.M)
    assert len(rows) == 5
    for name, nested in rows:
        assert ModeTree.named(name, 8).to_nested() == yaml.safe_load(nested)


def test_every_public_name_has_its_place_and_an_example():
    used = {
        alias.name
        for block in PYTHON
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.ImportFrom) and node.module == "htfcli"
        for alias in node.names
    }
    public = set(htfcli.__all__) - {"__version__"}
    assert used == public
    documented = re.findall(r"^::: ([\w.]+)$", TEXTS[DOCS / "python.md"], re.M)
    assert {path.rpartition(".")[2] for path in documented} == public
    for path in documented:
        module, _, name = path.rpartition(".")
        assert getattr(htfcli, name).__module__ == module


def test_python_blocks_use_what_they_import():
    for block in PYTHON:
        tree = ast.parse(block.text)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        bound = {(a.asname or a.name).partition(".")[0] for node in imports for a in node.names}
        assert bound <= names, of_page(block)


# --- blocks and links -------------------------------------------------------------------------------------------------


def test_every_block_is_of_a_kind_that_is_checked():
    kinds = {"bash", "console", "python", "text", "yaml", "csv", "math", "bibtex"}
    for page, text in TEXTS.items():
        blocks = [block for block in BLOCKS if block.page == page]
        assert {block.language for block in blocks} <= kinds, page
        assert text.count("```") == 2 * len(blocks), page
        assert len(re.findall(r"<!-- (?:long|output|not run)", text)) == sum(bool(b.mark) for b in blocks), page


def test_blocks_that_are_not_run_are_valid():
    for block in BLOCKS:
        if block.mark.startswith("not run") and block.shell:
            assert subprocess.run(["bash", "-n", "-c", "\n".join(block.commands)], check=False).returncode == 0
        if block.mark.startswith("not run") and block.python:
            ast.parse(block.text)


def test_outputs_stand_below_what_prints_them():
    for block in BLOCKS:
        if block.mark == "output":
            above = [b for b in BLOCKS if b.page == block.page and b.span[0] < block.span[0]]
            assert above[-1].python, of_page(block)
            assert block.text, f"{of_page(block)}\n{RENEW}"


def test_the_navigation_has_every_page_and_docs_no_other_file():
    navigation = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(navigation) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES if DOCS in page.parents)
    pictures = {path.name for path in (DOCS / "pictures").iterdir()}
    shown = {name for text in TEXTS.values() for name in re.findall(r"pictures/([\w.-]+)\)", text)}
    assert pictures == shown


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)", TEXTS[ROOT / "README.md"]):
        assert (ROOT / target).exists(), target


def test_the_readme_is_short():
    assert 150 <= len(TEXTS[ROOT / "README.md"].splitlines()) <= 200


def test_continuous_integration_calls_the_test_command_of_the_readme():
    command = next(line.strip() for line in TEXTS[ROOT / "README.md"].splitlines() if ".venv-test/bin/pytest" in line)
    assert command in (ROOT / ".ci/run").read_text().splitlines()
