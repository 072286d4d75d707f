"""C code of the package, compiled on the machine that runs it and kept beside compiled programs.

A C compiler takes a third of a second where XLA's takes one to two, and the next process loads what
it made in a millisecond. What has a form in C has one in JAX too, which gives the same results and
serves wherever there is no compiler, or no processor that the C is written for.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jax

from racer_jax._files import make_way, read_kept, written_whole

# A C compiler by name or path, or "none" for JAX alone.
VARIABLE = "RACER_JAX_CC"
_NAMES = ("cc", "gcc", "clang")
_SECONDS = 120  # no compiler takes so long for these files: it waits for something
_HASH = hashlib.sha256
# Sums stay in their order, and products are rounded, as in JAX.
_OPTIONS = ("-ffp-contract=off", "-shared", "-fPIC", "-w")
# GCC's third level takes a quarter longer than its second with these, for code as fast. Clang does
# not know them, and is asked for its third.
_LEVELS = (
    ("-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fpeel-loops", "-funswitch-loops"),
    ("-O3",),
)


def c_compiler() -> str | None:
    """The C compiler that is used, by path; None where there is none, or none is wanted.

    Use this when you want to know whether C code can be made.
    """
    request = os.environ.get(VARIABLE, "")
    if request == "none":
        return None
    paths = (shutil.which(name) for name in ([request] if request else _NAMES))
    return next((path for path in paths if path), None)


@cache
def processor() -> tuple[frozenset[str], str, int]:
    """What the processor can do, in the words of Linux; its vendor; and its family.

    Use this when C code needs instructions that only some processors have.
    """
    facts = {"flags": "", "vendor_id": "", "cpu family": "0"}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = file.read(1 << 14).split("\n\n")[0].splitlines()  # the first stands for all
    except OSError:  # not Linux
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in facts:
            facts[name.strip()] = value.strip()
    return frozenset(facts["flags"].split()), facts["vendor_id"], int(facts["cpu family"])


def c_library(
    source: Path, options: Sequence[str], symbols: Sequence[str], folder: Path | None
) -> ctypes.CDLL | None:
    """The compiled code of a file; None where there is no compiler, or it fails, with a warning.

    Use this when a form in C stands beside one in JAX; keep the result.

    Args:
      source: The file.
      options: Options of the compiler beside those that all files have: the instructions it may
        use.
      symbols: Functions that it has.
      folder: Where compiled code is kept, which must be writable for those alone who may run code
        here; None to keep none.
    """
    if os.environ.get(VARIABLE) == "none":
        return None
    begin = time.perf_counter()
    command = [*_OPTIONS, *options]
    compiler = c_compiler()
    try:
        facts = [os.environ.get(VARIABLE, ""), platform.machine(), sys.platform]
        parts = [
            source.read_bytes(),
            *(fact.encode() for fact in (*_LEVELS[0], *_LEVELS[1], *command, *facts)),
        ]
        name = _HASH(b"".join(_HASH(part).digest() for part in parts)).hexdigest()
        target = None if folder is None else folder / f"racer_jax-{name}.so"
        if target is not None and (library := _kept(target, symbols)) is not None:
            return _timed(library, begin)
        if compiler is None:
            return None
        with tempfile.TemporaryDirectory(prefix="racer_jax-") as place:
            output = Path(place) / "code.so"
            for level in _LEVELS:
                done = subprocess.run(
                    [compiler, *level, *command, "-o", str(output), str(source)],
                    capture_output=True,
                    errors="replace",  # in whatever encoding it speaks
                    timeout=_SECONDS,
                )
                if not done.returncode:
                    break
            done.check_returncode()
            library = _loaded(output, symbols)  # it stays where it is mapped, without its file
            if target is not None:
                _keep(target, output.read_bytes())
            return _timed(library, begin)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or "").strip().splitlines()
        warnings.warn(
            f"{compiler or 'no compiler'} cannot compile {source.name}, so JAX does the same in "
            f"more time ({said[0] if said else error}); {VARIABLE}=none in the environment leaves "
            "it to JAX",
            RuntimeWarning,
            stacklevel=3,
        )
        return None


def _loaded(path: Path, symbols: Sequence[str]) -> ctypes.CDLL:
    """The code of a file, which has these functions; else an OSError."""
    library = ctypes.CDLL(str(path))
    if absent := [name for name in symbols if not hasattr(library, name)]:
        raise OSError(f"what was compiled has no {' and no '.join(absent)}")
    return library


def _timed(library: ctypes.CDLL, begin: float) -> ctypes.CDLL:
    """The same; JAX's listeners hear how long it took."""
    seconds = time.perf_counter() - begin
    jax.monitoring.record_event_duration_secs("/racer_jax/c_library_duration", seconds)
    return library


def _kept(path: Path, symbols: Sequence[str]) -> ctypes.CDLL | None:
    """The code of a file that is whole; else None, and it is made anew."""
    try:
        content = read_kept(path)
        if _HASH(content[:-32]).digest() != content[-32:]:
            return None
        return _loaded(path, symbols)
    except OSError:
        return None


def _keep(path: Path, code: bytes) -> None:
    """Writes code and, behind it, its hash: what is cut off would end the process as it runs."""
    make_way(path)
    try:
        with written_whole(path) as temporary:
            temporary.write_bytes(code + _HASH(code).digest())
    except OSError as error:
        warnings.warn(
            f"compiled code cannot be kept in {path.parent}: each process makes it ({error})",
            RuntimeWarning,
            stacklevel=4,
        )
