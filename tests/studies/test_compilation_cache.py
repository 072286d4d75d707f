"""Where compiled code is kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from racer_jax.studies import compilation_cache
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
    """What a fresh process says, which can write files of so many bytes, and the programs it keeps."""
    words = [sys.executable, "-c", COMPUTE, str(folder), str(limit)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "7.0\n"
    return done.stderr, sorted(folder.rglob("*-cache"))


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


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def replaced_by(make):
    """Something else in the place of a file."""

    def replace(path):
        path.unlink()
        make(path)

    return replace


DAMAGES = {
    "cut": cut,
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "other bytes": lambda path: path.write_bytes(b"other bytes"),
    "a named pipe": replaced_by(os.mkfifo),
    "a folder": replaced_by(os.mkdir),
    "a link to itself": replaced_by(lambda path: path.symlink_to(path)),
}


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_program_that_is_damaged_is_made_again_without_a_word(tmp_path, damage):
    _, [program] = computed(tmp_path)
    computed(tmp_path)  # and looked through
    whole = program.read_bytes()
    damage(program)
    assert computed(tmp_path)[0] == ""
    assert len(program.read_bytes()) == pytest.approx(len(whole), rel=0.1)
    assert computed(tmp_path)[0] == ""


KILLED = """
import resource, signal, sys
from racer_jax.studies.compilation_cache import use_compilation_cache
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
use_compilation_cache(sys.argv[1])
"""


def test_a_process_that_is_killed_as_it_looks_for_room_leaves_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGXFSZ
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("configured")
def test_what_a_killed_process_left_half_written_is_removed_after_a_while(tmp_path):
    folder = tmp_path / str(sys.implementation.cache_tag)
    folder.mkdir()
    old, new, other = (folder / f".{name}" for name in ("racer_jax-1.a", "racer_jax-2.b", "other"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (1e9, 1e9))
    use_compilation_cache(tmp_path)
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


HALF = """
import pathlib, sys
import jax
import numpy as np
from racer_jax.studies.compilation_cache import use_compilation_cache
use_compilation_cache(sys.argv[1])
for program in pathlib.Path(sys.argv[1]).rglob("*-cache"):
    program.write_bytes(program.read_bytes()[:100])
print(jax.jit(lambda x: x * 3 + 1)(np.float32(2)))
"""


def test_a_program_that_another_process_is_writing_is_compiled_without_a_word(tmp_path):
    words = [sys.executable, "-c", HALF, str(tmp_path)]
    for kept in (0, 1):
        assert len([*tmp_path.rglob("*-cache")]) == kept
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
        assert (done.stdout, done.stderr) == ("7.0\n", "")


@pytest.mark.usefixtures("configured")
def test_programs_are_looked_through_once(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(compilation_cache, "_can_be_read", lambda path: looked.append(path.name))
    folder = tmp_path / str(sys.implementation.cache_tag)
    folder.mkdir()
    for name in ("jit_f-1-cache", "jit_f-1-atime", "racer_jax-1.program"):
        (folder / name).write_bytes(b"content")
    for _ in range(2):
        time.sleep(0.02)  # the clock of a disk goes in steps
        use_compilation_cache(tmp_path)
    assert looked == ["jit_f-1-cache"]
    assert not (folder / "jit_f-1-cache").exists()


@pytest.mark.usefixtures("configured")
def test_the_entries_of_a_folder_that_the_user_configured_are_left_to_jax(tmp_path):
    entry = tmp_path / "jit_f-1-cache"
    entry.write_bytes(b"of another version, or cut off")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    use_compilation_cache(None)
    assert [path.name for path in tmp_path.iterdir()] == [entry.name]
