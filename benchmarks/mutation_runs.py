"""Runs of pytest in forked processes, with or without a mutant.

Used by `benchmarks/mutation.py`.
"""

import ast
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mutants import Mutant

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "pytest hypothesis hypothesis.extra.numpy numpy scipy.stats scipy.special jax jax.numpy "
    "jax.scipy.special jax.scipy.stats jax.experimental.multihost_utils flax.nnx optax chex "
    "msgspec safetensors.numpy lazy_loader transformers"
)
# A process started by a test finds the mutant too.
SITE = """
import importlib.abc, importlib.util, os, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        module, _, file = os.environ.get("RACER_JAX_MUTANT", "").partition("=")
        if name == module:
            return importlib.util.spec_from_file_location(name, file)

sys.meta_path.insert(0, Finder())
"""


def module_name(path: str) -> str:
    """The dotted name of a file of the package."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from code that was compiled here."""

    def __init__(self, name: str, path: str, code: types.CodeType) -> None:
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname: str) -> types.CodeType:
        """The code it was given."""
        return self.code


class Finder(importlib.abc.MetaPathFinder):
    """Finds one module in the form of a mutant."""

    def __init__(self, path: str, code: types.CodeType) -> None:
        self.path, self.code = path, code

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The mutant, if it is asked for."""
        if name != module_name(self.path):
            return None
        file = str(ROOT / self.path)
        loader = Loader(name, file, self.code)
        return importlib.util.spec_from_file_location(name, file, loader=loader)


class Plugin:
    """What pytest is asked for: no search for a smaller example, and some tests in some order."""

    def __init__(
        self, order: Mapping[str, int] | None = None, finder: Finder | None = None
    ) -> None:
        self.order, self.finder = order, finder
        self.killer: str | None = None

    def pytest_sessionstart(self) -> None:
        """Sets how hypothesis searches, and what `import` finds."""
        from hypothesis import Phase, settings

        if self.finder is not None:  # before pytest's own, which finds what holds doctests
            sys.meta_path.insert(0, self.finder)

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile(
            "mutation", settings.default, phases=phases, report_multiple_bugs=False
        )
        settings.load_profile("mutation")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keeps the tests of the order, in that order."""
        if self.order is not None:
            order = self.order
            items[:] = sorted(
                (item for item in items if item.nodeid in order),
                key=lambda item: order[item.nodeid],
            )

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keeps the first test that failed."""
        if report.failed and self.killer is None:
            self.killer = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        """Keeps the first file that could not be collected."""
        if report.failed and self.killer is None:
            self.killer = f"collecting {report.nodeid}"


class Coverage(Plugin):
    """Records what each test of a part executes of the modules, and the CPU time it takes."""

    def __init__(self, modules: Iterable[str], part: tuple[int, int], record: IO[str]) -> None:
        super().__init__()
        self.files = {str(ROOT / module): module for module in modules}
        self.lines: set[tuple[str, int]] = set()
        self.shared: set[tuple[str, int]] = set()
        self.part, self.record, self.start = part, record, 0.0

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keeps one part, the quick tests first."""
        number, num_parts = self.part
        items.sort(key=lambda item: item.get_closest_marker("long") is not None)
        items[:] = items[number::num_parts]

    def trace(self, frame: types.FrameType, event: str, arg: object) -> Any:
        """Records the lines of a call, if it is of one of the modules."""
        module = self.files.get(frame.f_code.co_filename)
        if module is None:
            return None
        lines = self.lines

        def local(frame: types.FrameType, event: str, arg: object) -> Any:
            lines.add((module, frame.f_lineno))
            return local

        lines.add((module, frame.f_lineno))
        return local

    def pytest_runtest_setup(self, item: Any) -> None:
        """Starts the clock."""
        import jax

        jax.clear_caches()  # what was traced before would not be executed again
        self.start = time.process_time()

    def pytest_runtest_call(self, item: Any) -> None:
        """Keeps apart what the fixtures executed, which those of a module do only once."""
        self.shared |= self.lines
        self.lines.clear()

    def pytest_runtest_teardown(self, item: Any) -> None:
        """Writes the record of a test."""
        seconds = round(time.process_time() - self.start, 3)
        lines: dict[str, list[int]] = {}
        for module, line in sorted(self.lines | self.shared):
            lines.setdefault(module, []).append(line)
        test = {"name": item.nodeid, "seconds": seconds, "lines": lines}
        self.record.write(json.dumps(test) + "\n")
        self.record.flush()
        self.lines.clear()


class Children:
    """Processes forked from this one, at most so many at a time."""

    def __init__(self, most: int, folder: Path) -> None:
        self.most, self.free, self.folder = most, list(range(most)), folder
        self.running: dict[int, tuple[int, float, Path, Callable[[Any, float], None]]] = {}
        self.pinned = most > 1 and most >= (os.cpu_count() or 1)

    def start(
        self, work: Callable[[], Any], done: Callable[[Any, float], None], seconds: float
    ) -> None:
        """Runs `work` in a child and gives `done` what it returned, None where it did not end."""
        slot = self.free.pop()
        place = Path(tempfile.mkdtemp(dir=self.folder))
        child = os.fork()
        if not child:
            status = 1
            try:
                self._begin(place, slot, seconds)
                (place / "result").write_text(json.dumps(work()))
                status = 0
            except BaseException:
                (place / "result").write_text(json.dumps({"error": traceback.format_exc()}))
            finally:
                os._exit(status)
        # The time on the wall is longer: others may need the processors too.
        self.running[child] = (slot, time.monotonic() + 5 * seconds, place, done)

    def _begin(self, place: Path, slot: int, seconds: float) -> None:
        os.setsid()
        if self.pinned:
            os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[slot]})
        with open(place / "output", "w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
        resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ["TMPDIR"] = tempfile.tempdir = str(place)

    def wait(self) -> None:
        """Waits a moment for one that ended or took too long."""
        for child, (_, end, place, done) in list(self.running.items()):
            if time.monotonic() > end:
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
            ended, _, usage = os.wait4(child, os.WNOHANG)
            if not ended:
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)  # what it may have started
            slot = self.running.pop(child)[0]
            self.free.append(slot)
            result = None
            with suppress(OSError, ValueError):
                result = json.loads((place / "result").read_text())
            shutil.rmtree(place, ignore_errors=True)
            if result is not None and "error" in result:
                raise RuntimeError(result["error"])
            done(result, usage.ru_utime + usage.ru_stime)
        if not self.free:
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends all of them."""
        for child, (_, _, place, _) in self.running.items():
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            shutil.rmtree(place, ignore_errors=True)
        self.running.clear()
        self.free = list(range(self.most))


def run_tests(files: Iterable[str], plugin: Plugin, marks: str) -> int:
    """The exit status of pytest."""
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line", "-m", marks]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    os.chdir(ROOT)
    basetemp = f"--basetemp={tempfile.gettempdir()}/pytest"
    if isinstance(plugin, Coverage):
        options.remove("-x")
    return int(pytest.main([*options, basetemp, *files], plugins=[plugin]))


def covered(
    file: str, part: tuple[int, int], modules: list[str], marks: str, record: Path
) -> dict[str, Any]:
    """Records which lines the tests of a file execute, those of one part; runs in a child."""
    partial = record.with_suffix(".partial")
    with partial.open("w") as lines:
        plugin = Coverage(modules, part, lines)
        threading.settrace(plugin.trace)
        sys.settrace(plugin.trace)
        status = run_tests([file], plugin, marks)
        sys.settrace(None)
    if status not in (0, 5):
        sys.stdout.flush()
        return {"failed": (Path(tempfile.gettempdir()) / "output").read_text()[-2000:]}
    seen = {module for line in partial.read_text().split("\n")[:-1] for module in modules_of(line)}
    record.with_suffix(".modules").write_text(json.dumps(digests(sorted(seen))))
    partial.rename(record)
    return {}


def modules_of(line: str) -> list[str]:
    """The modules that a test of a record executed."""
    return list(json.loads(line)["lines"])


def digests(modules: Iterable[str]) -> dict[str, str]:
    """What the lines of a record refer to: the modules as they are; empty for one that is gone."""
    paths = {module: ROOT / module for module in modules}
    return {
        module: hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
        for module, path in paths.items()
    }


def tried(
    mutant: Mutant, tree: ast.Module, tests: list[str], files: list[str], marks: str
) -> dict[str, Any]:
    """Whether tests, or all tests of files, kill a mutant; runs in a child with its own tree."""
    mutant.apply()
    ast.fix_missing_locations(tree)
    path = str(ROOT / mutant.module)
    source = Path(tempfile.gettempdir()) / "mutant.py"
    source.write_text(ast.unparse(tree))
    os.environ["RACER_JAX_MUTANT"] = f"{module_name(mutant.module)}={source}"
    finder = Finder(mutant.module, compile(tree, path, "exec"))
    plugin = Plugin(None if files else {name: i for i, name in enumerate(tests)}, finder)
    files = files or list(dict.fromkeys(name.partition("::")[0] for name in tests))
    status = run_tests(files, plugin, marks)
    return {"status": status, "killer": plugin.killer}


def prepare(folder: Path) -> None:
    """The environment of all tests, and the libraries."""
    cache = folder / "compiled"
    cache.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITE)
    os.environ |= {
        "RACER_JAX_TEST_CACHE": str(folder),
        "RACER_JAX_CACHE": str(folder / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
    }
    sys.path.insert(0, str(ROOT))
    for name in LIBRARIES.split():
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"note: {error}")
