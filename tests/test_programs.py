"""Compiled programs on disk: known by what they are made from, and made anew where they do not fit."""

import json
import os
import re
import subprocess
import sys
import warnings
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import _programs
from racer_jax.core.nonconformity import gap
from racer_jax.montecarlo import plain_splits
from racer_jax.racer.scoring import Scorer
from racer_jax.routers.served_mlp import ServedMLP

SCALE = np.float32(3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of compiled code, and a process that holds no program yet."""
    monkeypatch.setattr(_programs, "_LOADED", {})
    monkeypatch.setattr(_programs, "_UNTRIED", set())
    monkeypatch.setattr(_programs, "_SMALL_TOO", [])
    monkeypatch.setattr(_programs, "_UNWRITTEN", set())
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
    _programs._UNTRIED.clear()
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
    with pytest.warns(RuntimeWarning, match="cannot be read and is compiled anew"):
        assert function(x) == [0, 3, 6]
    assert function.traces == 2
    forget()
    assert function(x) == [0, 3, 6]
    assert function.traces == 2


class FailsLater:
    """A result of an accelerator: whether its program ran is known when it is there."""

    def block_until_ready(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: no kernel image is available on the device")


def fails_now(*args):
    raise jax.errors.JaxRuntimeError("NOT_FOUND: Function fusion not found")


def fails_later(*args):
    return {"y": FailsLater()}


def takes_another(*args):
    raise ValueError("Compiled object called with input sharding(s) does not match")


@pytest.mark.parametrize("program", [fails_now, fails_later, takes_another])
def test_a_program_that_loads_and_fails_is_made_anew(folder, monkeypatch, program):
    function, x = Function(), [np.arange(3, dtype=np.float32)]
    function(x)
    forget()
    monkeypatch.setattr(_programs, "_load", lambda *args: program)
    with pytest.warns(RuntimeWarning, match="does not run here and is compiled anew"):
        assert function(x) == [0, 3, 6]
    assert function.traces == 2
    assert function(x) == [0, 3, 6]
    assert function.traces == 2


def test_a_program_that_cannot_be_written_runs_and_says_so(folder, monkeypatch):
    from jax.experimental import serialize_executable

    def refuses(program):
        raise ValueError("Compilation does not support serialization")

    function, x = Function(), [np.arange(3, dtype=np.float32)]
    monkeypatch.setattr(serialize_executable, "serialize", refuses)
    with pytest.warns(RuntimeWarning, match="cannot be kept .*does not support serialization"):
        assert function(x) == [0, 3, 6]
    assert function(x) == [0, 3, 6]
    assert function.traces == 1
    assert not list(folder.glob("racer_jax-*"))
    with warnings.catch_warnings():  # a second program of the folder is no news
        warnings.simplefilter("error")
        assert function(x, power=2) == [0, 9, 18]


# --- a machine with an accelerator ----------------------------------------------------------------


class Accelerator:
    """What is asked of a device, of one that this machine lacks."""

    def __init__(self, kind="NVIDIA H100 80GB HBM3", version="cuda 12090"):
        self.id, self.platform, self.device_kind = 0, "gpu", kind
        self.client = SimpleNamespace(platform_version=version)


def test_the_machine_of_a_program_is_the_device_and_all_that_its_code_calls(monkeypatch):
    installed = [SimpleNamespace(name="nvidia-cudnn-cu12", version="9.1")]
    monkeypatch.setattr(_programs, "distributions", lambda: installed)
    names = {_programs._machine(device) for device in (Accelerator(), jax.devices()[0])}
    names |= {_programs._machine(Accelerator(kind="NVIDIA H200"))}
    names |= {_programs._machine(Accelerator(version="cuda 13000"))}
    installed[0] = SimpleNamespace(name="nvidia-cudnn-cu12", version="9.2")
    names |= {_programs._machine(Accelerator())}
    assert len(names) == 5
    assert all("nvidia-cudnn-cu12" in name for name in names if "gpu" in name)


def test_a_program_goes_where_jax_was_asked_to_compute(monkeypatch):
    cpus, accelerator = jax.local_devices(), Accelerator()

    def local_devices(process_index=None, backend=None):
        return [accelerator] if backend in (None, "gpu") else cpus

    for name in ("devices", "local_devices"):
        monkeypatch.setattr(jax, name, lambda backend=None: local_devices(backend=backend))
    assert _programs.usual_devices() == [_programs.default_device()] == [accelerator]
    for where in ("cpu", cpus[-1]):
        with jax.default_device(where):
            assert _programs.usual_devices() == _programs.usual_devices(local=True) == cpus
    with jax.default_device(cpus[-1]):
        assert _programs.default_device() is cpus[-1]


SECOND = """
import sys
import warnings
import jax
import numpy as np
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
from racer_jax import _programs
from racer_jax.core.nonconformity import gap
from racer_jax.racer.scoring import Scorer
from racer_jax.routers.served_mlp import ServedMLP
from racer_jax.core.threefry import seeded
from racer_jax.montecarlo.pool_entries import pool_entries
scores = np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2)
made = []
for turn in range(2):
    with jax.default_device(jax.devices()[turn]):
        values = pool_entries(seeded(0), scores, "gap", "paper")[0]
    made.append(values.tolist())
assert made[0] == made[1]
devices = [
    device.id
    for program in _programs._LOADED.values()
    for sharding in jax.tree.leaves(program.output_shardings)
    for device in sharding.device_set
]
print(sorted(devices), len(_programs._UNTRIED))
"""


@pytest.mark.long
def test_a_program_of_the_second_device_is_read_back_onto_it(tmp_path):
    words = [sys.executable, "-W", "error", "-c", SECOND, str(tmp_path)]
    for _ in range(2):  # made, and read back
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout.split("\n")[0] == "[0, 1] 0"
    assert len(list(tmp_path.glob("racer_jax-*.program"))) == 2


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


# --- small programs ---------------------------------------------------------------------------


def test_small_programs_are_kept_by_a_process_that_asks_for_it(folder):
    function, x = Function(), np.arange(3, dtype=np.float32)

    def small():
        packages = ("_distribution",)
        result = _programs.run_small(function.jitted, ([x],), {"power": 2}, packages=packages)
        return np.asarray(result["y"]).tolist()

    assert small() == [0, 9, 18]
    assert not list(folder.glob("racer_jax-*"))
    _programs.keep_small_programs()
    assert small() == [0, 9, 18]
    forget()
    traces = function.traces
    assert small() == [0, 9, 18]
    assert function.traces == traces
    assert len(list(folder.glob("racer_jax-*"))) == 1


def test_what_a_caller_chose_is_not_known_by_the_source_of_the_package():
    assert _programs.is_known(gap)
    own_closure = lambda x: x  # noqa: E731
    own_closure.__module__ = gap.__module__
    nothing = [
        own_closure,
        lambda x: x,
        partial(gap, null="free"),
        np.sin,
        jnp.sin,
        forget,
        Function(),
        None,
    ]
    assert not any(map(_programs.is_known, nothing))
    assert not _programs.is_known(_programs.run_small.__get__(object()))  # bound: holds an object


def test_a_question_is_scored_by_programs_of_the_disk(folder):
    """The same scores; another router or encoder of the package has another program."""

    class Words:
        """Texts to the numbers of their letters."""

        dim = 2

        def encode(self, texts):
            return np.array([[len(text), 1.0] for text in texts], np.float32)

    def scorer(num_layers):
        sizes = {"kind": "mlp", "dim": 2, "num_models": 2, "hidden": [2] * (num_layers - 1)}
        arrays = {"mean": np.zeros(2, np.float32), "scale": np.ones(2, np.float32)}
        for i in range(num_layers):
            arrays |= {f"layers.{i}.kernel": np.eye(2, dtype=np.float32) / 10}
            arrays |= {f"layers.{i}.bias": np.zeros(2, np.float32)}
        parts = {f"router.{name}": array for name, array in arrays.items()}
        router = ServedMLP.from_parts(sizes | {"dropout": 0}, parts, "router", None)
        return Scorer(Words(), router, 2)

    expected = scorer(1)(["a", "bcd"], "gap", "free")
    _programs.keep_small_programs()
    for turn in range(2):
        measured = scorer(1)(["a", "bcd"], "gap", "free")
        np.testing.assert_array_equal(measured.scores, expected.scores)
        np.testing.assert_array_equal(measured.nonconformity, expected.nonconformity)
        assert len(list(folder.glob("racer_jax-*"))) == 1, turn
        forget()
    assert not np.array_equal(scorer(2)(["a"], "gap", "free").scores, expected.scores[:1])
    scorer(1)(["a", "bcd"], "gap", "paper")
    assert len(list(folder.glob("racer_jax-*"))) == 3


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
@pytest.mark.parametrize("compiler", [None, "none"], ids=["with C", "by XLA"])
def test_a_fresh_process_compiles_few_programs_and_a_second_one_none(
    tmp_path, monkeypatch, code, compiled, compiler
):
    if compiler:
        monkeypatch.setenv("RACER_JAX_CC", compiler)
    elif plain_splits.program_in_use().startswith("plain splits"):
        compiled = [name for name in compiled if name != "_run"]  # C runs the splits
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


def _link_to_itself(path):
    path.symlink_to(path)


def _full_folder(path):
    path.mkdir()
    (path / "file").touch()


IN_THE_PLACE = {
    "a named pipe": (os.mkfifo, True),
    "a folder": (os.mkdir, True),
    "a folder that holds something": (_full_folder, False),
    "a link to itself": (_link_to_itself, True),
    "a link to a pipe": (lambda path: _linked_pipe(path), True),
}


def _linked_pipe(path):
    pipe = path.with_name("pipe")
    os.mkfifo(pipe)
    path.symlink_to(pipe)


@pytest.mark.parametrize(("make", "gives_way"), IN_THE_PLACE.values(), ids=IN_THE_PLACE)
def test_what_is_no_file_is_passed_over_and_makes_way(folder, make, gives_way):
    """A named pipe would be waited for as long as nobody writes into it."""
    function, x = Function(), [np.arange(3, dtype=np.float32)]
    function(x)
    (path,) = folder.glob("racer_jax-*.program")
    path.unlink()
    make(path)
    forget()
    with pytest.warns(RuntimeWarning, match="compiled anew|cannot be kept"):
        assert function(x) == [0, 3, 6]
    assert path.is_file() == gives_way
    forget()
    if gives_way:
        assert function(x) == [0, 3, 6]
        assert function.traces == 2
