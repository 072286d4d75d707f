"""Scripts that no test runs to their end use names of the package that exist."""

import ast
import contextlib
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("experiments/*.py"), *ROOT.glob("docs/*.py")]
)
PACKAGE = "racer_jax"


def attributes(node: ast.expr) -> list[str]:
    """`["a", "b", "c"]` of `a.b.c`, nothing where it begins with anything but a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    before = attributes(node.value) if isinstance(node, ast.Attribute) else []
    return [*before, node.attr] if before else []


def resolved(thing: object, names: list[str]) -> str | None:
    """The first of the names that what stands before it lacks; only modules are looked into."""
    for name in names:
        if isinstance(thing, type) or not hasattr(thing, "__spec__"):
            return None
        if not hasattr(thing, name):
            return f"{thing.__name__} has no {name}"
        thing = getattr(thing, name)
    return None


def missing(source: str) -> list[str]:
    """Names of the package that are imported or used, and do not exist."""
    modules, faults = {}, []
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == PACKAGE:
            home = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(home, alias.name):  # a module of the package, or nothing
                    with contextlib.suppress(ModuleNotFoundError):
                        importlib.import_module(f"{node.module}.{alias.name}")
                if hasattr(home, alias.name):
                    modules[alias.asname or alias.name] = getattr(home, alias.name)
                else:
                    faults.append(f"{node.module} has no {alias.name}")
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    whole = importlib.import_module(alias.name)
                    if alias.asname:
                        modules[alias.asname] = whole
    for node in ast.walk(tree):
        names = attributes(node) if isinstance(node, ast.Attribute) else []
        if names and names[0] in modules and (fault := resolved(modules[names[0]], names[1:])):
            faults.append(fault)
    return sorted(set(faults))


def test_a_name_that_does_not_exist_is_noticed():
    assert missing("import racer_jax as core\ncore.nonconformity.TieBroken(1)") == [
        "racer_jax has no nonconformity"
    ]
    assert missing("def f():\n    from racer_jax.core import nothing") == [
        "racer_jax.core has no nothing"
    ]
    assert not missing("from racer_jax import reporting as r\nr.environment()['jax'].upper()")


@pytest.mark.long
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_names_of_the_package_exist(path):
    assert not missing(path.read_text(encoding="utf-8"))
