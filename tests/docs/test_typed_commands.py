"""Every command that a page names can be typed: commands, options and scripts exist."""

import argparse
import functools
import re
import shlex
from pathlib import Path

import pytest

from racer_jax.cli.main import build_parser, sequential_words

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "experiments/README.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(racer-jax\s[^`]+)`")
SCRIPT = re.compile(
    r"(?:python[\d.]*|srun python) (?:-m )?((?:benchmarks|experiments|docs|tests)[\w./]+)"
)


all_commands = functools.cache(build_parser)


def inner(parser: argparse.ArgumentParser, words: list[str]) -> argparse.ArgumentParser:
    """The parser of the command that the words begin with."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and words and words[0] in action.choices:
            return inner(action.choices[words[0]], words[1:])
    return parser


def fault_of(command: str) -> str | None:
    """What is wrong with a command of running text; it may leave out what must be typed."""
    words = list(sequential_words(shlex.split(command.split(" # ")[0])[1:]))
    whole = all_commands()
    if words[0].startswith("-"):
        return None if words[0] in whole._option_string_actions else f"has no {words[0]}"
    parser = inner(whole, words)
    if parser is whole and words[0] != "COMMAND":
        return f"has no command {words[0]}"
    options = [word.split("=")[0] for word in words if word.startswith("--") and len(word) > 2]
    unknown = [word for word in options if word not in parser._option_string_actions]
    return f"has no {', '.join(unknown)}" if unknown and parser is not whole else None


def commands_of(page: str) -> list[str]:
    """The commands of `racer-jax` in blocks and in running text."""
    lines = [line for block in BLOCK.findall(page) for line in block.splitlines()]
    lines = [part.strip() for line in lines for part in line.split("&&")]
    inline = INLINE.findall(re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE))
    texts = [" ".join(text.split()) for text in [*lines, *inline]]
    return [text for text in texts if text.startswith("racer-jax ")]


def test_a_command_that_cannot_be_typed_is_found():
    assert fault_of("racer-jax train logs.csv --share 0.4") is None
    assert fault_of("racer-jax calibrate my.racer --without MODEL") is None
    assert fault_of("racer-jax cascade train") is None
    assert fault_of("racer-jax train --sequential logs/ --batches 2,2") is None
    assert fault_of("racer-jax trian logs.csv") == "has no command trian"
    assert fault_of("racer-jax train logs.csv --part-of 0.4") == "has no --part-of"
    assert commands_of("```bash\nx && racer-jax demo  # a\n```\n`racer-jax\ndoctor`") == [
        "racer-jax demo # a",
        "racer-jax doctor",
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_page_exist(path):
    page = path.read_text(encoding="utf-8")
    faults = {command: fault_of(command) for command in commands_of(page)}
    assert not {command: fault for command, fault in faults.items() if fault}
    for script in SCRIPT.findall(page):
        name = script if "/" in script else script.replace(".", "/") + ".py"
        here = ROOT / name
        assert here.exists() or here.with_suffix("").is_dir(), f"{path.name} names {script}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_code_on_the_front_pages_fits_what_github_shows_without_scrolling(name):
    page = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert lines
    assert [line for line in lines if len(line) > 98] == []


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
