"""Command lines at random: every command and option of the parser, in this process."""

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from racer_jax.cli.main import build_parser, main
from racer_jax.data import save
from racer_jax.racer.racer import Racer
from tests.attack.tally import BEYOND, FOREIGN, LOST, Tally
from tests.racer.test_racer import MODELS, table_of

WORDS = st.one_of(
    st.sampled_from(["1e-9999999", "1e9999999", "1/0", "nan", "-0", "\ud800", "\x1b[31m", "0.1"]),
    st.sampled_from(
        ["", " ", "0." + "1" * 400, "9" * 5000, "½", "--", "-", "=", "a=b", "a,b", ":"]
    ),
    st.sampled_from(["0.05:0.3:0.05", "0:1:1e-9", "0.3", "3", "-1", "true", "null", "a", "b"]),
    st.floats().map(str),
    st.integers(-9, 99).map(str),
    st.text(max_size=6),
)
FILES = ("t.csv", "t.npz", "queries.jsonl", "feedback.jsonl", "deep.json", "nowhere", ".", "\x00")
ARTEFACTS = ("my.racer", "bare.racer", "broken.racer", "new.racer", "state.json")
# These do what they say, which takes minutes or a network, whatever else is on the line.
LEFT_OUT = ("demo", "data fetch", "serve")


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple]:
    """Each command, its options, whether they take a value, and the number of its arguments."""
    inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for action in inner:
        for name, child in action.choices.items():
            yield from commands(child, (*words, name))
    if not inner:
        options = [a for a in parser._actions if a.option_strings and a.dest != "help"]
        places = [a for a in parser._actions if not a.option_strings]
        yield words, options, len(places)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with arguments and options, some of which it has."""
    known = [c for c in commands(build_parser()) if " ".join(c[0]) not in LEFT_OUT]
    words, options, num_places = draw(st.sampled_from(known))
    values = st.one_of(WORDS, st.sampled_from(FILES), st.sampled_from(ARTEFACTS))
    line = list(words)
    for _ in range(draw(st.sampled_from([num_places, num_places, 0, num_places + 1]))):
        line.append(draw(st.one_of(st.sampled_from(ARTEFACTS), values)))
    for action in draw(st.lists(st.sampled_from(options), max_size=4)) if options else ():
        line.append(draw(st.sampled_from(action.option_strings)))
        if action.nargs != 0:
            choices = [str(choice) for choice in action.choices or ()]
            line.append(draw(st.one_of(values, st.sampled_from(choices)) if choices else values))
    return line


def prepare(folder: Path) -> None:
    """Files that the commands may be given."""
    rng = np.random.default_rng(4)
    part = table_of(rng, 40, answers=True, cost=True)
    save(part.table, folder / "t.npz")
    (folder / "t.csv").write_text("query,model,correct\na?,x,1\na?,y,0\nb?,x,1\nb?,y,1\n")
    records = [{"scores": dict(zip(MODELS, row.tolist(), strict=True))} for row in part.scores]
    (folder / "queries.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records[:5]))
    (folder / "feedback.jsonl").write_text('0\n{"missed": 1}\n')
    (folder / "deep.json").write_text("[" * 100_000)
    racer = Racer.from_scores(MODELS)
    racer.save(folder / "bare.racer")
    racer.calibrate(part.table, 0.3, scores=part.scores).save(folder / "my.racer")
    (folder / "broken.racer").mkdir()
    (folder / "broken.racer" / "racer.json").write_text('{"format": 1}')


class _TooLong(BaseException):
    """A command takes longer than a command on these files may."""


def _alarm(*_: object) -> None:
    raise _TooLong


def run(line: list[str], seconds: int = 60) -> tuple[object, str]:
    """Status and standard error of a command; `seconds` is the time it has on the wall."""
    out, error = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(b"0\n1\n"))
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(seconds)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            status: object = main(line)
    except SystemExit as end:  # argparse
        status = end.code
    except _TooLong:
        status = "too long"
    except BaseException:
        status = traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        sys.stdin = stdin
    return status, error.getvalue()


def judge(tally: Tally, line: list[str]) -> None:
    """Runs a line and counts what is wrong with how it ended."""
    status, error = run(line)
    tally.tried += 1
    shown = f"{[word[:80] for word in line]}: {status} {error[-300:]}"
    if status == "too long":
        tally.problem(BEYOND, shown)
    elif status not in (0, 1, 2, 3):
        tally.problem(FOREIGN, shown)
    else:
        tally.outcomes[f"status {status}"] += 1
    if "Traceback" in error:
        tally.problem(FOREIGN, shown)
    if any(c in error for c in "\x1b\x00\ud800"):
        tally.problem(LOST, f"a control character is shown: {shown!r}")
    if status == 1:
        said = [text for text in error.splitlines() if not text.startswith("note: ")]
        if len(said) != 1 or not said[0].removeprefix("racer-jax: ").strip():
            tally.problem(FOREIGN, f"not one clear line: {shown}")
        elif len(said[0]) > 8000:
            tally.problem(BEYOND, f"a line of {len(said[0])} characters: {shown}")


def command_line_fuzzer(tally: Tally, rounds: int, folder: Path) -> None:
    """A thousand lines a round; five thousand at five rounds."""
    prepare(folder)
    here = os.getcwd()
    os.chdir(folder)

    @settings(
        max_examples=1000 * rounds,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(line=command_lines())
    def tried(line: list[str]) -> None:
        judge(tally, line)

    try:
        tried()
    finally:
        os.chdir(here)
