"""Checks of single numbers: counts and chances of failure.

Nothing of JAX is imported here, so that modules which do without it can use them too.
"""

from typing import Any

import numpy as np


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Refuses anything but an integer of at least `least`; returns it as a Python integer.

    Use this when a function takes a number of rows, splits or neighbours.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_chance(name: str, value: Any) -> float:
    """Refuses anything but a number in (0, 1), such as a chance of failure.

    Returns it as a float.

    Use this when a function takes a chance of failure or a level.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise TypeError(
            f"{name} must be a number in (0, 1), got {value!r} of type {type(value).__name__}"
        )
    if not 0 < value < 1:
        raise ValueError(f"{name} must be in (0, 1), got {value}")
    return float(value)
