"""The image of the gateway: its Dockerfile is linted, and built where a builder exists."""

import hashlib
import shutil
import subprocess
import sys
from contextlib import contextmanager
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


IMAGE = "racer-gateway-test"
CONFIGURATION = """
[server]
host = "0.0.0.0"
[keys.alice]
prefix = "k3JmQ8xZ"
sha256 = "%s"
[models.small]
base_url = "https://models.example/v1"
[models.medium]
base_url = "https://models.example/v1"
[models.large]
base_url = "https://models.example/v1"
[routes.exams]
artefact = "my.racer"
group = "a"
form = "letter"
mode = "vote"
[state]
path = "/var/lib/racer/gateway.db"
"""


def builder():
    """The program that builds images here; skips where there is none that works."""
    if shutil.which("buildah"):
        return "buildah"
    for name in ("docker", "podman"):
        if shutil.which(name):
            asked = subprocess.run([name, "info"], capture_output=True, check=False)
            if asked.returncode == 0:
                return name
    pytest.skip("there is no builder of images: docker, podman or buildah")


def finished(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def container(name, folder):
    """The start of a command that runs the rest of it in the image, with a configuration."""
    volume = f"{folder}:/etc/racer:ro"
    if name != "buildah":
        yield [name, "run", "--rm", "-v", volume, IMAGE]
        return
    code, said = finished("buildah", "from", "--pull-never", IMAGE)
    assert code == 0, said
    its = said.split()[-1]
    yield ["buildah", "run", "--isolation", "chroot", "-v", volume, its, "--"]
    finished("buildah", "rm", its)


@pytest.mark.slow
def test_the_image_is_built_where_a_builder_exists(artefacts, tmp_path):
    """What the image is made from may be fetched, or be there already. It can serve an artefact."""
    name = builder()
    build = ["buildah", "bud", "--isolation", "chroot"] if name == "buildah" else [name, "build"]
    code, said = finished(*build, "-f", DOCKERFILE, "-t", IMAGE, ROOT)
    if code and any(words in said.lower() for words in UNREACHABLE):
        pytest.skip(f"nothing can be built here: {said.strip()[-200:]}")
    assert code == 0, said[-3000:]

    shutil.copytree(artefacts / "my.racer", tmp_path / "config" / "my.racer")
    secret = hashlib.sha256(b"key").hexdigest()
    (tmp_path / "config" / "gateway.toml").write_text(CONFIGURATION % secret, encoding="utf-8")
    tmp_path.chmod(0o755)  # the user of the image is another one
    with container(name, tmp_path / "config") as run:
        check = finished(*run, "racer-jax", "serve", "/etc/racer/gateway.toml", "--check")
        assert check[0] == 0, check[1]
        assert "all is well" in check[1]
        assert finished(*run, "id", "-u")[1].strip() == "10001"
        assert finished(*run, "touch", "/etc/racer/x", "/opt/racer/x")[0] != 0
        files = finished(*run, "ls", "-A", "/opt/racer", "/var/lib/racer")[1]
        assert "compiled" in files, files
