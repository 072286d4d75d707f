"""What users install.

The wheel passes the tests in a fresh environment, with nothing of the repository beside it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_installed_wheel_passes_the_tests():
    for module in ("build", "twine"):
        pytest.importorskip(module, reason="extra dev")
    tests = [
        "tests",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--ignore=tests/experiments",
        "--ignore=tests/docs",
        "--ignore=tests/packaging",
    ]
    # What reads files beside the tests (documents, scripts, the image) or compares with PyTorch is about the
    # repository.
    command = [
        str(ROOT / ".ci" / "wheel"),
        sys.executable,
        *tests,
        "--ignore=tests/encoders/test_parity.py",
        "--ignore=tests/serving/gateway/test_container.py",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_the_scripts_of_ci_can_be_run():
    for name in ("run", "wheel", "oldest"):
        path = ROOT / ".ci" / name
        assert path.stat().st_mode & 0o111, f"{path} is not executable"
        assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
