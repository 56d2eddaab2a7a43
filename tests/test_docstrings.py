"""What is public says what it is, and of every tensor that goes in or comes out its shape.

A shape stands in parentheses, its axes named and separated by commas, as (n, N) or (d_0, ..., d_{N-1}); a tensor
without axes is called a scalar, and where axes do not matter it is `of any shape`. It is said in the docstring of the function; of a method, that of its class will do.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import htfcli

ROOT = Path(__file__).parent.parent
ENGINE = sorted((ROOT / "htfcli/engine").rglob("*.py"))
_SHAPE = re.compile(r"\((?:[\w.{}'|/*+^ -]+,)+(?: ?[\w.{}'|/*+^ -]+)?\)|\bscalar\b|of any shape")
_TENSORS = {"Tensor", "NDArray"}


def is_public(name: str) -> bool:
    return not name.startswith("_")


def mentions_tensor(annotation: ast.expr | None) -> bool:
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)} if annotation else set()
    return bool(names & _TENSORS)


def functions(tree: ast.Module):
    """Public functions and methods as (name, node, docstring with that of the class)."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and is_public(node.name):
            yield node.name, node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            of_class = ast.get_docstring(node) or ""
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and (
                    is_public(item.name) or item.name in ("__init__", "__call__")
                ):
                    yield f"{node.name}.{item.name}", item, f"{ast.get_docstring(item) or ''}\n{of_class}"


def without_shapes(text: str) -> list[str]:
    """Public functions of a module that take tensors and do not say of which shape."""
    found = []
    for name, node, said in functions(ast.parse(text)):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if any(mentions_tensor(argument.annotation) for argument in arguments) and not _SHAPE.search(said):
            found.append(name)
    return found


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shapes_of_tensors_are_said(path):
    assert without_shapes(path.read_text()) == []


def test_the_check_above_can_fail():
    assert without_shapes("def f(x: Tensor) -> Tensor:\n    '''No shape (of x).'''\n") == ["f"]
    assert without_shapes("class A:\n    def f(self, x: list[Tensor | None]) -> None: ...\n") == ["A.f"]
    assert without_shapes("def f(x: Tensor):\n    '''Args: x: (n, d_0).'''\ndef g(y: int): ...\n") == []
    assert without_shapes("def f(x: Tensor):\n    '''x (p,) in place.'''\n") == []


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_and_public_classes_and_functions_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and is_public(node.name):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("name", sorted(set(htfcli.__all__) - {"__version__"}))
def test_public_names_have_docstrings(name):
    assert len(getattr(htfcli, name).__doc__.strip()) > 20
