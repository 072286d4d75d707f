"""Risk levels as the decimals they are written as, and the whole number of misses each allows."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import floor
from typing import Any, TypeAlias

import jax
import numpy as np

Level: TypeAlias = float | str | Decimal | Fraction
Alpha: TypeAlias = Level | np.ndarray | jax.Array | Sequence[Level]


def exact_alpha(alpha: Level) -> Fraction:
    """The rational the user wrote: `0.29` is 29/100, whatever its binary rounding.

    Args:
      alpha: A risk level in (0, 1); a float is read as the shortest decimal that prints as it.

    Returns:
      The exact fraction.

    Raises:
      TypeError: If `alpha` is not a number or a numeral.
      ValueError: If it is not in (0, 1) or not finite.

    >>> exact_alpha(0.29)
    Fraction(29, 100)
    """
    if isinstance(alpha, bool | np.bool_) or not isinstance(
        alpha, int | float | str | Decimal | Fraction | np.number
    ):
        raise TypeError(
            f"alpha must be a number in (0, 1), got {alpha!r} of type {type(alpha).__name__}"
        )
    try:
        # str() of a NumPy float32 prints the shortest decimal of ITS precision, so np.float32(0.29)
        # is 29/100 too.
        fraction = alpha if isinstance(alpha, Fraction) else Fraction(str(alpha))
    except ValueError:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}") from None
    if not 0 < fraction < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    return fraction


def exact_alphas(alpha: Alpha) -> tuple[list[Fraction], bool]:
    """Each alpha as an exact fraction, and whether a single one was given."""
    if isinstance(alpha, np.ndarray | jax.Array):
        array = np.asarray(alpha)
        if array.ndim > 1:
            raise ValueError(f"alpha must be a scalar or have shape [a], got shape {array.shape}")
        # NumPy scalars: they print in their own precision
        levels, scalar = list(array.reshape(-1)), array.ndim == 0
    elif isinstance(alpha, Sequence) and not isinstance(alpha, str):
        levels, scalar = list(alpha), False
    else:
        levels, scalar = [alpha], True
    if not levels:
        raise ValueError("alpha must hold at least one risk level, got none")
    return [exact_alpha(level) for level in levels], scalar


def check_count(name: str, n: int) -> None:
    """Refuses anything but an integer of at least 1."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {n!r} of type {type(n).__name__}")
    if n < 1:
        raise ValueError(f"{name} must be at least 1, got {n}")


def miss_budget(alpha: Alpha, n: int) -> Any:
    r"""Number of calibration queries the threshold may miss: b = floor(alpha (n + 1)) - 1, exactly.

    Args:
      alpha: One risk level in (0, 1) or several; floats are read as the decimal they print as,
        numerals, `Decimal` and `Fraction` as they are.
      n: Number of calibration queries, at least 1.

    Returns:
      An int for one alpha, an int64 NumPy array `[a]` for several. -1 where no threshold is safe,
      alpha < 1 / (n + 1).

    Raises:
      TypeError: If `alpha` is not numeric or `n` not an integer.
      ValueError: If an alpha is outside (0, 1) or `n` below 1.

    References:
      Eq. 6 of the paper, solved for the number of misses.

    >>> miss_budget(0.29, 99)  # 0.29 * 100 is 28.999999999999996 in floating point
    28
    """
    check_count("n", n)
    fractions, scalar = exact_alphas(alpha)
    budgets = [floor(fraction * (int(n) + 1)) - 1 for fraction in fractions]
    return budgets[0] if scalar else np.asarray(budgets, dtype=np.int64)


def parse_alphas(text: str) -> tuple[str, ...]:
    """`0.05,0.1` or `first:last:step`, as exact decimals.

    >>> parse_alphas("0.1:0.3:0.1")
    ('0.1', '0.2', '0.3')
    """
    try:
        if ":" in text:
            first, last, step = (Decimal(part) for part in text.split(":"))
            if not (step > 0 and first <= last):
                raise ValueError
            levels = [first + i * step for i in range(int((last - first) / step) + 1)]
        else:
            levels = [Decimal(part) for part in text.split(",")]
    except (InvalidOperation, ValueError):
        raise ValueError(f"alphas must be like 0.05,0.1 or 0.01:0.99:0.01, got {text!r}") from None
    names = tuple(f"{level.normalize():f}" for level in levels)
    exact_alphas(names)
    if len(set(names)) < len(names):
        raise ValueError(f"alphas must differ from each other, got {text!r}")
    return names


def level_name(alpha: Level) -> str:
    """A risk level as the decimal (or fraction) that is written down, checked.

    Raises:
      TypeError: If it is not a number or a numeral.
      ValueError: If it is not in (0, 1).
    """
    exact_alpha(alpha)
    return str(alpha)
