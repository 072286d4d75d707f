"""`train` shows on a terminal how far it is, and says nothing elsewhere."""

import io
import sys
import time

import pytest

from racer_jax.cli import training_bar
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
    monkeypatch.setattr(training_bar, "_SECONDS", 0.002)
    return stream


def test_the_bar_names_the_stage_and_its_clock_goes_on(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    with training_bar.training_bar() as bar:
        bar(FitStage("encode the questions", 1, 4))
        end = time.monotonic() + 10
        while terminal.getvalue().count("encode the questions") < 5 and time.monotonic() < end:
            time.sleep(0.002)  # without a further stage
        bar(FitStage("", 4, 4, report="a report"))
    shown = terminal.getvalue()
    assert shown.count("encode the questions") >= 5
    assert "1 of 4 steps done" in shown
    assert bar.report == "a report"


def test_nothing_is_shown_without_a_terminal(capsys):
    with training_bar.training_bar() as bar:
        bar(FitStage("encode the questions", 1, 4))
    assert capsys.readouterr() == ("", "")


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
    assert "trained the router 'mlp' on 63 questions: the model it scores best is right on" in told
