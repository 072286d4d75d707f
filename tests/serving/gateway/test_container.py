"""The image of the gateway: its Dockerfile is linted, and built where a builder exists."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import racer_jax

ROOT = Path(racer_jax.__file__).parents[1]
DOCKERFILE = ROOT / "containers" / "Dockerfile"
# What builders say where they may not build, or reach neither a registry nor an index of packages.
UNREACHABLE = (
    "no such host", "pinging container registry", "failed to resolve", "timeout",
    "temporary failure in name resolution", "network is unreachable", "not permitted",
)  # fmt: skip


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


def builder():
    """A command that builds images here; skips where there is none that works."""
    if shutil.which("buildah"):
        return ["buildah", "bud", "--isolation", "chroot"]
    for name in ("docker", "podman"):
        if shutil.which(name):
            asked = subprocess.run([name, "info"], capture_output=True, check=False)
            if asked.returncode == 0:
                return [name, "build"]
    pytest.skip("there is no builder of images: docker, podman or buildah")


@pytest.mark.slow
def test_the_image_is_built_where_a_builder_exists():
    """What the image is made from may be fetched, or be there already."""
    command = [*builder(), "-f", str(DOCKERFILE), "-t", "racer-gateway-test", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode and any(words in said.lower() for words in UNREACHABLE):
        pytest.skip(f"nothing can be built here: {said.strip()[-200:]}")
    assert done.returncode == 0, said[-3000:]
