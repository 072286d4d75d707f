"""The tutorial runs from its first line to its last.

What its readers are told is there is there.
"""

import re
from pathlib import Path

import pytest

from tests.docs.pages import Command, commands, run_command, run_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.mark.long
def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_page(DOCS / "tutorial.md") > 30


@pytest.mark.long
@pytest.mark.parametrize("name", ["changing-pool", "cookbook", "own-parts"])
def test_long_guides_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert run_page(DOCS / "guides" / f"{name}.md") > 15


def test_a_page_that_says_what_is_not_printed_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\n>>> 1 + 1\n3\n\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="Expected"):
        run_page(page)
    assert commands("$ racer-jax data --help\nusage\n$ ls\n") == [
        Command("racer-jax data --help", "usage\n"),
        Command("ls", ""),
    ]
    with pytest.raises(AssertionError, match="runs racer-jax only"):
        run_command(Command("ls", ""))


def test_every_page_is_a_doctest_or_has_no_example():
    # Examples without prompts are run by other tests or not at all, and then must not look like
    # Python.
    for page in sorted(DOCS.glob("**/*.md")):
        if page.parent.name == "data":
            continue  # tests/data/test_docs.py runs these
        for block in re.findall(
            r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            assert block.startswith(">>> "), (
                f"{page.name}: a Python block without prompt is run by nobody: {block[:60]!r}"
            )


def test_every_page_is_in_the_contents():
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.glob("**/*.md"):
        assert str(page.relative_to(DOCS)) in contents, f"mkdocs.yml does not name {page.name}"
