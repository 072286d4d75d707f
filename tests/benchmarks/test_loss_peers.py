"""Thresholds of a bounded loss beside those of MAPIE, where it is installed (extra `bench`)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def test_mapie_and_the_formula_give_the_same_sets(tmp_path):
    pytest.importorskip("mapie", reason="needs the extra bench")
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "benchmarks/loss_peers.py"),
            "--splits",
            "2",
            "--queries",
            "200",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All as they should be." in done.stdout
