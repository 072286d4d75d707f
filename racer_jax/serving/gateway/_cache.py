"""What is kept for a while: answers at temperature 0, and decisions."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from hashlib import blake2b
from typing import Any

_MOST = 1000
_MOST_BYTES = 64 << 20


class Cache:
    """Values by key, for a while each; the one that was longest not asked for goes first.

    Args:
      most: Values kept at most.
      clock: Seconds that only grow.
      most_bytes: Bytes of all values at most, as far as they are said.
    """

    def __init__(
        self,
        most: int = _MOST,
        clock: Callable[[], float] = time.monotonic,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._most, self._clock, self._most_bytes = most, clock, most_bytes
        self._values: OrderedDict[Hashable, tuple[float, Any, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Any:
        """The value of a key; None where there is none any more."""
        until, value, _ = self._values.get(key, (0.0, None, 0))
        if value is None:
            return None
        if self._clock() >= until:
            self._drop(key)
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: Hashable, seconds: float, value: Any, size: int = 0) -> None:
        """Keeps a value of so many bytes for so many seconds."""
        self._drop(key)
        self._values[key] = (self._clock() + seconds, value, size)
        self._bytes += size
        while len(self._values) > self._most or self._bytes > self._most_bytes:
            self._drop(next(iter(self._values)))

    def clear(self) -> None:
        """Keeps nothing any more."""
        self._values.clear()
        self._bytes = 0

    def _drop(self, key: Hashable) -> None:
        """Keeps the value of a key no longer, if there is one."""
        self._bytes -= self._values.pop(key, (0.0, None, 0))[2]


def key_of(fields: Mapping[str, Any], *about: str) -> bytes:
    """A key of a request: its fields in the order of their names, and what else decides the answer.

    Args:
      fields: The fields, as bytes of JSON.
      about: Route, artefact, client, models and the like.
    """
    content = blake2b(digest_size=32)
    for part in (*about, "", *(part for name in sorted(fields) for part in (name, fields[name]))):
        encoded = part.encode() if isinstance(part, str) else bytes(part)
        content.update(len(encoded).to_bytes(8, "little") + encoded)
    return content.digest()
