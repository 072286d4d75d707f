"""Checks of single numbers: counts and chances of failure.

Neither JAX nor NumPy is imported here: a command refuses a wrong number before it waits for them.
"""

import sys
from typing import Any


def numpy_type(name: str) -> Any:
    """A type of NumPy; where nobody has imported it, none, which is the type of nothing.

    Use this when a number may be one of NumPy, and NumPy is needed for nothing else.

    >>> isinstance(1, (int, numpy_type("integer")))
    True
    """
    return getattr(sys.modules.get("numpy"), name, ())


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Refuses anything but an integer of at least `least`; returns it as a Python integer.

    Use this when a function takes a number of rows, splits or neighbours.
    """
    if isinstance(value, bool) or not isinstance(value, (int, numpy_type("integer"))):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_chance(name: str, value: Any) -> float:
    """Refuses anything but a number in (0, 1), such as a chance of failure.

    Returns it as a float.

    Use this when a function takes a chance of failure or a level.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, numpy_type("number"))):
        raise TypeError(
            f"{name} must be a number in (0, 1), got {value!r} of type {type(value).__name__}"
        )
    if not 0 < value < 1:
        raise ValueError(f"{name} must be in (0, 1), got {value}")
    return float(value)
