"""Plain splits on processors with AVX-512 or AVX2, by the C program `plain_splits.c`.

It takes less than half of the processor time of `kernel.tile_values` and gives the same numbers,
bit for bit. A split is plain where each query is a unit of its own and there are no groups and no
validation part. Other splits, other devices and machines without a C compiler run the kernel.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Sequence
from functools import cache, reduce
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import jax
import numpy as np

from racer_jax._c_code import VARIABLE, c_compiler, c_library, processor
from racer_jax._programs import program_folder
from racer_jax.montecarlo.plan import Metric, PlanParts
from racer_jax.montecarlo.shared_work import SharedWork, Started
from racer_jax.montecarlo.split_design import Design
from racer_jax.montecarlo.subsets import HALF_WORDS

_SOURCE = Path(__file__).with_name("plain_splits.c")
_LANES = 64  # trials that go side by side
# Pieces that each thread gets of a call, so that none waits long for another that was held up; and
# the most lanes of one, since nothing stops it once it has begun.
_PIECES = 4
_LONGEST = 64 * _LANES
# Rows of results are multiples of so many numbers, those of the widest vector.
_ROUND = 16
# Bytes that all threads of a call work in at most, where more than one does.
_MOST_SCRATCH = 1 << 31
_SMALLEST, _LARGEST = 2.0**-100, 2.0**120
# What the fastest form needs, and the next, in the words of Linux; with the compiler's options.
_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vpopcntdq")
_AVX2 = ("avx2", "bmi1", "bmi2", "popcnt")
_ALSO = ("-mavx2", "-mbmi", "-mbmi2", "-mpopcnt")
_WIDE = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vpopcntdq")


class _Metric(ctypes.Structure):
    """`metric` of plain_splits.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("misses", "whole", "first", "num", "start")),
        ("real_start", ctypes.c_float),
    )


class _Task(ctypes.Structure):
    """`task` of plain_splits.c."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("digit", "rank", "floor", "last", "guess", "query", "begin", "entry"),
                *("metric", "plane", "weight", "real_weight"),
            )
        ),
        ("threshold", ctypes.c_void_p * 2),
        ("key", ctypes.c_uint32 * 2),
        *(
            (name, ctypes.c_int32)
            for name in (
                *("size", "num", "digits", "shift", "halves", "alphas", "width"),
                *("planes", "metrics", "thresholds", "means"),
            )
        ),
    )


def compiler_options() -> tuple[str, ...] | None:
    """Options of the C compiler for this processor; None where the program cannot run.

    Use this when you want to know which form a machine runs.
    """
    flags, vendor, family = processor()
    if not flags.issuperset(_AVX2) or platform.machine() != "x86_64" or sys.maxsize < 1 << 32:
        return None
    # On AMD's processors before Zen 3, and those made after them, it takes some hundred cycles.
    fast = vendor == "GenuineIntel" or (vendor == "AuthenticAMD" and family >= 25)
    wide = (*_WIDE, "-mprefer-vector-width=512") if flags.issuperset(_AVX512) else ()
    return (*_ALSO, *wide, *(["-DFAST_PDEP"] if fast else []))


def program_in_use() -> str:
    """What runs plain splits on the CPU of this machine, in words.

    Use this when you report what a machine does.
    """
    options = compiler_options()
    if options is None:
        return "none: it is for processors with AVX-512 or AVX2 under Linux"
    if c_compiler() is None:
        request = os.environ.get(VARIABLE, "")
        if request == "none":
            return f"none: {VARIABLE}={request}"
        return f"none: no C compiler ({request or 'cc, gcc or clang'}) is on the path"
    if _library(options, program_folder()) is None:
        return f"none: {c_compiler()} cannot compile it"
    return f"plain splits by {'AVX-512' if _WIDE[0] in options else 'AVX2'}"


def compiled_program(
    source: Path, options: Sequence[str], folder: Path | None
) -> ctypes.CDLL | None:
    """A program with the functions of plain_splits.c; None where it cannot be made.

    Use this when another form of it is measured beside it.

    Args:
      source: The file.
      options: From `compiler_options`.
      folder: As of `c_library`.
    """
    program = c_library(source, options, ("plain_splits", "plain_splits_scratch"), folder)
    if program is not None:
        program.plain_splits.restype = None
        program.plain_splits_scratch.restype = ctypes.c_int64
    return program


@cache
def _library(options: tuple[str, ...], folder: Path | None) -> ctypes.CDLL | None:
    """The program of the package, made or read once in a process."""
    return compiled_program(_SOURCE, options, folder)


def _is_moderate(metric: Metric, num: int) -> bool:
    """Whether sums of a metric over `num` queries stay far from the ends of float32.

    XLA takes subnormal floats for zero, and whether infinity less infinity is met depends on the
    order of a sum.
    """
    factors = np.abs((*metric.base, *metric.weights))
    lowest, highest = factors.min(where=factors > 0, initial=1), factors.sum() * num
    return metric.whole or bool(lowest >= _SMALLEST and highest <= _LARGEST)


class _Tally(ctypes.Structure):
    """`tally` of plain_splits.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("low", "spread", "times")),
        ("outside", ctypes.c_int64),
    )


def _addresses(arrays: Sequence[np.ndarray]) -> Any:
    """Where each array is, for C; whoever holds it must hold the arrays too."""
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def _aligned(num: int) -> np.ndarray:
    """Room for so many numbers, uint32 `[num]`, that begins where a vector may."""
    memory = np.empty(num + _LANES, np.uint32)
    begin = -memory.ctypes.data % (4 * _LANES) // 4
    return memory[begin : begin + num]


def plain_program(
    design: Design, parts: PlanParts, devices: Sequence[jax.Device]
) -> ctypes.CDLL | None:
    """The program, where it can run these trials on these devices; else None.

    Use this when trials are to run by the quickest way there is.
    """
    here = all(d.platform == "cpu" and d.process_index == jax.process_index() for d in devices)
    if not (here and design.plain and not design.validates):
        return None
    thresholds = jax.tree.leaves(parts.threshold)
    four = all(np.asarray(leaf).dtype.itemsize == 4 for leaf in thresholds)
    moderate = all(_is_moderate(metric, parts.num_queries) for metric in parts.shape.metrics)
    options = compiler_options()
    if not four or options is None or not moderate:
        return None
    return _library(options, program_folder())


class PlainTrials:
    """The trials of one pool that is split plainly, run by the program.

    Use this when `plain_program` returned one.

    Args:
      program: From `plain_program`.
      key: Two uint32 words `[2]`, from `key_words`.
      parts: From `plan_parts`.
      num_threads: Threads that share the trials; the results do not depend on them.
    """

    def __init__(
        self, program: ctypes.CDLL, key: np.ndarray, parts: PlanParts, num_threads: int
    ) -> None:
        self._function, self._parts = program.plain_splits, parts
        self._kept: list[Any] = []  # what the task points to
        self._thresholds, self._tree = jax.tree.flatten(parts.threshold)
        self._task = self._made(key)
        self._size = int(program.plain_splits_scratch(ctypes.byref(self._task)))
        self.num_threads = max(1, min(num_threads, _MOST_SCRATCH // self._size))
        # Kept from call to call: what is given back and taken anew comes page by page.
        self._scratch: SimpleQueue[np.ndarray] = SimpleQueue()

    def _pointer(self, array: Any, dtype: Any) -> int:
        self._kept.append(np.ascontiguousarray(array, dtype))
        return int(self._kept[-1].ctypes.data)

    def _made(self, key: np.ndarray) -> _Task:
        draw, ranks = self._parts.draw.calibration, self._parts.ranks
        shape, counted = self._parts.shape, self._parts.counted
        pointer, task = self._pointer, _Task()
        task.digit = pointer(draw.digit[:, 0], np.uint8)
        for name in ("rank", "floor", "last"):
            setattr(task, name, pointer(getattr(ranks, name)[:, 0], np.int32))
        task.guess = pointer(ranks.guess, np.int32)
        task.query = pointer(counted.query, np.int32)
        task.begin = pointer([*counted.begin, len(counted.query)], np.int32)
        task.entry = pointer(counted.entry, np.int32)
        num_test = self._parts.num_queries - int(draw.num[0])
        metrics = (_Metric * len(shape.metrics))()
        planes: list[int] = []
        weights: list[float] = []
        whole: list[int] = []
        for one, metric in zip(metrics, shape.metrics, strict=True):
            one.misses = metric.name == "risk" and shape.distinct
            one.whole, one.first, one.num = bool(metric.whole), len(planes), len(metric.planes)
            # Each product is exact in float32, and their sum is rounded as the kernel rounds it.
            with np.errstate(over="ignore"):
                starts = [np.float32(num_test) * np.float32(base) for base in metric.base]
                one.real_start = reduce(np.add, starts)
            one.start = num_test * int(metric.base[0]) if metric.whole else 0
            planes += metric.planes
            weights += metric.weights
            whole += [int(weight) if metric.whole else 0 for weight in metric.weights]
        self._kept.append(metrics)
        task.metric = ctypes.addressof(metrics)
        task.plane = pointer(planes, np.int32)
        task.weight = pointer(whole, np.int32)
        task.real_weight = pointer(weights, np.float32)
        task.key[:] = [int(word) for word in key]
        task.size, task.num = self._parts.num_queries, int(draw.num[0])
        task.digits, task.shift = len(draw.digit), int(draw.shift[0])
        task.halves = len(draw.valid) <= HALF_WORDS
        task.alphas, task.width = len(ranks.rank), shape.width
        task.planes, task.metrics, task.means = len(counted.begin), len(metrics), shape.means
        if shape.means:
            task.thresholds = len(self._thresholds)
            for i, leaf in enumerate(self._thresholds):
                task.threshold[i] = pointer(leaf, np.asarray(leaf).dtype)
        return task

    def start(self, first: int, num: int) -> Started:
        """Starts some trials.

        Use this when the next trials run while the last are read.

        Args:
          first: Number of the first trial.
          num: How many.

        Returns:
          What waits for what `KernelTrials.chunk` returns, of exactly `num` trials, and means in
          the place of totals where they are asked for; host arrays `[a, s]`.
        """
        shape = self._parts.shape
        types = [np.asarray(leaf).dtype for leaf in self._thresholds[: self._task.thresholds]]
        types += [
            np.dtype(np.int32 if metric.whole and not shape.means else np.float32)
            for metric in shape.metrics
        ]
        # One array for all: to the system a large one is a few large pages, which take less time.
        # Each row of it begins where a vector may.
        stride, num_rows = -(-num // _ROUND) * _ROUND, len(types) * self._task.alphas
        rows = _aligned(stride * num_rows).reshape(len(types), -1, stride)
        arrays = [row.view(dtype) for row, dtype in zip(rows, types, strict=True)]

        def run(begin: int, end: int) -> None:
            # Of the arrays themselves: so they stay as long as a thread writes, whoever waits.
            self._call(first, begin, end, stride, _addresses(arrays), None)

        work = self._shared(stride, run)

        def result() -> dict[str, Any]:
            work.wait()
            exact = num == stride
            return self._named(arrays if exact else [array[:, :num].copy() for array in arrays])

        return Started(result, work.cancel)

    @property
    def all_whole(self) -> bool:
        """Whether `start_counts` can count. Use this before it is called."""
        return all(metric.whole for metric in self._parts.shape.metrics)

    def start_counts(
        self, first: int, num: int, low: Sequence[np.ndarray], spread: Sequence[int]
    ) -> Started:
        """Starts some trials of which only the distribution of each metric's totals is wanted.

        Use this when there are more trials than anyone looks at, and all totals are whole.

        Args:
          first: Number of the first trial.
          num: How many, below 2**31.
          low: The least total of each metric that is counted, int32 `[a]`.
          spread: How many values from it on, of each metric.

        Returns:
          What waits for how often each of these totals stands among the trials, int32
          `[a, spread]` of each metric; for None where a total was another.
        """
        lows = np.ascontiguousarray(low, np.int32)
        spreads = np.ascontiguousarray(spread, np.int32)
        free: SimpleQueue[tuple[_Tally, list[np.ndarray]]] = SimpleQueue()
        tallies: list[tuple[_Tally, list[np.ndarray]]] = []

        def run(begin: int, end: int) -> None:
            try:
                one = free.get_nowait()
            except Empty:
                widths = zip(lows, spread, strict=True)
                one = _Tally(), [np.zeros((len(row), width), np.int32) for row, width in widths]
                tallies.append(one)
            # Of arrays that this function holds, as above.
            tally, tables = one
            times = _addresses(tables)
            tally.low, tally.spread = lows.ctypes.data, spreads.ctypes.data
            tally.times = ctypes.addressof(times)
            try:
                self._call(first, begin, end, num, None, tally)
            finally:
                free.put(one)

        work = self._shared(num, run)

        def counts() -> list[np.ndarray] | None:
            work.wait()
            if any(tally.outside for tally, _ in tallies):
                return None
            by_metric = zip(*(tables for _, tables in tallies), strict=True)
            return [np.asarray(np.sum(tables, axis=0, dtype=np.int32)) for tables in by_metric]

        return Started(counts, work.cancel)

    def _call(
        self, first: int, begin: int, end: int, stride: int, out: Any, tally: "_Tally | None"
    ) -> None:
        """Trials `begin` to `end` after the first, in this thread."""
        spans = map(ctypes.c_int64, (begin, end, stride))
        try:
            scratch = self._scratch.get_nowait()
        except Empty:
            scratch = _aligned(self._size // 4)
        try:
            self._function(
                ctypes.byref(self._task),
                ctypes.c_uint32(first),
                *spans,
                out,
                ctypes.c_void_p(scratch.ctypes.data),
                None if tally is None else ctypes.byref(tally),
            )
        finally:
            self._scratch.put(scratch)

    def _shared(self, num: int, run: Callable[[int, int], None]) -> SharedWork:
        """`run` of pieces of `num` trials by all threads."""
        piece = min(-(-num // (self.num_threads * _PIECES * _LANES)) * _LANES, _LONGEST)
        return SharedWork(num, piece, self.num_threads, run)

    def _named(self, arrays: list[np.ndarray]) -> dict[str, Any]:
        shape, num = self._parts.shape, self._task.thresholds
        named = zip(shape.metrics, arrays[num:], strict=True)
        result: dict[str, Any] = {"test": {metric.name: array for metric, array in named}}
        if shape.means:
            result["threshold"] = jax.tree.unflatten(self._tree, arrays[:num])
        else:
            test = self._task.size - self._task.num
            result["test"]["rows"] = np.full((1, arrays[0].shape[1]), test, np.int32)
        return result


def usual_threads(devices: Sequence[jax.Device] | None, num_devices: int) -> int:
    """How many threads share trials: a device that was named is one, and otherwise a core is.

    A single CPU device of JAX has threads on all cores, too.

    Use this when trials run on the devices of a CPU.

    Args:
      devices: The devices that the caller named, if any.
      num_devices: How many there are.
    """
    if devices is not None:
        return num_devices
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(num_devices, cores)
