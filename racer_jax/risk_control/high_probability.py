r"""Calibration with high probability: risk at most alpha on all but a share delta of the calibration sets.

Given the calibration set, the risk of the threshold with miss budget b follows Beta(b + 1, n - b).
Its quantile is exact, so the budget is the largest that can be promised.
"""

from math import floor, log, sqrt
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from scipy.special import betainc

from racer_jax.core.calibration import threshold_at_budget
from racer_jax.core.nonconformity import TieBroken, value_and_tie
from racer_jax.core.risk_levels import Alpha, exact_alphas
from racer_jax.core.scalar_checks import check_chance, check_count


def check_delta(delta: float) -> float:
    """A chance of failure: a number in (0, 1)."""
    return check_chance("delta", delta)


def high_probability_budget(alpha: Alpha, n: int, delta: float) -> Any:
    r"""The largest miss budget b with P(Beta(b + 1, n - b) <= alpha) >= 1 - delta.

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

    >>> high_probability_budget(0.1, 1000, 0.05), high_probability_budget(0.1, 28, 0.05)
    (84, -1)
    """
    check_count("n", n)
    delta = check_delta(delta)
    fractions, scalar = exact_alphas(alpha)
    budgets = np.array([_largest_budget(float(f), int(n), delta) for f in fractions], np.int64)
    return int(budgets[0]) if scalar else budgets


def _largest_budget(alpha: float, n: int, delta: float) -> int:
    """Bisection: the probability falls as the budget grows."""
    # `low` will do (at -1 every model is called), above `high` nothing is looked for
    low, high = -1, n - 1
    while low < high:
        middle = (low + high + 1) // 2
        if betainc(middle + 1, n - middle, alpha) >= 1 - delta:
            low = middle
        else:
            high = middle - 1
    return low


def calibrate_with_probability(
    critical_scores: ArrayLike | TieBroken, alpha: Alpha, delta: float
) -> jax.Array | TieBroken:
    r"""Threshold whose risk is at most alpha with probability at least 1 - delta over the calibration set.

    `calibrate` bounds the risk on average over calibration sets; on half of them it is above alpha,
    by some sqrt(alpha (1 - alpha) / n). This bounds it on all but a share delta of them, at the
    price of larger sets. Assumes independent calibration queries from the law of the queries to
    come.

    Args:
      critical_scores: c(x) of the calibration queries, floating, `[..., n]`, or a `TieBroken` pair.
      alpha: Risk level or levels in (0, 1).
      delta: Chance of failure, in (0, 1).

    Returns:
      The threshold `[...]` or `[..., a]`, as of `calibrate`; +inf where no budget will do.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If there is no query, scores are NaN, or alpha or delta is outside (0, 1).
    """
    value, tie = value_and_tie("critical_scores", critical_scores)
    budget = high_probability_budget(alpha, value.shape[-1], delta)
    threshold: jax.Array | TieBroken = threshold_at_budget(value, budget, tie_break=tie)
    return threshold


def uniform_budget(alpha: Alpha, n: int, delta: float) -> Any:
    r"""Miss budgets that hold for every alpha at once: b = floor(n (alpha - sqrt(log(1 / delta) / (2 n)))).

    By the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant, with probability 1
    - delta over the calibration set the risk of EVERY threshold is below its miss rate plus
      sqrt(log(1 / delta) / (2 n)). So alpha may
    be chosen after looking at all of them.

    Args:
      alpha: Risk level or levels in (0, 1).
      n: Number of calibration queries.
      delta: Chance of failure, in (0, .5].

    Returns:
      An int for one alpha, an int64 array `[a]` for several; -1 where no threshold is safe.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If alpha is outside (0, 1), delta outside (0, .5], or `n` below 1.

    References:
      Massart, "The Tight Constant in the Dvoretzky-Kiefer-Wolfowitz Inequality", 1990.
    """
    check_count("n", n)
    if check_delta(delta) > 0.5:
        raise ValueError(f"delta must be in (0, .5] for the one-sided inequality, got {delta}")
    fractions, scalar = exact_alphas(alpha)
    slack = sqrt(log(1 / delta) / (2 * n))
    budgets = np.array([max(-1, floor(n * (float(f) - slack))) for f in fractions], np.int64)
    return int(budgets[0]) if scalar else budgets


def calibrate_uniform(
    critical_scores: ArrayLike | TieBroken, alpha: Alpha, delta: float
) -> jax.Array | TieBroken:
    """Thresholds of which any may be chosen after looking: all keep risk <= alpha with probability 1 - delta.

    Args:
      critical_scores: c(x) of the calibration queries, floating, `[..., n]`, or a `TieBroken` pair.
      alpha: Risk level or levels in (0, 1).
      delta: Chance of failure, in (0, .5].

    Returns:
      The threshold `[...]` or `[..., a]`, as of `calibrate`; +inf where no threshold is safe.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If there is no query, scores are NaN, or alpha or delta is out of range.
    """
    value, tie = value_and_tie("critical_scores", critical_scores)
    budget = uniform_budget(alpha, value.shape[-1], delta)
    threshold: jax.Array | TieBroken = threshold_at_budget(value, budget, tie_break=tie)
    return threshold
