"""The image of the gateway: its Dockerfile is linted where the linter is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import racer_jax

ROOT = Path(racer_jax.__file__).parents[1]
DOCKERFILE = ROOT / "containers" / "Dockerfile"


@pytest.mark.extra
def test_the_dockerfile_is_linted():
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_image_copies_is_there():
    lines = DOCKERFILE.read_text().splitlines()
    copied = [
        line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line
    ]
    assert all((ROOT / name).exists() for names in copied for name in names)
    assert any(line.startswith("USER 10001") for line in lines)
