"""What CONTRIBUTING asks of the source, read from its syntax tree."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "racer_jax"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "experiments").glob("*.py")])
# Participles that name nothing: the name of what they hold stands in their place.
EMPTY_NAMES = {"found", "given", "made", "own", "told", "each", "kept", "asked", "taken", "wanted"}
NO_METHOD = ("property", "overload", "setter")

Definition = ast.FunctionDef | ast.ClassDef


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def place(path: Path, node: ast.stmt | ast.expr | ast.arg) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def public_definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Functions, classes and methods without an underscore; no properties, no overloads."""
    for node in body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        if not any(word in ast.unparse(d) for d in node.decorator_list for word in NO_METHOD):
            yield f"{prefix}{node.name}", node
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node.body, f"{node.name}.")


def num_conditionals(node: ast.AST) -> int:
    """Conditional expressions of a statement, without those of statements inside it."""
    inner = [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.stmt)]
    return isinstance(node, ast.IfExp) + sum(map(num_conditionals, inner))


def names_bound(tree: ast.AST) -> Iterator[tuple[str, ast.expr | ast.arg]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg, node
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node


def without_advice(tree: ast.Module) -> list[str]:
    lacking = []
    for name, node in public_definitions(tree.body):
        words = " ".join((ast.get_docstring(node) or "").split())
        if "Use this when" not in words:
            lacking.append(f"{node.lineno} {name}")
    return lacking


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source(path):
    tree = tree_of(path)
    is_public = path.is_relative_to(PACKAGE) and not path.name.startswith("_")
    assert not (without_advice(tree) if is_public else []), 'a docstring lacks "Use this when ..."'

    nested = [
        place(path, node)
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and num_conditionals(node) > 1
    ]
    assert not nested, "more than one conditional expression in a statement"

    empty = [f"{place(path, node)} {name}" for name, node in names_bound(tree)]
    empty = [line for line in empty if line.split(" ")[1] in EMPTY_NAMES]
    assert not empty, "a name says nothing of what it holds"


def test_the_checks_find_what_they_look_for():
    tree = ast.parse('def f(told):\n    "One line."\n    a = 1 if told else 2 if a else 3\n')
    assert without_advice(tree) == ["1 f"]
    function = tree.body[0]
    assert num_conditionals(function) == 0
    assert num_conditionals(function.body[1]) == 2
    assert {name for name, _ in names_bound(tree)} == {"told", "a"}
