"""Compiled programs that are kept on disk, so that the next process neither traces nor compiles.

JAX's own cache keeps what the compiler made of a program, but tracing a large program and lowering
it, to know which it is, takes a process a third of a second each time. Here a program is known by
what it is made from: the source of this package, versions, settings, and what goes in.
"""

import hashlib
import os
import pickle
import platform
import sys
import time
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from threading import Lock
from types import FunctionType
from typing import Any

import jax
import numpy as np

from racer_jax._distribution import __version__
from racer_jax._files import make_way, read_kept, written_whole
from racer_jax._memory import give_back

_HERE = Path(__file__).parent
_LOADED: dict[str, jax.stages.Compiled] = {}
_SMALL_TOO: list[bool] = []  # true once in it
_UNTRIED: set[str] = set()  # those of the disk that have not run yet
_UNWRITTEN: set[Path] = set()  # folders that a warning has named
_LOCKS: defaultdict[str, Lock] = defaultdict(Lock)
# Settings under which a call of a compiled program does other than a call of the jitted function.
_PLAIN = ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs", "jax_debug_key_reuse")
# What the code for an accelerator is made by and calls, as distributions begin to be called.
_LIBRARIES = ("jax", "nvidia", "libtpu", "rocm")
# The lines of a processor that say which code it runs, on x86 and on ARM.
_FEATURES = ("flags", "features", "model name", "cpu implementer", "cpu part")
_FAILURES = (jax.errors.JaxRuntimeError, ValueError, TypeError)


def usual_devices(local: bool = False) -> list[jax.Device]:
    """The devices of the platform that JAX computes on.

    That is the platform of `jax.default_device` where it is set.

    Use this when a program is spread over devices that the caller did not name: on a machine with
    an accelerator, `jax.devices()` are not those of a computation that was sent to the CPU.

    Args:
      local: Whether to leave out the devices of other processes.
    """
    default = getattr(jax.config, "jax_default_device", None)
    platform = getattr(default, "platform", default)
    devices: list[jax.Device] = (jax.local_devices if local else jax.devices)(backend=platform)
    return devices


def default_device() -> jax.Device:
    """The device that runs what no device was named for.

    Use this when a program of one device is kept.
    """
    default = getattr(jax.config, "jax_default_device", None)
    return default if isinstance(default, jax.Device) else usual_devices(local=True)[0]


def run_kept(
    make: Callable[[], Callable[..., Any]],
    args: tuple[Any, ...],
    static: Mapping[str, Any],
    *,
    facts: object,
    devices: Sequence[jax.Device],
    packages: Sequence[str],
    options: Callable[[], Mapping[str, Any]] = dict,
) -> Any:
    """`make()(*args, **static)`, with the program from disk where one like it was kept.

    Programs are kept where JAX keeps compiled code, `jax_compilation_cache_dir`; without such a
    folder, under a trace, or where several processes share a computation, the function is called.
    What is read from the folder runs as code, as it does from JAX's own cache: it must be writable
    for those alone who may run code here.

    Use this when a jitted function of the package is large and is called in short-lived processes.

    Args:
      make: Returns what `jax.jit` returned; called where there is no program yet.
      args: Pytrees of arrays.
      static: Its static arguments.
      facts: All that the program depends on beside `args` and the source of `packages`, the static
        arguments included, with a `repr` that says it in full and alike in every process.
      devices: The devices that run the program.
      packages: Packages of `racer_jax` whose source makes the program.
      options: The compiler options of the jitted function.
    """
    folder = program_folder()
    leaves, tree = jax.tree.flatten(args)
    if folder is None or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return make()(*args, **static)
    name = _name(
        *(repr(value) for value in (facts, _settings(), [device.id for device in devices])),
        str(tree),
        *map(_described, leaves),
        _machine(devices[0]),
        *map(_source, packages),
    )
    path = folder / f"racer_jax-{name}.program"

    def make_and_keep() -> jax.stages.Compiled:
        program = _compiled(make(), args, static, options())
        _keep(path, program)
        return program

    with _LOCKS[name]:
        if name not in _LOADED:
            if (read := _load(path, args, devices)) is not None:
                _UNTRIED.add(name)
            _LOADED[name] = make_and_keep() if read is None else read
        program = _LOADED[name]
    if name not in _UNTRIED:
        return program(*args)
    # What was made by another build of the compiler may load and fail when it runs, which on an
    # accelerator is known when the results are there.
    try:
        results = jax.block_until_ready(program(*args))
    except _FAILURES as error:
        with _LOCKS[name]:
            if _LOADED[name] is program:
                _warn(f"the program in {path} does not run here and is compiled anew", error)
                _LOADED[name] = make_and_keep()
                _UNTRIED.discard(name)
            program = _LOADED[name]
        return program(*args)
    _UNTRIED.discard(name)
    return results


def keep_small_programs() -> None:
    """Lets `run_small` keep programs in this process.

    Use this at the start of a command that answers one question and ends: to lower the smallest
    program takes twenty megabytes and a twentieth of a second, which a process that calls it often
    takes once, and to look a program up takes a millisecond at each call.
    """
    _SMALL_TOO.append(True)


def run_small(
    jitted: Callable[..., Any],
    args: tuple[Any, ...],
    static: Mapping[str, Any],
    *,
    facts: object = None,
    packages: Sequence[str],
) -> Any:
    """`jitted(*args, **static)`, from disk after `keep_small_programs`.

    Use this when a function is called once for each question.

    Args:
      jitted: What `jax.jit` returned, of a function of one device.
      args: As for `run_kept`.
      static: As for `run_kept`.
      facts: All that the program depends on beside its name, `args`, `static` and the source of
        `packages`; see `run_kept`.
      packages: As for `run_kept`.
    """
    if not _SMALL_TOO:
        return jitted(*args, **static)
    name = jitted.__module__, getattr(jitted, "__qualname__", "")
    return run_kept(
        lambda: jitted,
        args,
        static,
        facts=(name, sorted(static.items()), facts),
        devices=[default_device()],
        packages=packages,
    )


def is_known(function: object) -> bool:
    """Whether a function is one of a module of this package, so that its source is known.

    Use this when a program calls what the caller chose.
    """
    name = getattr(function, "__qualname__", "<")
    module = getattr(function, "__module__", None) or ""
    is_function = isinstance(function, FunctionType)
    return is_function and "<" not in name and module.startswith("racer_jax.")


def _compiled(
    jitted: Callable[..., Any],
    args: tuple[Any, ...],
    static: Mapping[str, Any],
    options: Mapping[str, Any],
) -> jax.stages.Compiled:
    """The program, made by the compiler and not by JAX's cache.

    What that cache read back cannot be written again: it loads, and fails when it is called. So
    the program has a name that no other had.
    """
    function: Callable[..., Any] = jitted.__wrapped__  # type: ignore[attr-defined]

    def program(*args: Any) -> Any:
        return function(*args, **static)

    program.__name__ = f"{function.__name__}_{os.urandom(8).hex()}"
    compiled = jax.jit(program, compiler_options=dict(options)).lower(*args).compile()
    give_back()  # the compiler took up to a hundred megabytes, and freed them
    return compiled


def program_folder() -> Path | None:
    """Where compiled programs are kept; None where they are not.

    Use this when something else that was compiled is kept beside them.
    """
    folder = getattr(jax.config, "jax_compilation_cache_dir", None)
    plain = any(getattr(jax.config, name, False) for name in _PLAIN)
    if not folder or plain or not getattr(jax.config, "jax_enable_compilation_cache", True):
        return None
    return None if jax.process_count() > 1 or not os.path.isdir(folder) else Path(folder)


def _name(*parts: str) -> str:
    """The name of a program: a hash of all that it is made from."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part.encode()).digest())
    return total.hexdigest()


def _settings() -> dict[str, Any]:
    """The settings of JAX, those of its cache and its log left out."""
    names = sorted(n for n in jax.config.values if "cache" not in n and not n.startswith("jax_log"))
    return {name: getattr(jax.config, name, None) for name in names}


def _described(leaf: Any) -> str:
    """What a program depends on of an argument: its type, and where it is."""
    if not isinstance(leaf, jax.Array):
        leaf = np.asarray(leaf)
        return f"{leaf.dtype}{leaf.shape}"
    return f"{leaf.aval} {leaf.sharding} {leaf.committed}"


@cache
def _machine(device: jax.Device) -> str:
    """The versions of all that compiles, and the processor that it compiles for."""
    features = [platform.machine()]
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            text = file.read(1 << 14)  # the first processor stands for all
        first = text.split("\n\n")[0].splitlines()
        features += [line for line in first if line.lower().startswith(_FEATURES)]
    except OSError:  # on Linux this would start a process, for a word
        features.append(platform.processor())
    variables = [os.environ.get(name) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    kind = device.platform, device.device_kind, device.client.platform_version
    versions = __version__, jax.__version__, version("jaxlib"), np.__version__, sys.version
    libraries = [] if device.platform == "cpu" else _libraries()
    return repr((features, variables, kind, versions, libraries))


def _libraries() -> list[str]:
    """The versions of the compiler's plugin for an accelerator, and of the libraries it calls."""
    installed = ((str(one.name or "").lower(), one.version) for one in distributions())
    return sorted({f"{name} {number}" for name, number in installed if name.startswith(_LIBRARIES)})


@cache
def _source(package: str) -> str:
    """The source of a package as one hash, or of a module beside the packages."""
    files = sorted((_HERE / package).rglob("*.py")) or [_HERE / f"{package}.py"]
    return _name(*(f"{file.relative_to(_HERE)} {file.read_text('utf-8')}" for file in files))


def _load(
    path: Path, args: tuple[Any, ...], devices: Sequence[jax.Device]
) -> jax.stages.Compiled | None:
    """The program of a file; None where there is none that can be read."""
    from jax.experimental.serialize_executable import deserialize_and_load

    begin = time.perf_counter()
    try:
        code, results = pickle.loads(zlib.decompress(read_kept(path)))
        takes = jax.tree.structure((args, {}))
        program: jax.stages.Compiled = deserialize_and_load(
            code, takes, results, devices[0].client, devices
        )
        seconds = time.perf_counter() - begin
        jax.monitoring.record_event_duration_secs("/racer_jax/program_load_duration", seconds)
        return program
    except FileNotFoundError:
        return None
    except Exception as error:
        # Whatever is wrong with it (cut off, of another build of the compiler), it is made anew.
        _warn(f"the program in {path} cannot be read and is compiled anew", error)
        return None


def _keep(path: Path, program: jax.stages.Compiled) -> None:
    """Writes a program, if it can be written."""
    from jax.experimental.serialize_executable import serialize

    make_way(path)
    try:
        code, _, results = serialize(program)
        with written_whole(path) as temporary:
            temporary.write_bytes(zlib.compress(pickle.dumps((code, results)), 1))
    except Exception as error:
        if path.parent not in _UNWRITTEN:
            _UNWRITTEN.add(path.parent)
            where = f"compiled programs cannot be kept in {path.parent}"
            _warn(f"{where}: each process makes them", error)


def _warn(what: str, error: Exception) -> None:
    """Says why a program is made again; nothing but time is lost."""
    warnings.warn(f"{what} ({type(error).__name__}: {error})", RuntimeWarning, stacklevel=4)
