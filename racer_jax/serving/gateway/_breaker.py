"""A breaker: a model that failed several times in a row counts as down until one call succeeds."""

import time
from collections.abc import Callable


class Breaker:
    """Whether a model may be called.

    Args:
      failures: Failures in a row after which it is open: the model counts as down.
      seconds: Time after which one call tries the model again.
      clock: Seconds that only grow.
    """

    def __init__(
        self, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._seconds, self._clock = failures, seconds, clock
        self._in_a_row = 0
        self._next_try: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the model counts as down."""
        return self._next_try is not None

    def may_call(self) -> bool:
        """Whether a call may be made now; True once in a while for a model that is down."""
        if self._next_try is None:
            return True
        now = self._clock()
        if now < self._next_try:
            return False
        self._next_try = now + self._seconds  # others wait for what this call brings
        return True

    @property
    def is_due(self) -> bool:
        """Whether a model that is down shall be tried again."""
        return self._next_try is not None and self._clock() >= self._next_try

    def succeeded(self) -> None:
        """A call brought an answer."""
        self._in_a_row, self._next_try = 0, None

    def failed(self) -> None:
        """A call failed by the model's fault."""
        self._in_a_row += 1
        if self._in_a_row >= self._most:
            self._next_try = self._clock() + self._seconds
