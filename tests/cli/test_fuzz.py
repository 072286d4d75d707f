"""Command lines at random: each ends with a known status, and what is wrong is one clear line.

The same over all commands and options, thousands of times, is `python -m tests.attack lines`.
"""

import contextlib
import io
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from racer_jax.cli.main import main

NUMBERS = st.one_of(
    st.sampled_from(
        ["1e-9999999", "1e9999999", "1/0", "nan", "-0", "\ud800", "\x1b[31m", "0.1", "½", "--", "-"]
    ),
    st.sampled_from(["", " ", "0." + "1" * 400, "9" * 5000]),
    st.floats().map(str),
    st.text(max_size=6),
)
FILES = st.sampled_from(["t.csv", "f.jsonl", "n.jsonl", "deep.json", "nowhere", ".", "\x00", "s"])
OPTIONS = st.sampled_from(
    [
        *("--alpha", "--level", "--seed", "--wait", "--share", "--alphas", "--delimiter", "--kind"),
        *("--columns", "--models", "--missing", "--group", "--input", "--format", "--num-fewshot"),
        *("--metric", "--label-rule", "--reference", "--resume", "--json", "--answers", "--part"),
    ]
)
COMMANDS = st.sampled_from(
    [["monitor", "new.json"], ["monitor", "deep.json"], ["data", "summary"], ["monitor"]]
)
LINES = st.tuples(
    COMMANDS,
    st.lists(st.one_of(st.tuples(OPTIONS, NUMBERS), st.tuples(OPTIONS, FILES)), max_size=4),
    st.lists(FILES, max_size=2),
).map(lambda parts: [*parts[0], *parts[2], *(word for pair in parts[1] for word in pair)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "t.csv").write_text("query,model,correct\na?,x,1\na?,y,0\n")
    (folder / "f.jsonl").write_text('0\n{"missed": 1}\n')
    (folder / "n.jsonl").write_text("0.5\n0.25\n1" + "0" * 400 + "\n")
    (folder / "deep.json").write_text("[" * 100_000)
    return folder


def run(line, folder, monkeypatch):
    """Status and standard error of a command."""
    out, error = io.StringIO(), io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stderr(error):
        patch.chdir(folder)
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"0\n1\n")))
        with contextlib.redirect_stdout(out):
            try:
                status = main(line)
            except SystemExit as end:  # argparse
                status = end.code
        with contextlib.suppress(OSError):
            os.unlink("new.json")
    return status, error.getvalue()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(line=LINES)
def test_command_lines_at_random(folder, monkeypatch, line):
    status, error = run(line, folder, monkeypatch)
    assert status in (0, 1, 2, 3)
    assert "Traceback" not in error
    assert not any(c in error for c in "\x1b\x00\ud800")
    if status == 1:
        lines = [text for text in error.splitlines() if not text.startswith("note: ")]
        assert len(lines) == 1
        assert lines[0].removeprefix("racer-jax: ").strip()
        assert len(lines[0]) < 8000
