"""Interleaved timing, shared by all benchmarks: compile time apart, CPU time beside wall time."""

import statistics
import time
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

import jax
from harness import turns


class Timing(NamedTuple):
    """Seconds of one variant.

    Attributes:
      first: Wall time of the first call: compilation, if any, and the run.
      wall: Median wall time of the later ones.
      cpu: Median CPU time of the process, over all threads.
      best: Smallest wall time: what an undisturbed machine does.
    """

    first: float
    wall: float
    cpu: float
    best: float

    def times(self, factor: float) -> "Timing":
        """Extrapolated."""
        return Timing(*(value * factor for value in self))


def interleaved(variants: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Times variants in turn, so that what disturbs the machine disturbs them all alike."""
    first = {}
    wall: dict[str, list[float]] = {name: [] for name in variants}
    cpu: dict[str, list[float]] = {name: [] for name in variants}
    for turn, (name, run) in turns([*product(range(rounds + 1), variants.items())], "call"):
        start, start_cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        passed, busy = time.perf_counter() - start, time.process_time() - start_cpu
        if turn == 0:
            first[name] = passed
        else:
            wall[name].append(passed)
            cpu[name].append(busy)
    median = statistics.median
    return {
        name: Timing(first[name], median(wall[name]), median(cpu[name]), min(wall[name]))
        for name in variants
    }
