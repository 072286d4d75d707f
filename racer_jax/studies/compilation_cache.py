"""Compiled code that is kept from run to run, by the experiments and by the command."""

import os
import sys
from pathlib import Path

import jax


def cache_folder() -> Path:
    """The folder for compiled code: `$RACER_JAX_CACHE/compiled`, or in the user's cache folder.

    Use this when something is kept between runs.
    """
    home = os.environ.get("RACER_JAX_CACHE")
    base = (
        Path(home)
        if home
        else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "racer_jax"
    )
    return base / "compiled"


def use_compilation_cache(folder: str | Path | None) -> None:
    """Keeps compiled code from run to run, by the versions of Python, of JAX and of its compiler.

    Use this before the first computation of a program that runs again and again: for one run of an
    experiment, compiling is most of the time.

    Use this when a program compiles for a minute or more.

    Args:
      folder: Where, in a folder for each version of Python; when None, the folder that JAX is
        configured to use already, as it is, else `cache_folder()`. It is made where it is absent,
        and where nothing can be written into it nothing is kept.
    """
    configured = getattr(jax.config, "jax_compilation_cache_dir", None)
    if folder is None and configured:
        folder = configured
    else:
        # From 3.14 on Python has another compression, which JAX then uses under the same names:
        # one version could not read what another has kept, and would compile in every run.
        folder = Path(folder or cache_folder()) / str(sys.implementation.cache_tag)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
