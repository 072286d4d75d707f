"""Saving is safe under any number of writers, readers and kills."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def outcomes(folder, *parts):
    script = Path(__file__).parent / "concurrent_saves.py"
    command = [sys.executable, str(script), str(folder), *parts]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.long
def test_writers_readers_and_kills_at_once(tmp_path):
    parts = ("rounds=25", "kills=15", "kills_empty=16", "threads=4")
    assert outcomes(tmp_path, *parts) == [
        "rounds {'good': 25}",
        "kills {'good': 15, 'left 2': 1}",
        "kills_empty {'good': 16, 'left 2': 1}",
        "threads {'good': 1}",
    ]


@pytest.mark.slow
def test_a_thousand_rounds_and_hundreds_of_kills(tmp_path):
    assert outcomes(tmp_path, "rounds=1000", "kills=250", "kills_empty=120") == [
        "rounds {'good': 1000}",
        "kills {'good': 250, 'left 2': 1}",
        "kills_empty {'good': 120, 'left 2': 1}",
    ]
