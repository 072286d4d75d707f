"""How many misses a promise with high probability allows, and how many queries one takes at least.

Nothing here imports JAX, so a command refuses a level that no calibration of an artefact can have
before it waits for JAX.
"""

from fractions import Fraction
from math import ceil, comb, log, log1p
from typing import Any

import numpy as np

from racer_jax.core.risk_levels import Alpha, Level, exact_alpha, exact_alphas
from racer_jax.core.scalar_checks import check_chance, check_count
from racer_jax.risk_control.bounds import smallest_calibration_size


def check_delta(delta: float) -> float:
    """A chance of failure: a number in (0, 1). Use this when a guarantee has a delta."""
    return check_chance("delta", delta)


def high_probability_budget(alpha: Alpha, n: int, delta: float) -> Any:
    r"""The largest miss budget b with P(Beta(b + 1, n - b) <= alpha) >= 1 - delta.

    Safe for any delta: where rounding leaves a doubt, rationals decide, or the budget is one less.

    Args:
      alpha: Risk level or levels in (0, 1).
      n: Number of calibration queries.
      delta: Chance over the calibration set that the risk exceeds alpha, in (0, 1).

    Returns:
      An int for one alpha, an int64 array `[a]` for several; -1 where no budget will do, (1 -
      alpha)^n > delta.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If alpha or delta is outside (0, 1), or `n` below 1.

    Use this when a risk above alpha must be rare over calibration sets, not only on average.

    >>> high_probability_budget(0.1, 1000, 0.05), high_probability_budget(0.1, 28, 0.05)
    (84, -1)
    """
    n, chance = check_count("n", n), check_delta(delta)
    fractions, scalar = exact_alphas(alpha)
    exact = Fraction(str(delta))
    budgets = np.array([_largest_budget(f, n, chance, exact) for f in fractions], np.int64)
    return int(budgets[0]) if scalar else budgets


def _largest_budget(alpha: Fraction, n: int, delta: float, exact_delta: Fraction) -> int:
    """Bisection: the chance of failure grows with the budget."""
    # `low` will do (at -1 every model is called), above `high` nothing is looked for
    low, high = -1, n - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _is_safe(middle, alpha, n, delta, exact_delta):
            low = middle
        else:
            high = middle - 1
    return low


# Relative error of the incomplete beta function, with a margin.
_BETA_ERROR = 1e-8
# Up to this many queries the exact sum takes milliseconds.
_MOST_EXACT = 2000


def _is_safe(budget: int, alpha: Fraction, n: int, delta: float, exact_delta: Fraction) -> bool:
    """Whether P(Beta(b + 1, n - b) > alpha) <= delta, as decimals: never yes where it is no.

    The upper tail itself is computed, since 1 - delta is 1 for the smallest deltas. It equals
    P(Binomial(n, alpha) <= b), a sum of rationals, which decides where floats cannot; where that
    would take long, the answer is no.
    """
    from scipy.special import betainc  # takes a fifth of a second to import

    above = float(betainc(n - budget, budget + 1, float(1 - alpha)))
    if abs(above - delta) > _BETA_ERROR * delta:
        return above < delta
    if n > _MOST_EXACT:
        return False
    # The sum of C(n, k) p^k (q - p)^(n - k) for alpha = p / q, in integers.
    p, rest = alpha.numerator, alpha.denominator - alpha.numerator
    total = sum(comb(n, k) * p**k * rest ** (n - k) for k in range(budget + 1))
    return bool(total * exact_delta.denominator <= exact_delta.numerator * alpha.denominator**n)


def smallest_size(alpha: Level, delta: float | None = None) -> int:
    """The smallest number of calibration queries with a finite threshold.

    It is ceil(1 / alpha) - 1, and more with a delta.

    Args:
      alpha: Risk level in (0, 1).
      delta: Chance of failure in (0, 1), for a promise with high probability: (1 - alpha)^n <=
        delta is needed.

    Returns:
      The least number of calibration queries.

    Raises:
      TypeError: If an argument is not a number.
      ValueError: If one is outside (0, 1).

    Use this when deciding how many queries to label.

    >>> smallest_size(0.1), smallest_size(0.1, 0.05)
    (9, 29)
    """
    if delta is None:
        return smallest_calibration_size(alpha)
    size = max(1, ceil(log(check_delta(delta)) / log1p(-float(exact_alpha(alpha)))) - 1)
    while high_probability_budget(alpha, size, delta) < 0:  # once or twice: rounding decides
        size += 1
    return size
