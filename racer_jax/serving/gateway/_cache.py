"""What is kept for a while: answers at temperature 0, and decisions."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from hashlib import blake2b
from typing import Any

_MOST = 1000


class Cache:
    """Values by key, for a while each; the one that was longest not asked for goes first.

    Args:
      most: Values kept at most.
      clock: Seconds that only grow.
    """

    def __init__(self, most: int = _MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._values: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """The value of a key; None where there is none any more."""
        until, value = self._values.get(key, (0.0, None))
        if value is None:
            return None
        if self._clock() >= until:
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: Hashable, seconds: float, value: Any) -> None:
        """Keeps a value for so many seconds."""
        self._values[key] = (self._clock() + seconds, value)
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def clear(self) -> None:
        """Keeps nothing any more."""
        self._values.clear()


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
