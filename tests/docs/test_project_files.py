"""CITATION.cff, CHANGELOG and the package tell one story."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import racer_jax

ROOT = Path(__file__).parents[2]


def field(name: str) -> str:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    return re.search(rf"^{name}: (.*)$", text, re.MULTILINE)[1].strip('"')


@pytest.mark.extra
def test_the_citation_is_valid():
    pytest.importorskip("cffconvert", reason="extra docs")
    code = (
        "import sys; from cffconvert.cli.cli import cli; sys.argv[1:] = ['--validate', '-i', "
        "'CITATION.cff']; cli()"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "valid according to schema" in done.stdout, done.stderr


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == racer_jax.__version__ == field("version")
    assert project["license"] == field("license")


def test_the_changelog_has_the_known_sections():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "[Unreleased]"
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= known


def test_the_paper_is_cited_alike():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "2603.06616" in readme
    assert "2603.06616" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "@article{hao2026racer" in readme
