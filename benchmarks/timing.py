"""Interleaved timing, shared by the benchmarks of encoders and routers."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple


class Timing(NamedTuple):
    """Seconds of one variant.

    Attributes:
      first: The first call, compilation included.
      warm: Median of the rounds after it.
      rounds: Each of them.
    """

    first: float
    warm: float
    rounds: list[float]


def interleaved(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Times variants in turn, so that what else the machine does falls on all of them.

    Args:
      variants: Name -> function that returns when its work is done.
      rounds: How often each runs after its first call.
    """

    def seconds(function: Callable[[], object]) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    first = {name: seconds(function) for name, function in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, function in variants.items():
            times[name].append(seconds(function))
    return {name: Timing(first[name], median(times[name]), times[name]) for name in variants}
