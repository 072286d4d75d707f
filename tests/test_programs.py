"""Compiled programs on disk: known by what they are made from, and made anew where they do not fit."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import _programs

SCALE = np.float32(3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of compiled code, and a process that holds no program yet."""
    monkeypatch.setattr(_programs, "_LOADED", {})
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    with jax.debug_key_reuse(False):  # under which the function is called
        yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


class Function:
    """A jitted function that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

        def scaled(x, power):
            self.traces += 1
            return {"y": x[0] * SCALE**power}

        self.jitted = jax.jit(scaled, static_argnames="power")

    def __call__(self, x, power=1, facts=()):
        result = _programs.run_kept(
            lambda: self.jitted,
            (x,),
            {"power": power},
            facts=(power, facts),
            devices=jax.devices()[:1],
            packages=("_distribution",),
        )
        return np.asarray(result["y"]).tolist()


def forget():
    """What a new process knows."""
    _programs._LOADED.clear()
    jax.clear_caches()


def test_a_program_of_the_disk_is_not_traced(folder):
    function, x = Function(), [np.arange(3, dtype=np.float32)]
    assert function(x) == function(x) == [0, 3, 6]
    assert function.traces == 1
    forget()
    assert function(x) == [0, 3, 6]
    assert function.traces == 1
    assert len(list(folder.glob("racer_jax-*.program"))) == 1


def test_what_a_program_depends_on_gives_it_another_name(folder, monkeypatch):
    function, x = Function(), [np.arange(3, dtype=np.float32)]
    function(x)
    assert function(x, power=2) == [0, 9, 18]
    assert function([np.arange(4, dtype=np.float32)]) == [0, 3, 6, 9]
    assert function([np.arange(3, dtype=np.int32)]) == [0, 3, 6]
    assert function((np.arange(3, dtype=np.float32),)) == [0, 3, 6]
    assert function(x, facts="another function") == [0, 3, 6]
    with jax.enable_x64(True):
        function(x)
    monkeypatch.setattr(_programs, "_source", lambda package: "edited")
    function(x)
    monkeypatch.setattr(_programs, "_machine", lambda device: "another processor")
    function(x)
    assert len(list(folder.glob("racer_jax-*.program"))) == 9


@pytest.mark.parametrize("content", [b"", b"half", None])
def test_a_file_that_is_no_program_is_written_anew(folder, content):
    function, x = Function(), [np.arange(3, dtype=np.float32)]
    function(x)
    (path,) = folder.glob("racer_jax-*.program")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    forget()
    assert function(x) == [0, 3, 6]
    assert function.traces == 2
    forget()
    assert function(x) == [0, 3, 6]
    assert function.traces == 2


def test_a_program_that_loads_and_fails_is_made_anew(folder, monkeypatch):
    function, x = Function(), [np.arange(3, dtype=np.float32)]
    function(x)
    forget()

    def fails(*args):
        raise jax.errors.JaxRuntimeError("NOT_FOUND: Function fusion not found")

    monkeypatch.setattr(_programs, "_load", lambda *args: fails)
    assert function(x) == [0, 3, 6]
    assert function.traces == 2
    assert function(x) == [0, 3, 6]


def test_what_the_cache_of_jax_holds_is_compiled_all_the_same(folder):
    """What that cache read back loads and fails, written again."""
    function, x = Function(), [np.arange(3, dtype=np.float32)]
    function(x)
    for path in folder.glob("racer_jax-*.program"):
        path.unlink()
    forget()
    function(x)
    forget()
    (path,) = folder.glob("racer_jax-*.program")
    assert _programs._load(path, (x,), jax.devices()[:1])(x)["y"].tolist() == [0, 3, 6]


def test_where_nothing_can_be_kept_the_function_is_called(folder):
    function, x = Function(), np.arange(3, dtype=np.float32)
    under_jit = jax.jit(
        lambda x: _programs.run_kept(
            lambda: function.jitted, ([x],), {"power": 1}, facts=(), devices=(), packages=()
        )
    )
    np.testing.assert_array_equal(under_jit(jnp.asarray(x))["y"], [0, 3, 6])
    jax.config.update("jax_compilation_cache_dir", None)
    assert function([x]) == [0, 3, 6]
    assert not list(folder.glob("racer_jax-*.program"))
    jax.config.update("jax_compilation_cache_dir", str(folder / "absent"))
    assert function([x]) == [0, 3, 6]


# --- what a fresh process compiles ----------------------------------------------------------------

COUNT = """
import json, sys
import jax
programs, traced = [], []
def listen(name, seconds, **more):
    if name.endswith("backend_compile_duration"):
        programs.append(more.get("fun_name"))
    if name.endswith("jaxpr_trace_duration"):
        traced.append(more.get("fun_name"))
jax.monitoring.register_event_duration_secs_listener(listen)
import numpy as np
from racer_jax.core.threefry import seeded
from racer_jax.studies.compilation_cache import use_compilation_cache
use_compilation_cache(sys.argv[1])
rng = np.random.default_rng(0)
"""
FIT = """
from racer_jax.routers import MLPConfig, fit_mlp
embeddings = rng.standard_normal((40, 4)).astype(np.float32)
config = MLPConfig(hidden=(4,), batch_size=8, max_epochs=1)
fit_mlp(seeded(0), embeddings, rng.random((40, 2)) < 0.6, config)
"""
W1 = """
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials
pool = pool_steps(rng.random((60, 3)).astype(np.float32), rng.random((60, 2)) < 0.5)
split_trials(seeded(0), pool, num_calibration=30, alpha=0.1, num_trials=8)
"""
CHECK = """
import importlib.util
spec = importlib.util.spec_from_file_location("bound_check", "experiments/bound_check.py")
module = sys.modules["bound_check"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
words = ["--splits", "8", "--alphas", "0.5", "--output", sys.argv[2], "--cache", sys.argv[1]]
module.main(words)
assert "scipy.optimize" not in sys.modules and "scipy.stats" not in sys.modules
assert not any(name.startswith("racer_jax.data.formats.") for name in sys.modules)
assert "flax" not in sys.modules and "optax" not in sys.modules
"""
LAST = """
print()
print(json.dumps([programs, traced]))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "compiled"),
    [
        # The first asks the compiler which options it knows.
        (W1 + FIT, ["<lambda>", "_run", "spread"]),
        (CHECK, ["<lambda>", "_run", "<lambda>"]),  # two scores of four pools, and one program
    ],
    ids=["W1 and a first fit", "bound_check"],
)
def test_a_fresh_process_compiles_few_programs_and_a_second_one_none(tmp_path, code, compiled):
    words = [sys.executable, "-c", COUNT + code + LAST, str(tmp_path), str(tmp_path / "results")]

    def counted():
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    programs, _ = counted()
    names = [re.sub("_[0-9a-f]{16}", "", name) for name in programs]
    assert sorted(names) == sorted(f"jit({name})" for name in compiled)
    programs, traced = counted()
    assert programs == []
    assert not any(name.startswith(("_run", "spread")) for name in traced)
