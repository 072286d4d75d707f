"""Compiled code that is kept from run to run, by the experiments and by the command."""

import os
import stat
import sys
import tempfile
import time
import warnings
import zlib
from contextlib import suppress
from math import inf
from pathlib import Path

import jax

from racer_jax._files import read_kept, written_whole

# As large as most programs are.
_ROOM = 1 << 20
# Seconds after which what is half written was left by a process that was killed.
_LEFT_SECONDS = 3600.0


def cache_folder() -> Path:
    """The folder for compiled code: `$RACER_JAX_CACHE/compiled`, or in the user's cache folder.

    Use this when something is kept between runs.

    Raises:
      RuntimeError: If no variable names a folder, and the user has no home.
    """
    if named := os.environ.get("RACER_JAX_CACHE"):
        return Path(named) / "compiled"
    users = os.environ.get("XDG_CACHE_HOME", "")
    # An empty or relative path counts as none, as the standard of this variable has it: else a
    # folder would be made wherever the program happens to run.
    base = Path(users) if os.path.isabs(users) else Path.home() / ".cache"
    return base / "racer_jax" / "compiled"


def use_compilation_cache(folder: str | Path | None) -> None:
    """Keeps compiled code from run to run, by the versions of Python, of JAX and of its compiler.

    Use this when a program runs again and again, before its first computation: for one run of an
    experiment, compiling is most of the time.

    Args:
      folder: Where, in a folder for each version of Python; when None, the folder that JAX is
        configured to use already, as it is, else `cache_folder()`. It is made where it is absent,
        and where nothing can be written into it, or the user has no home, nothing is kept. On a
        full disk what is kept already is read.
    """
    configured = getattr(jax.config, "jax_compilation_cache_dir", None)
    is_ours = folder is not None or not configured
    try:
        if folder is None and configured:
            folder = Path(configured)
        else:
            # From 3.14 on Python has another compression, which JAX then uses under the same names:
            # one version could not read what another has kept, and would compile in every run.
            folder = Path(folder or cache_folder()) / str(sys.implementation.cache_tag)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    if not os.access(folder, os.W_OK):
        return
    _remove_left(folder)
    if is_ours:
        _remove_damaged(folder)
        # JAX writes a program in place: another process, which begins at the same time, may read
        # a part of it. It compiles the program then, as if it were not there.
        warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX leaves a part of a program on a full disk, and warns of it in every later process.
    jax.config.update(
        "jax_persistent_cache_min_compile_time_secs", 0.0 if _has_room(folder) else inf
    )
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _remove_left(folder: Path) -> None:
    """Removes what a process left that was killed: programs never written, and files of ours.

    JAX neither reads an empty program nor writes it again; what `written_whole` writes has a name
    that begins with a point until it is whole.
    """
    last = time.time() - _LEFT_SECONDS
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            is_program = entry.name.endswith("-cache")
            if not (is_program or entry.name.startswith(".racer_jax-")):
                continue
            with suppress(OSError):  # another process has removed it
                status = entry.stat(follow_symlinks=False)
                is_left = status.st_size == 0 if is_program else status.st_mtime < last
                if is_left and stat.S_ISREG(status.st_mode):
                    os.unlink(entry)


def _remove_damaged(folder: Path) -> None:
    """Removes programs that cannot be read: cut off, or something else in the place of a file.

    JAX warns of such a file in every process that needs it, compiles, and does not write it again.
    In a folder that the user configured, the entries are JAX's, of whatever version. Those that
    were there when the folder was last looked through are not read again.
    """
    mark = folder / "racer_jax-checked"
    with suppress(OSError):
        last = mark.stat().st_mtime_ns if mark.exists() else 0
        with os.scandir(folder) as entries:
            programs = [entry for entry in entries if entry.name.endswith("-cache")]
        # The clock of the folder's disk, as of the last change of whatever is at that place.
        new = [p for p in programs if _changed_at(p) >= last]
        if not new:
            return
        with written_whole(mark):  # as old as the look, which comes after it
            for program in new:
                if not _can_be_read(Path(program)):
                    _remove(Path(program))


def _changed_at(entry: "os.DirEntry[str]") -> int:
    """When what is at a place was last changed; never where another process has removed it."""
    try:
        return entry.stat(follow_symlinks=False).st_ctime_ns
    except FileNotFoundError:
        return -1


def _can_be_read(program: Path) -> bool:
    """Whether JAX can unpack a file of its cache in this process."""
    try:
        _unpack(read_kept(program))
    except Exception:  # each library has an error of its own for what is cut off
        return False
    return True


def _unpack(content: bytes) -> None:
    """Unpacks with what JAX unpacks with: the first of three that is installed."""
    if sys.version_info >= (3, 14):
        with suppress(ImportError):
            from compression import zstd

            zstd.decompress(content)
            return
    with suppress(ImportError):
        import zstandard

        zstandard.ZstdDecompressor().decompress(content)
        return
    zlib.decompress(content)


def _remove(path: Path) -> None:
    """Removes a file, or an empty folder."""
    with suppress(OSError):
        (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()


def _has_room(folder: Path) -> bool:
    """Whether a program can be written; a full disk or a quota shows by writing alone."""
    try:
        # A file without a name: a process that is killed here leaves none.
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(bytes(_ROOM))
    except OSError:
        return False
    return True
