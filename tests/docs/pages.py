"""Runs a page as its reader would: its Python and its commands, in order, in one folder."""

import contextlib
import doctest
import io
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from racer_jax.cli.main import main

FENCE = re.compile(r"^```(python|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Command(NamedTuple):
    """A command of a `console` block, and what the page says it prints."""

    text: str
    printed: str


def commands(block: str) -> list[Command]:
    """The commands of a block: lines after `$ `; what follows up to the next is what they print."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert not parts[0].strip(), f"a console block begins with a command, got {parts[0]!r}"
    return [Command(*part.partition("\n")[::2]) for part in parts[1:]]


def run_command(command: Command) -> None:
    """Runs `racer-jax ...` in this process and compares what it prints."""
    name, *arguments = shlex.split(command.text)
    assert name == "racer-jax", f"a page runs racer-jax only, got {command.text!r}"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    expected = 3 if "ALARM" in command.printed else 0
    assert status == expected, (
        f"$ {command.text}\nstatus {status}\n{out.getvalue()}{err.getvalue()}"
    )
    got = out.getvalue()
    assert doctest.OutputChecker().check_output(command.printed, got, OPTIONS), (
        f"$ {command.text}\nexpected:\n{command.printed}\ngot:\n{got}"
    )


def run_page(path: Path) -> int:
    """Runs every block of a page in the current folder.

    Returns how many examples and commands it ran.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    parser, count = doctest.DocTestParser(), 0
    for kind, block in FENCE.findall(path.read_text(encoding="utf-8")):
        if kind == "console":
            for command in commands(block):
                run_command(command)
                count += 1
            continue
        test = parser.get_doctest(block, names, path.name, str(path), 0)
        report = io.StringIO()
        runner = doctest.DocTestRunner(optionflags=OPTIONS)
        runner.run(test, out=report.write, clear_globs=False)
        assert runner.failures == 0, report.getvalue()
        names, count = test.globs, count + len(test.examples)
    return count
