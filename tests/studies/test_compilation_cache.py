"""Where compiled code is kept."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from racer_jax.studies.compilation_cache import cache_folder, use_compilation_cache

ROOT = Path(__file__).parents[2]


@pytest.fixture
def configured():
    """What JAX was configured to use stands again afterwards."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("named", [True, False], ids=["a folder that is named", "the user's"])
def test_each_version_of_python_has_a_folder_of_its_own(tmp_path, monkeypatch, named):
    """Python 3.14 compresses in a way that 3.13 cannot read, and JAX gives both one name."""
    monkeypatch.setenv("RACER_JAX_CACHE", str(tmp_path))
    for tag in ("cpython-313", "cpython-314"):
        monkeypatch.setattr(sys.implementation, "cache_tag", tag)
        jax.config.update("jax_compilation_cache_dir", None)
        use_compilation_cache(tmp_path / "other" if named else None)
        used = Path(jax.config.jax_compilation_cache_dir)
        assert used == tmp_path / ("other" if named else "compiled") / tag
        assert used.is_dir()


@pytest.mark.usefixtures("configured")
def test_a_folder_that_jax_is_configured_to_use_stays_as_it_is(tmp_path):
    """Whoever configured it knows what else is kept there."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    use_compilation_cache(None)
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)


COMPUTE = """
import resource, signal, sys
import jax
import numpy as np
from racer_jax.studies.compilation_cache import use_compilation_cache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
use_compilation_cache(sys.argv[1])
print(jax.jit(lambda x: x * 3 + 1)(np.float32(2)))
"""


def computed(folder, limit=1 << 30):
    """What a fresh process says, which can write files of so many bytes, and what it keeps."""
    words = [sys.executable, "-c", COMPUTE, str(folder), str(limit)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "7.0\n"
    return done.stderr, sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.long
def test_on_a_full_disk_nothing_is_left_and_what_is_kept_is_read(tmp_path):
    assert computed(tmp_path, limit=100) == ("", [])
    silence, kept = computed(tmp_path)
    assert (silence, len(kept)) == ("", 1)
    assert computed(tmp_path, limit=100) == ("", kept)


@pytest.mark.long
def test_a_program_that_was_never_written_is_made_again(tmp_path):
    _, [program] = computed(tmp_path)
    program.write_bytes(b"")
    assert computed(tmp_path) == ("", [program])
    assert program.stat().st_size > 0


@pytest.mark.parametrize("named", ["", "relative", "./here"])
def test_a_cache_folder_that_is_no_place_is_not_made_where_the_program_runs(monkeypatch, named):
    monkeypatch.delenv("RACER_JAX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/racer_jax/compiled")


@pytest.mark.usefixtures("configured")
def test_a_user_without_a_home_keeps_nothing(monkeypatch):
    def refuses():
        raise RuntimeError("Could not determine home directory.")

    for name in ("RACER_JAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", refuses)
    use_compilation_cache(None)
    assert jax.config.jax_compilation_cache_dir is None
