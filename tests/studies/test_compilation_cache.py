"""Where compiled code is kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USE = """
import sys
import jax
from racer_jax.studies.compilation_cache import cache_folder, use_compilation_cache
sys.implementation.cache_tag = sys.argv[2]
use_compilation_cache(sys.argv[1] or None)
print(jax.config.jax_compilation_cache_dir)
"""


def folder_used(folder, tag, **environment):
    """The folder that a fresh process of a Python of this tag keeps compiled code in."""
    names = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    names["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-c", USE, str(folder), tag]
    done = subprocess.run(
        words, env=names | environment, capture_output=True, text=True, check=True
    )
    used = Path(done.stdout.strip())
    assert used.is_dir()
    return used


@pytest.mark.parametrize("named", [True, False], ids=["a folder that is named", "the user's"])
def test_each_version_of_python_has_a_folder_of_its_own(tmp_path, named):
    """Python 3.14 compresses in a way that 3.13 cannot read, and JAX gives both one name."""
    where = {"folder": tmp_path / "compiled" if named else ""}
    where |= {} if named else {"RACER_JAX_CACHE": str(tmp_path)}
    tags = ["cpython-313", "cpython-314"]
    used = [folder_used(tag=tag, **where) for tag in tags]
    assert used == [tmp_path / "compiled" / tag for tag in tags]


def test_a_folder_that_jax_is_configured_to_use_stays_as_it_is(tmp_path):
    """Whoever configured it knows what else is kept there."""
    used = folder_used("", "cpython-314", JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    assert used == tmp_path
