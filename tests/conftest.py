"""How all tests run, and fixtures that more than one test module uses."""

import atexit
import contextlib
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Compiling is four fifths of the suite's time. What the environment says is read when JAX is
# imported, here, by the workers of pytest-xdist and by every process that a test starts: all share
# one folder of compiled code, which goes when the session ends, and leave the user's alone.
# .ci/run names a folder of its own, for the second of its runs finds there what the first compiled.
if "RACER_JAX_TEST_CACHE" not in os.environ:
    _CACHE = tempfile.mkdtemp(prefix="racer_jax_tests_")
    atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
    os.environ |= {
        "RACER_JAX_TEST_CACHE": _CACHE,
        "RACER_JAX_CACHE": _CACHE,
        # By version of Python, for the reason that `use_compilation_cache` gives.
        "JAX_COMPILATION_CACHE_DIR": os.path.join(
            os.environ.get("RACER_JAX_TEST_COMPILED", os.path.join(_CACHE, "compiled")),
            str(sys.implementation.cache_tag),
        ),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        # One process may read half of what another is writing there, and compiles it then.
        "PYTHONWARNINGS": "ignore:Error reading persistent compilation cache entry",
        # Lines of the source in compiled code are for profilers; to gather them takes time.
        "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",
        # There are as many workers as cores: none is left to compile parts of a program beside
        # others, and to take it apart costs a tenth of the time.
        "XLA_FLAGS": " ".join(
            ["--xla_cpu_parallel_codegen_split_count=1", os.environ.get("XLA_FLAGS", "")]
        ).strip(),
        # Else it asks the network for prices, for seconds, and warns in the midst of other tests.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }

import hypothesis
import jax
import pytest

from racer_jax._memory import give_back

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# The same examples on every machine: a search that finds something new finds it in the run of
# whoever asked for it, with `--hypothesis-profile explore`.
hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("same")


DOCS = Path(__file__).parents[1] / "docs"
PACKAGE = Path(__file__).parents[1] / "racer_jax"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The pages of the site and the examples in docstrings take long, each with its own shapes.

    README and tutorial do not wait.
    """
    for item in items:
        if not {DOCS, PACKAGE}.isdisjoint(item.path.parents):
            item.add_marker(pytest.mark.long)


@hypothesis.given(hypothesis.strategies.none())
def _one_example(_: None) -> None:
    """Nothing: Hypothesis makes its random generator for the first example of all."""


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: the collector need not look through them each time.

    JAX makes so many small objects as it traces that the collector would start every millisecond.
    """
    # Hypothesis asks the collector who holds its generator, and warns where nobody does. From
    # Python 3.14 on its dictionary, even empty, is among what is frozen and no longer seen.
    _one_example()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


# A worker may grow by so many bytes before it drops what it compiled. Tracing a function anew and
# reading its program takes a fifth of a module's time, so it is done seldom: the workers together
# have a quarter of the memory, and each of them 1 GiB at most.
_NUM_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# Windows does not say it this way.
_MEMORY = (
    os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 1 << 33
)
_GROWTH = min(1 << 30, _MEMORY // 4 // _NUM_WORKERS)
_after_last_drop = [0]


def _resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not say."""
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


@pytest.fixture(autouse=True)
def _small_between_tests() -> Iterator[None]:
    """Programs are in the folder of compiled code, and what is asked for again is read from it."""
    yield
    if _resident() - _after_last_drop[0] > _GROWTH:
        jax.clear_caches()
        gc.collect()
        give_back()
        _after_last_drop[0] = _resident()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data, beside the checkout or named by RACER_DATA.

    The test skips where it is absent.
    """
    root = Path(
        os.environ.get("RACER_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
    ).resolve()
    if not root.is_dir():
        pytest.skip("no real data (set RACER_DATA)")
    return root


@pytest.fixture(params=["eager", "jit", "vmap"])
def transform(request: pytest.FixtureRequest):
    """Runs a function of arrays as it is, jitted, and vmapped over a batch of one."""

    def vmapped(function):
        def call(*args):
            batched = jax.tree.map(lambda a: jax.numpy.asarray(a)[None], args)
            return jax.tree.map(lambda a: a[0], jax.vmap(function)(*batched))

        return call

    return {"eager": lambda f: f, "jit": jax.jit, "vmap": vmapped}[request.param]
