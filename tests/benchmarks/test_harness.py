"""What a benchmark needs is said before any work is done."""

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
