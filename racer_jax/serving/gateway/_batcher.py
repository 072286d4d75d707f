"""Decisions in batches without a timer: who waits while a batch runs forms the next one.

A lone request is decided at once; under load batches grow by themselves, up to the largest shape
that was compiled beforehand. A batch starts at the end of the first turn of the event loop that
brings no further request: those whose bytes come together are decided together, a busy loop decides
many with the work of a few, and none of them waits for anything but work that is there to be done.

A thread decides, so that a slow encoder holds up nothing else. Where the latest batches of about
the same size took less than handing one to a thread and back may take, it is decided in the loop
itself; of five the second quickest counts, since on a busy machine most may be held up, and those
in a thread first of all. Other threads load artefacts and compile what they need, which takes
seconds in which decisions go on.

A racer decides the same on the same text, so the latest decisions are kept: a request that comes
again, after an error say, is not decided again.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from math import inf
from typing import TypeVar

import numpy as np

from racer_jax.racer.decision import Decision
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._cache import Cache

LARGEST = 64
_MOST_KEPT = 4096
# Seconds of the latest batches up to which one is decided in the loop, and how many of them count.
_QUICK, _LATEST = 0.002, 5
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Routed:
    """A decision with what the monitors need of it.

    Attributes:
      decision: The decision.
      null_in_set: Whether the null model is in the set.
      nonconformity: E(x, m), float32 `[m + 1]`, null model last.
    """

    decision: Decision
    null_in_set: bool
    nonconformity: np.ndarray


@dataclass(slots=True)
class _Waiting:
    racer: Racer
    text: str
    group: str | None
    future: "asyncio.Future[Routed]"


_Timed = tuple[float, list[Routed | Exception]]


class Batcher:
    """Decides for requests, in one thread.

    Args:
      largest: Decisions of one batch at most.
      on_batch: Called with the size of each batch.
    """

    def __init__(
        self, largest: int = LARGEST, on_batch: Callable[[int], None] | None = None
    ) -> None:
        self._largest, self._on_batch = largest, on_batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="racer-decides")
        # Two: the threshold of a live pool does not wait until an artefact is loaded.
        self._loader = ThreadPoolExecutor(2, thread_name_prefix="racer-loads")
        self._waiting: list[_Waiting] = []
        self._busy = False
        # Of the latest batches, by the shape that was compiled for them: a power of two.
        self._seconds: defaultdict[int, deque[float]] = defaultdict(_unknown)
        # With the racer itself, so that no other one can get its number while it is kept here.
        self._known = Cache(_MOST_KEPT)

    @property
    def depth(self) -> int:
        """Requests that wait for a decision."""
        return len(self._waiting)

    async def decide(self, racer: Racer, text: str, group: str | None) -> Routed:
        """The decision of a racer on a text.

        Raises:
          ValueError: If the text cannot be routed.
        """
        key = (id(racer), group, blake2b(text.encode("utf-8", "surrogatepass")).digest())
        known = self._known.get(key)
        if known is not None:
            earlier: Routed = known[1]
            return earlier
        future: asyncio.Future[Routed] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(racer, text, group, future))
        if not self._busy:
            self._start_soon()
        routed = await future
        self._known.put(key, inf, (racer, routed))
        return routed

    def forget(self) -> None:
        """Lets go of the decisions that are kept, and with them of racers out of use."""
        self._known.clear()

    async def run(self, function: Callable[[], T]) -> T:
        """Runs a function that takes long, in a thread beside the one that decides."""
        return await asyncio.get_running_loop().run_in_executor(self._loader, function)

    def close(self) -> None:
        """Ends the threads once what they do is done; nothing is decided any more."""
        self._seconds.clear()
        for thread in (self._thread, self._loader):
            thread.shutdown(wait=True, cancel_futures=True)

    def _start_soon(self) -> None:
        """Starts a batch once all that this turn of the loop brings has been read."""
        self._busy = True
        asyncio.get_running_loop().call_soon(self._start, len(self._waiting))

    def _start(self, num_before: int) -> None:
        """Decides for those who wait and ask the same racer as the first, if no more have come."""
        if num_before < len(self._waiting) < self._largest:
            self._start_soon()
            return
        racer = self._waiting[0].racer
        if len(self._waiting) == 1:  # as most are
            batch, self._waiting = self._waiting, []
        else:
            batch = [one for one in self._waiting if one.racer is racer][: self._largest]
            chosen = set(map(id, batch))
            self._waiting = [one for one in self._waiting if id(one) not in chosen]
        if self._on_batch is not None:
            self._on_batch(len(batch))
        loop = asyncio.get_running_loop()
        if sorted(self._seconds[_shape(batch)])[1] < _QUICK:
            self._finish(batch, _at_once(loop, racer, batch))
            return
        try:
            running = loop.run_in_executor(self._thread, _timed, racer, batch)
        except RuntimeError as error:  # closed: who still waits must hear of it
            running = loop.create_future()
            running.set_exception(error)
        running.add_done_callback(lambda done: self._finish(batch, done))

    def _finish(self, batch: list[_Waiting], done: "asyncio.Future[_Timed]") -> None:
        """Hands out the decisions and starts the next batch."""
        self._busy = False
        if self._waiting:
            self._start_soon()
        failure = asyncio.CancelledError() if done.cancelled() else done.exception()
        results: list[Routed | Exception] = []
        if failure is None:
            seconds, results = done.result()
            self._seconds[_shape(batch)].append(seconds)
        for i, one in enumerate(batch):
            if one.future.done():  # whoever waited for it has gone
                continue
            result = failure if failure is not None else results[i]
            if isinstance(result, BaseException):
                one.future.set_exception(result)
            else:
                one.future.set_result(result)


def _unknown() -> deque[float]:
    """The seconds of batches that have not been measured: never quick."""
    return deque([inf] * _LATEST, _LATEST)


def _shape(batch: list[_Waiting]) -> int:
    """The power of two that a batch is padded to."""
    return 1 << (len(batch) - 1).bit_length()


def _at_once(
    loop: asyncio.AbstractEventLoop, racer: Racer, batch: list[_Waiting]
) -> "asyncio.Future[_Timed]":
    """The decisions of a batch, taken here, as those of a thread come back."""
    done: asyncio.Future[_Timed] = loop.create_future()
    try:
        done.set_result(_timed(racer, batch))
    except Exception as error:
        done.set_exception(error)
    return done


def _timed(racer: Racer, batch: list[_Waiting]) -> _Timed:
    """The seconds that a batch took, and its decisions."""
    began = time.perf_counter()
    results = _routed(racer, batch)
    return time.perf_counter() - began, results


def _routed(racer: Racer, batch: list[_Waiting]) -> list["Routed | Exception"]:
    """The decisions of a batch; where it cannot be decided, each text is tried alone."""
    groups = [one.group for one in batch]
    try:
        decisions = racer.route([one.text for one in batch], None if not any(groups) else groups)
    except ValueError as error:
        if len(batch) == 1:
            return [error]
        return [result for one in batch for result in _routed(racer, [one])]
    return [
        Routed(decisions[i], bool(decisions.sets[i, -1]), decisions.nonconformity[i])
        for i in range(len(batch))
    ]
