"""A command shows on a terminal how far it is, and elsewhere only what takes long."""

import io
import os
import select
import subprocess
import sys
import time

import pytest

from racer_jax.cli import output, work_bar
from racer_jax.cli.main import main
from racer_jax.racer.stages import FitStage


class Terminal(io.StringIO):
    """An error stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def at_a_terminal(monkeypatch):
    """The error stream, in the test itself: pytest puts its own there after the fixtures."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(work_bar, "_SECONDS", 0.002)
    return stream


def test_the_bar_names_the_stage_and_its_clock_goes_on(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    with work_bar.work_bar("read the table") as bar:
        bar(FitStage("encode the questions", 1, 4))
        end = time.monotonic() + 10
        while terminal.getvalue().count("encode the questions") < 5 and time.monotonic() < end:
            time.sleep(0.002)  # without a further stage
        bar(FitStage("", 4, 4, report="a report"))
    shown = terminal.getvalue()
    assert shown.count("encode the questions") >= 5
    assert "1 of 5 steps done" in shown
    assert bar.report == "a report"


def test_the_steps_of_a_command_are_named_one_after_the_other(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    with work_bar.work_bar("read the table", "measure") as bar:
        bar.next()
        output.print_notes(["one row was left out"])
    shown = terminal.getvalue()
    assert shown.index("read the table") < shown.index("measure") < shown.index("note: one row")
    assert "1 of 2 steps done" in shown
    before = shown[: shown.index("note: one row")]
    assert before.rstrip(" ").endswith("\r"), "the note stands on a line of its own"


def test_what_is_still_measured_is_not_done(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    with work_bar.work_bar("read the table") as bar:
        bar(FitStage("", 4, 4))
        end = time.monotonic() + 10
        while "one by one saves" not in terminal.getvalue() and time.monotonic() < end:
            time.sleep(0.002)
    assert "4 of 5 steps done" in terminal.getvalue()
    assert "4 of 4" not in terminal.getvalue()


def test_nothing_is_shown_without_a_terminal(capsys):
    with work_bar.work_bar("read the table") as bar:
        bar(FitStage("encode the questions", 1, 4))
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_a_line_says_what_takes_long(capsys, monkeypatch):
    monkeypatch.setattr(work_bar, "_LINE_SECONDS", 0.002)
    shown = ""
    with work_bar.work_bar("read the table") as bar:
        bar(FitStage("encode the questions", 1, 4))
        end = time.monotonic() + 10
        while shown.count("encode the questions: 1 of 5 steps done, 00:") < 2:
            assert time.monotonic() < end
            time.sleep(0.002)
            shown += capsys.readouterr().err
    assert "\r" not in shown


def test_a_terminal_without_a_size_has_a_bar():
    """Some pseudo-terminals have no size, and a bar of no width would be empty."""
    master, terminal = os.openpty()
    code = (
        "import sys; from racer_jax.cli.main import _give_bars_a_size as size; size()\n"
        "from racer_jax.cli.work_bar import work_bar\nwith work_bar('read the table'): pass"
    )
    subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True, timeout=60)
    assert select.select([master], [], [], 0)[0], "nothing was drawn"
    shown = os.read(master, 4096)
    os.close(terminal)
    os.close(master)
    assert b"read the table" in shown


@pytest.mark.long
def test_train_shows_its_stages_and_says_how_well_it_routes(folder, capsys, monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    line = "train train.npz -o new.racer --share 0.9 --nonconformity static"
    assert main(line.split()) == 0
    shown = terminal.getvalue()
    stages = ["fit the encoder", "encode the questions", "train the router", "learn the order"]
    places = [shown.index(name) for name in stages]
    assert places == sorted(places)
    told = capsys.readouterr().out
    assert "trained the router 'mlp' on 72 questions, of which 9 were held out to check it" in told
