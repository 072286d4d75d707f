"""Names of decisions, which carry their time, and the draw of those that are audited."""

import os
import time
from hashlib import blake2b

_PREFIX = "chatcmpl-"
_DIGITS = 32
# Random bytes of names to come: asking the system for those of each name costs as much as the rest.
_BYTES, _AT_ONCE = 10, 256
_random: list[bytes] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.clear)


def _random_bytes() -> bytes:
    """Bytes that nobody can foresee, each used once."""
    if not _random:
        content = os.urandom(_BYTES * _AT_ONCE)
        _random.extend(content[i : i + _BYTES] for i in range(0, len(content), _BYTES))
    return _random.pop()


def new_id() -> str:
    """A new name of a decision: `chatcmpl-` and a UUID of version 7, which begins with the time."""
    value = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(_random_bytes(), "big")
    value &= ~(0xF << 76) & ~(0x3 << 62)
    return f"{_PREFIX}{value | (7 << 76) | (2 << 62):032x}"


def seconds_of(name: str) -> float | None:
    """When a decision was made, in seconds since 1970; None where it is no name of a decision."""
    digits = name.removeprefix(_PREFIX)
    if len(digits) != _DIGITS or not name.startswith(_PREFIX):
        return None
    try:
        return (int(digits, 16) >> 80) / 1000
    except ValueError:
        return None


def draw(key: bytes, name: str, use: str) -> float:
    """A number in [0, 1) that only the holder of the key can foresee; the same for a name and use.

    Args:
      key: The secret key, at most 64 bytes.
      name: Name of the decision.
      use: What is drawn for, at most 16 bytes: draws for different uses are independent.
    """
    return number_of(key, name, use) / 2**64


def number_of(key: bytes, name: str, use: str) -> int:
    """64 bits that stand for a name and use, and that only the holder of the key can compute.

    Args:
      key: The secret key, at most 64 bytes.
      name: The name.
      use: What they are for, at most 16 bytes.
    """
    content = blake2b(name.encode(), key=key, person=use.encode(), digest_size=8).digest()
    return int.from_bytes(content, "little")


def signed(number: int) -> int:
    """A number of 64 bits as databases keep integers, with a sign."""
    return number - (1 << 64) if number >> 63 else number
