"""A second call of the same model elsewhere, where the first takes longer than nearly all do."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from racer_jax.serving.gateway._tasks import started

_QUANTILE = 0.95
_MOST_SHARE = 0.05
# Calls that are remembered, those before the first second call, and those between two counts.
_REMEMBERED, _FEWEST, _BETWEEN = 200, 20, 10


class Hedge:
    """When a second call is made, and how many: after the 95% quantile, of at most 5% of calls."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._quantile: float | None = None
        self.num = self.num_second = 0

    def note(self, seconds: float) -> None:
        """Remembers how long a call took."""
        self._seconds.append(seconds)
        self.num += 1
        if self.num >= _FEWEST and (self._quantile is None or self.num % _BETWEEN == 0):
            ordered = sorted(self._seconds)
            self._quantile = ordered[int(_QUANTILE * (len(ordered) - 1))]

    @property
    def seconds(self) -> float | None:
        """Seconds to wait before a second call; None where none is to be made."""
        spent = self.num_second + 1 > _MOST_SHARE * (self.num + 1)
        return None if spent else self._quantile

    async def first_of(
        self,
        first: Callable[[], Coroutine[Any, Any, Any]],
        second: Callable[[], Coroutine[Any, Any, Any]],
    ) -> Any:
        """The result of the first call, or of the second where that is sooner.

        A first call that fails before the second is due fails at once: tries are counted elsewhere.
        """
        loop = asyncio.get_running_loop()
        began, wait = loop.time(), self.seconds
        if wait is None:
            result = await first()
            self.note(loop.time() - began)
            return result
        tasks = [started(first())]
        try:
            done, _ = await asyncio.wait(tasks, timeout=wait)
            if not done:
                self.num_second += 1
                tasks.append(started(second()))
            result = await _sooner(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self.note(loop.time() - began)
        return result


async def _sooner(tasks: "list[asyncio.Task[Any]]") -> Any:
    """The first result; the error of the first call where every call fails."""
    left = set(tasks)
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task in done and task.exception() is None:
                return task.result()
    return tasks[0].result()
