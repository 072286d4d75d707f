"""Requests of a key a minute: a bucket that fills again at a steady rate."""

import time
from collections.abc import Callable, Mapping

from racer_jax.serving.gateway._errors import GatewayError
from racer_jax.serving.gateway.settings import Key


class Limits:
    """The limits of all keys, of this process.

    Args:
      keys: Key by name; one without `per_minute` has no limit.
      clock: Seconds that only grow.
    """

    def __init__(
        self, keys: Mapping[str, Key], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._most = {n: key.per_minute for n, key in keys.items() if key.per_minute is not None}
        now = clock()
        # What is left of each bucket, and when that was counted.
        self._left = {name: (float(most), now) for name, most in self._most.items()}

    def take(self, name: str) -> None:
        """Counts a request of a key.

        Raises:
          GatewayError: If the key has used up its requests.
        """
        most = self._most.get(name)
        if most is None:
            return
        left, before = self._left[name]
        now = self._clock()
        left = min(float(most), left + (now - before) * most / 60)
        if left < 1:
            self._left[name] = (left, now)
            raise GatewayError(
                429,
                "rate_limit_error",
                f"this key may send {most} requests a minute",
                code="rate_limit_exceeded",
                headers={"retry-after": str(int((1 - left) * 60 / most) + 1)},
            )
        self._left[name] = (left - 1, now)
