"""The C program for plain splits: the numbers of the kernel, bit for bit, and where it is used."""

import ctypes
import gc
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial, partialmethod
from itertools import pairwise
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from racer_jax import gap, tie_break
from racer_jax.montecarlo import plain_splits, trial_runs
from racer_jax.montecarlo.plan import plan_parts
from racer_jax.montecarlo.shared_work import SharedWork
from racer_jax.montecarlo.split_design import split_design
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.summaries import Accumulator
from racer_jax.montecarlo.trials import split_trials, stream_trials

LEVELS = [0.004, 0.03, 0.1, 0.25, 0.5, 0.9, 0.995]
CPU = jax.devices("cpu")
HERE = plain_splits.compiler_options()
FAST = ("-DFAST_PDEP",)
WIDE = (*plain_splits._WIDE, "-mprefer-vector-width=512")


def program_of(options):
    """The program with these options; the test is skipped where it cannot run."""
    if HERE is None or not set(options) - {*FAST, WIDE[-1]} <= set(HERE):
        pytest.skip("for processors that have what the program needs")
    library = plain_splits._library(tuple(options), None)
    if library is None:
        pytest.skip("no C compiler")
    return library


FORMS = {
    "AVX-512": (*plain_splits._ALSO, *WIDE, *FAST),
    "AVX-512, slow PDEP": (*plain_splits._ALSO, *WIDE),
    "AVX2": (*plain_splits._ALSO, *FAST),
    "AVX2, slow PDEP": plain_splits._ALSO,
}


@pytest.fixture(
    params=[
        pytest.param(form, id=name, marks=[pytest.mark.long] if name != "AVX-512" else [])
        for name, form in FORMS.items()
    ]
)
def program(request):
    return program_of(request.param)


def example(total, num_models=3, kind="free", seed=0):
    """A pool: scores that tie or do not, pairs with a tie-break, and costs of many sizes or two."""
    rng = np.random.default_rng(seed)
    steps = 5 if kind == "ties" else 1 << 20
    entries = gap((rng.integers(0, steps, (total, num_models)) / steps).astype(np.float32))
    correct = rng.random((total, num_models)) < 0.5
    ties = tie_break(jax.random.key(seed), entries.shape) if kind == "pairs" else None
    metrics = {
        "cents": rng.random((total, num_models + 1)),
        "prices": np.array([0.3, 0.1, 0.7, 1.3])[rng.integers(0, 4, num_models + 1)]
        + np.zeros((total, 1)),
        "fees": 0.1 + 0.7 * (np.arange(num_models + 1) > 1) + np.zeros((total, 1)),
        "halves": np.arange(num_models + 1) * 0.5 + np.zeros((total, 1)),
        "calls": np.minimum(np.arange(num_models + 1), 2) * 3 + np.zeros((total, 1)),
    }
    pool = pool_steps(entries, correct, ties, metrics=metrics)
    return pool.only("risk", "size", "fees") if kind == "few" else pool


def by(monkeypatch, library, run):
    """What `run` returns where the program is this one, or there is none."""
    with monkeypatch.context() as patch:
        patch.setattr(plain_splits, "_library", lambda *_: library)
        used = []
        for name in ("start", "start_counts"):
            start = getattr(plain_splits.PlainTrials, name)
            counted = partial(lambda start, *args: used.append(1) or start(*args), start)
            patch.setattr(plain_splits.PlainTrials, name, partialmethod(counted))
        result = run()
        assert bool(used) == (library is not None)
    return result


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert jax.tree.map(lambda x: x.dtype, left) == jax.tree.map(lambda x: x.dtype, right)


# Whole words, whole bytes, and none of them; one query on a side; one trial and several tiles.
@pytest.mark.long
@pytest.mark.parametrize(
    ("total", "num", "num_trials", "kind"),
    [
        (61, 29, 130, "few"),
        pytest.param(61, 29, 130, "free", marks=pytest.mark.long),
        pytest.param(64, 32, 65, "ties", marks=pytest.mark.long),
        pytest.param(200, 3, 64, "pairs", marks=pytest.mark.long),
        pytest.param(1000, 990, 70, "free", marks=pytest.mark.long),
        pytest.param(33, 32, 3, "ties", marks=pytest.mark.long),
        pytest.param(9, 1, 200, "pairs", marks=pytest.mark.long),
        pytest.param(2, 1, 1, "free", marks=pytest.mark.long),
    ],
)
def test_the_numbers_of_the_kernel(monkeypatch, program, total, num, num_trials, kind):
    for seed in range(3):
        pool = example(total, kind=kind, seed=seed)
        run = partial(
            split_trials,
            jax.random.key(seed),
            pool,
            num_calibration=num,
            alpha=LEVELS,
            num_trials=num_trials,
            first_trial=(0, 77, 2**32 - num_trials)[seed],
        )
        same(by(monkeypatch, program, run), by(monkeypatch, None, run))


@pytest.mark.long
def test_positions_of_more_than_sixteen_bits(monkeypatch, program):
    """A word gives one draw and not two."""
    pool = example(70_001, num_models=1).only("risk", "size")
    run = partial(
        split_trials, jax.random.key(1), pool, num_calibration=69_000, alpha=0.1, num_trials=66
    )
    same(by(monkeypatch, program, run), by(monkeypatch, None, run))


WHOLE = ("risk", "size", "abstention", "avoidable_miss", "calls")


@pytest.mark.long
@pytest.mark.parametrize(
    "names",
    [pytest.param((), id="totals", marks=pytest.mark.long), pytest.param(WHOLE, id="counts")],
)
def test_streams_and_budgets_have_the_same_summary(monkeypatch, names):
    program = program_of(HERE or FAST)
    pool = example(61, kind="ties")
    pool = pool.only(*names) if names else pool
    counted = []
    start = plain_splits.PlainTrials.start_counts
    monkeypatch.setattr(
        plain_splits.PlainTrials, "start_counts", lambda *args: counted.append(1) or start(*args)
    )
    run = partial(
        stream_trials,
        jax.random.key(1),
        pool,
        num_calibration=29,
        budget=[-1, 0, 3, 28],
        num_trials=813,
        chunk_size=100,
        bins=7,
    )
    ours, kernels = by(monkeypatch, program, run), by(monkeypatch, None, run)
    assert len(counted) == (4 if names else 0)  # all but the first chunk
    counted.clear()
    by(monkeypatch, program, partial(run, chunk_size=None))
    assert len(counted) == (1 if names else 0)  # 512 trials, and all others
    assert set(ours) == set(pool.metrics)
    for name, summary in ours.items():
        jax.tree.map(np.testing.assert_array_equal, summary, kernels[name])


@pytest.mark.parametrize("most", [1 << 20, 0])
def test_totals_that_no_range_foresaw_are_summed_one_by_one(monkeypatch, most):
    program = program_of(HERE or FAST)
    run = partial(
        stream_trials,
        jax.random.key(1),
        example(61).only(*WHOLE),
        num_calibration=29,
        alpha=LEVELS,
        num_trials=900,
        chunk_size=100,
    )
    expected = by(monkeypatch, program, run)

    def narrow(self):
        return np.asarray(self.centre, np.int32), 3

    monkeypatch.setattr(Accumulator, "reach", narrow)
    monkeypatch.setattr(trial_runs, "_MOST_COUNTS", most)  # and where counts would take too much
    jax.tree.map(np.testing.assert_array_equal, by(monkeypatch, program, run), expected)


@pytest.mark.parametrize("num", [1, 64, 65, 1000])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_counts_are_those_of_the_totals(program, num, num_threads):
    pool = example(61).only(*WHOLE)
    design = split_design(pool.order, num_calibration=29)
    parts = plan_parts(pool, design, design.budgets(LEVELS), False)
    trials = plain_splits.PlainTrials(program, np.array([3, 4], np.uint32), parts, num_threads)
    totals = list(trials.start(5, num).wait()["test"].values())[:-1]
    low = [total.min(axis=1) - i for i, total in enumerate(totals)]
    spread = [int(np.ptp(total, axis=1).max()) + 1 + 2 * i for i, total in enumerate(totals)]
    tables = trials.start_counts(5, num, low, spread).wait()
    for total, first, width, table in zip(totals, low, spread, tables, strict=True):
        expected = [np.bincount(row, minlength=width) for row in total - first[:, None]]
        np.testing.assert_array_equal(table, expected)
    for i, total in enumerate(totals):  # the largest total is the first that is not counted
        least = [*spread[:i], i + int(np.ptp(total, axis=1).max()), *spread[i + 1 :]]
        if least[i]:
            assert trials.start_counts(5, num, low, least).wait() is None
    widest = int(np.argmax(spread))
    spread[widest] = 1
    assert trials.start_counts(5, num, low, spread).wait() is None or num == 1
    assert trials.start_counts(5, num, [row + 1 for row in low], spread).wait() is None


@pytest.mark.long
def test_a_stream_goes_on_where_the_other_way_ended(monkeypatch, tmp_path):
    """Another machine may have no compiler: the file fits all the same."""
    program = program_of(HERE or FAST)
    pool = example(61).only("risk", "size")
    run = partial(stream_trials, jax.random.key(1), pool, num_calibration=29, alpha=LEVELS)
    whole = run(num_trials=900)
    for first, second in ((program, None), (None, program)):
        path = tmp_path / f"{first is None}.npz"
        by(monkeypatch, first, partial(run, num_trials=600, checkpoint=path))
        got = by(monkeypatch, second, partial(run, num_trials=900, checkpoint=path))
        jax.tree.map(np.testing.assert_array_equal, got, whole)


@pytest.mark.long
@pytest.mark.parametrize("size", [1e10, 1e12, 1e33, 1e-20])
def test_metrics_of_any_size(monkeypatch, size):
    program = program_of(HERE or FAST)
    rng = np.random.default_rng(0)
    entries = rng.random((61, 4)).astype(np.float32)
    tables = {"dollars": rng.random((61, 4)) * size, "steps": np.arange(4) * size / 4}
    tables["steps"] = tables["steps"] + np.zeros((61, 1))
    pool = pool_steps(entries, rng.random((61, 3)) < 0.5, metrics=tables)
    run = partial(
        split_trials, jax.random.key(1), pool, num_calibration=29, alpha=LEVELS, num_trials=66
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(by(monkeypatch, program, run), by(monkeypatch, None, run))


def test_results_are_whole_arrays_whatever_the_number_of_trials():
    pool = example(61)
    for num in (1, 16, 17, 100):
        program_of(HERE or FAST)
        got = split_trials(
            jax.random.key(1), pool, num_calibration=29, alpha=LEVELS, num_trials=num
        )
        for array in (got.risk, got.threshold, got.extra["cents"]):
            assert array.shape == (num, len(LEVELS))
            assert array.flags.f_contiguous
            assert array.flags.writeable


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_the_number_of_threads_does_not_matter(num_threads):
    program = program_of(HERE or FAST)
    pool = example(61)
    design = split_design(pool.order, num_calibration=29)
    parts = plan_parts(pool, design, design.budgets(LEVELS), True)
    key = np.array([3, 4], np.uint32)
    one = plain_splits.PlainTrials(program, key, parts, 1).start(5, 1000).wait()
    same(plain_splits.PlainTrials(program, key, parts, num_threads).start(5, 1000).wait(), one)


def runner_of(pool, devices=CPU, alpha=LEVELS, **how):
    design = split_design(pool.order, **({"num_calibration": 20} | how))
    budgets = design.budgets(alpha)
    key = jax.random.key(0)
    return trial_runs.trial_runner(key, pool, design, budgets, means=True, devices=devices)


class Elsewhere:
    """A device that is not of this process's CPU."""

    def __init__(self, platform="cpu", process_index=0):
        self.platform, self.process_index = platform, process_index


def test_where_the_program_is_used(monkeypatch):
    library = object()
    monkeypatch.setattr(plain_splits, "_library", lambda *_: library)
    monkeypatch.setattr(plain_splits, "compiler_options", lambda: ("-mavx2",))
    made = SimpleNamespace(num_threads=3, all_whole=False)
    monkeypatch.setattr(trial_runs, "PlainTrials", lambda *_: made)
    monkeypatch.setattr(trial_runs, "KernelTrials", lambda *_: "kernel")
    pool = example(40)
    assert runner_of(pool).usual_chunk == 4096
    made.num_threads = 9
    assert runner_of(pool).usual_chunk == 9 * 512
    made.all_whole = True
    assert runner_of(pool).usual_chunk == 1 << 14
    assert runner_of(pool, num_validation=5) == "kernel"
    assert runner_of(pool, group=np.arange(40) % 2) == "kernel"
    assert runner_of(pool, question=np.arange(40) // 2, num_calibration=9) == "kernel"
    assert runner_of(pool, devices=[Elsewhere("gpu")]) == "kernel"
    assert runner_of(pool, devices=[*CPU, Elsewhere(process_index=1)]) == "kernel"
    entries = np.random.default_rng(1).random((40, 4)).astype(np.float32)
    for size, used in ((2.0**-90, False), (2.0**-60, True), (2.0**100, True), (2.0**118, False)):
        table = np.random.default_rng(0).random((40, 4)) * size
        other = pool_steps(entries, np.ones((40, 3), bool), metrics={"dollars": table})
        assert (runner_of(other) != "kernel") == used, size  # ends of float32
    with pytest.raises(ValueError, match="one device or several different ones, got \\[\\]"):
        runner_of(pool, devices=[])
    with pytest.raises(ValueError, match="several different ones"):
        runner_of(pool, devices=[CPU[0], CPU[0]])
    for dtype in (np.float16, np.float64):  # thresholds of two or eight bytes
        assert runner_of(pool._replace(threshold=pool.threshold.astype(dtype))) == "kernel"
    monkeypatch.setattr(plain_splits, "_library", lambda *_: None)
    assert runner_of(pool) == "kernel"
    monkeypatch.setattr(plain_splits, "compiler_options", lambda: None)
    monkeypatch.setattr(plain_splits, "_library", lambda *_: library)
    assert runner_of(pool) == "kernel"


def test_threads_are_devices_that_were_named_and_else_cores(monkeypatch):
    monkeypatch.setattr(plain_splits.os, "sched_getaffinity", lambda _: {1, 3, 5}, raising=False)
    assert plain_splits.usual_threads([1, 2], 2) == 2
    assert plain_splits.usual_threads(None, 1) == 3
    assert plain_splits.usual_threads(None, 4) == 4
    monkeypatch.delattr(plain_splits.os, "sched_getaffinity")
    monkeypatch.setattr(plain_splits.os, "cpu_count", lambda: None)
    assert plain_splits.usual_threads(None, 1) == 1


INTEL = frozenset((*plain_splits._AVX2, *plain_splits._AVX512))


@pytest.mark.parametrize(
    ("flags", "vendor", "family", "wide", "fast"),
    [
        (INTEL, "GenuineIntel", 6, True, True),
        (INTEL, "AuthenticAMD", 25, True, True),
        (INTEL - {"avx512_vpopcntdq"}, "GenuineIntel", 6, False, True),
        (frozenset(plain_splits._AVX2), "AuthenticAMD", 23, False, False),
        (frozenset(plain_splits._AVX2), "HygonGenuine", 24, False, False),
        (frozenset(plain_splits._AVX2) - {"bmi2"}, "GenuineIntel", 6, None, None),
        (frozenset(), "", 0, None, None),
    ],
)
def test_what_a_processor_can_do(monkeypatch, flags, vendor, family, wide, fast):
    monkeypatch.delenv("RACER_JAX_CC", raising=False)
    monkeypatch.setattr(plain_splits, "processor", lambda: (flags, vendor, family))
    monkeypatch.setattr(plain_splits.platform, "machine", lambda: "x86_64")
    options = plain_splits.compiler_options()
    if wide is None:
        assert options is None
        assert plain_splits.program_in_use().startswith("none: it is for processors")
        return
    assert (WIDE[0] in options, FAST[0] in options) == (wide, fast)
    monkeypatch.setattr(plain_splits, "_library", lambda *_: object())
    monkeypatch.setattr(plain_splits, "c_compiler", lambda: "/usr/bin/cc")
    form = "AVX-512" if wide else "AVX2"
    assert plain_splits.program_in_use() == f"plain splits by {form}"
    monkeypatch.setattr(plain_splits, "_library", lambda *_: None)
    assert plain_splits.program_in_use() == "none: /usr/bin/cc cannot compile it"
    monkeypatch.setattr(plain_splits, "c_compiler", lambda: None)
    assert plain_splits.program_in_use() == (
        "none: no C compiler (cc, gcc or clang) is on the path"
    )
    monkeypatch.setenv("RACER_JAX_CC", "none")
    assert plain_splits.program_in_use() == "none: RACER_JAX_CC=none"
    monkeypatch.setattr(plain_splits.platform, "machine", lambda: "i686")
    assert plain_splits.compiler_options() is None


class Program:
    """In the place of the C program."""

    def __init__(self, function):
        self.plain_splits = function

    def plain_splits_scratch(self, task):
        return 640


def stub_trials(function):
    pool = example(40)
    design = split_design(pool.order, num_calibration=20)
    parts = plan_parts(pool, design, design.budgets(LEVELS), True)
    return plain_splits.PlainTrials(Program(function), np.zeros(2, np.uint32), parts, 2)


def test_every_trial_is_run_once_in_pieces_of_whole_lanes():
    spans = []

    def function(task, first_trial, first, last, stride, out, scratch, tally):
        assert tally is None
        assert isinstance(first_trial, ctypes.c_uint32)
        assert scratch.value % 64 == out[0] % 64 == 0
        spans.append((first_trial.value, first.value, last.value, stride.value))

    for num in (1, 64, 65, 1000, 20_000):
        spans.clear()
        stub_trials(function).start(7, num).wait()
        assert {span[0] for span in spans} == {7}
        whole = -(-num // 16) * 16
        assert {span[3] for span in spans} == {whole}
        ends = sorted(span[1:3] for span in spans)
        assert ends[0][0] == 0
        assert ends[-1][1] == whole
        assert all(before[1] == after[0] for before, after in pairwise(ends))
        assert all(first % 64 == 0 and last - first <= 4096 for first, last in ends)


def test_what_was_not_begun_does_not_begin_after_an_interrupt():
    begun = []

    def function(*_):
        begun.append(1)
        raise KeyboardInterrupt

    started = stub_trials(function).start(0, 64 * 4096)
    with pytest.raises(KeyboardInterrupt):
        started.wait()
    assert len(begun) <= 2


@pytest.mark.long
def test_a_run_that_nobody_waits_for_harms_nothing():
    program = program_of(HERE or FAST)
    pool = example(500)
    design = split_design(pool.order, num_calibration=250)
    parts = plan_parts(pool, design, design.budgets(LEVELS), False)
    for _ in range(20):  # the arrays stay as long as a thread writes into them
        plain_splits.PlainTrials(program, np.zeros(2, np.uint32), parts, 2).start(0, 5000)
    parts = parts._replace(
        shape=replace(parts.shape, metrics=tuple(x for x in parts.shape.metrics if x.whole))
    )
    num = len(parts.shape.metrics)
    for _ in range(20):
        trials = plain_splits.PlainTrials(program, np.zeros(2, np.uint32), parts, 2)
        low = [np.zeros(len(LEVELS), np.int32) for _ in range(num)]
        trials.start_counts(0, 5000, low, [4000] * num)
        del trials, low
        gc.collect()


def test_a_stream_that_is_left_lets_nothing_more_begin(monkeypatch):
    program_of(HERE or FAST)
    cancelled = []
    cancel = SharedWork.cancel
    monkeypatch.setattr(SharedWork, "cancel", lambda self: cancelled.append(1) or cancel(self))

    def stop(_):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        stream_trials(
            jax.random.key(1),
            example(61),
            num_calibration=29,
            alpha=LEVELS,
            num_trials=5000,
            chunk_size=600,
            progress=stop,
        )
    assert cancelled == [1]


def test_threads_are_as_many_as_memory_has_room_for(monkeypatch):
    trials = stub_trials(lambda *_: None)
    assert trials.num_threads == 2
    for most, num in ((640, 1), (2 * 640 - 1, 1), (2 * 640, 2), (1, 1)):
        monkeypatch.setattr(plain_splits, "_MOST_SCRATCH", most)
        assert stub_trials(lambda *_: None).num_threads == num


AT_THE_END = """
import atexit, sys, threading, time
import jax, numpy as np
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials, stream_trials
rng = np.random.default_rng(0)
pool = pool_steps(rng.random((61, 4)).astype(np.float32), rng.random((61, 3)) < .5)
how = dict(num_calibration=29, alpha=[.1, .5])

def work():
    time.sleep(.3)
    stream_trials(jax.random.key(0), pool, num_trials=2000, chunk_size=100, **how)
    print("done", split_trials(jax.random.key(0), pool, num_trials=2, **how).risk.shape)

if sys.argv[1] == "thread":
    threading.Thread(target=work).start()
else:
    atexit.register(work)
"""


@pytest.mark.long
@pytest.mark.parametrize("way", ["thread", "atexit"])
def test_trials_run_while_the_interpreter_ends(way):
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END, way], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "done (2, 2)\n"), done.stderr


@pytest.mark.long
def test_no_compiler_and_no_warning(monkeypatch):
    pool = example(40)
    run = partial(
        split_trials, jax.random.key(0), pool, num_calibration=20, alpha=0.2, num_trials=2
    )
    expected = run()
    monkeypatch.setenv("RACER_JAX_CC", "none")
    plain_splits._library.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(run(), expected)
    plain_splits._library.cache_clear()
