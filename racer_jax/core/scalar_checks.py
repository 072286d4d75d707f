"""Checks of single numbers: counts, chances of failure, sizes of sets, weights of costs.

Neither JAX nor NumPy is imported here: a command refuses a wrong number before it waits for them.
"""

import sys
from typing import Any

# An order that minds the cost more than this calls by price alone.
MOST_COST_WEIGHT = 4


def numpy_type(name: str) -> Any:
    """A type of NumPy; where nobody has imported it, none, which is the type of nothing.

    Use this when a number may be one of NumPy, and NumPy is needed for nothing else.

    >>> isinstance(1, (int, numpy_type("integer")))
    True
    """
    return getattr(sys.modules.get("numpy"), name, ())


def check_count(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Refuses anything but an integer from `least` to `most`; returns it as a Python integer.

    Use this when a function takes a number of rows, splits or neighbours.
    """
    if isinstance(value, bool) or not isinstance(value, (int, numpy_type("integer"))):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}")
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


def check_min_models(least: int, most: int | None, num_models: int | None = None) -> None:
    """Refuses a least number of models that no set can hold.

    Args:
      least: The least number; 0 for none.
      most: The most models of a set; None for all.
      num_models: How many there are, where that is known.

    Raises:
      TypeError: If it is not an integer.
      ValueError: If it is negative, above the cap, or above the number of models.

    Use this when sets are to hold some models.
    """
    if least == 0:
        return
    check_count("min_models", least)
    known = [bound for bound in (most, num_models) if bound is not None]
    if known and least > (largest := min(known)):
        what = "max_models" if largest == most else "the number of models"
        raise ValueError(f"min_models must be at most {largest}, {what}, got {least}")


def check_cost_weight(name: str, value: float) -> None:
    """Refuses a weight of costs that is no number from 0 to 4.

    Use this when an order of the models may depend on what they cost.
    """
    if not 0 <= value <= MOST_COST_WEIGHT:
        raise ValueError(f"{name} must be in [0, {MOST_COST_WEIGHT}], got {value}")
