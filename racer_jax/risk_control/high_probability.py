r"""Calibration with high probability.

Risk at most alpha with confidence 1 - delta over calibration sets.

Given the calibration set, the risk of the threshold with miss budget b follows Beta(b + 1, n - b).
Its quantile is exact, so the budget is the largest that can be promised.
"""

from math import floor, log, sqrt
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.calibration import threshold_at_budget
from racer_jax.core.nonconformity import TieBroken, value_and_tie
from racer_jax.core.risk_levels import Alpha, exact_alphas
from racer_jax.core.scalar_checks import check_count
from racer_jax.risk_control.high_probability_budgets import check_delta as check_delta
from racer_jax.risk_control.high_probability_budgets import (
    high_probability_budget as high_probability_budget,
)


def calibrate_with_probability(
    critical_scores: ArrayLike | TieBroken, alpha: Alpha, delta: float
) -> jax.Array | TieBroken:
    r"""Threshold whose risk is at most alpha with probability at least 1 - delta.

    `calibrate` bounds the risk on average over calibration sets; on up to half of them it is above
    alpha, by some sqrt(alpha (1 - alpha) / n). This bounds it with confidence 1 - delta, and sets
    are larger. Assumes independent calibration queries from the law of the queries to come.

    Args:
      critical_scores: c(x) of the calibration queries, floating, `[..., n]`, or a `TieBroken` pair.
      alpha: Risk level or levels in (0, 1).
      delta: Chance of failure, in (0, 1).

    Returns:
      The threshold `[...]` or `[..., a]`, as of `calibrate`; +inf where no budget will do.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If there is no query, scores are NaN, or alpha or delta is outside (0, 1).

    Use this when one calibration set is all there will be, and its risk must hold.

    >>> import jax.numpy as jnp
    >>> calibrate_with_probability(jnp.arange(1000.0), 0.1, 0.05).tolist()
    915.0
    """
    value, tie = value_and_tie("critical_scores", critical_scores)
    budget = high_probability_budget(alpha, value.shape[-1], delta)
    threshold: jax.Array | TieBroken = threshold_at_budget(value, budget, tie_break=tie)
    return threshold


def uniform_budget(alpha: Alpha, n: int, delta: float) -> Any:
    r"""Miss budgets that hold for every alpha at once.

    B = floor(n (alpha - sqrt(log(1 / delta) / (2 n)))).

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

    Use this when an alpha is to be chosen on the calibration queries themselves.

    >>> uniform_budget([0.05, 0.1], 1000, 0.05)
    array([11, 61])
    """
    n = check_count("n", n)
    if check_delta(delta) > 0.5:
        raise ValueError(f"delta must be in (0, .5] for the one-sided inequality, got {delta}")
    fractions, scalar = exact_alphas(alpha)
    slack = sqrt(log(1 / delta) / (2 * n))
    # A budget that only rounding makes a whole number is not taken: floats err by some 1e-16 n.
    budgets = np.array(
        [max(-1, floor(n * (float(f) - slack) - 1e-15 * n)) for f in fractions], np.int64
    )
    return int(budgets[0]) if scalar else budgets


def calibrate_uniform(
    critical_scores: ArrayLike | TieBroken, alpha: Alpha, delta: float
) -> jax.Array | TieBroken:
    """Thresholds of which any may be chosen after looking.

    All keep risk <= alpha with probability 1 - delta.

    Args:
      critical_scores: c(x) of the calibration queries, floating, `[..., n]`, or a `TieBroken` pair.
      alpha: Risk level or levels in (0, 1).
      delta: Chance of failure, in (0, .5].

    Returns:
      The threshold `[...]` or `[..., a]`, as of `calibrate`; +inf where no threshold is safe.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If there is no query, scores are NaN, or alpha or delta is out of range.

    Use this when an alpha is to be chosen by what its sets cost on the calibration queries.
    """
    value, tie = value_and_tie("critical_scores", critical_scores)
    budget = uniform_budget(alpha, value.shape[-1], delta)
    threshold: jax.Array | TieBroken = threshold_at_budget(value, budget, tie_break=tie)
    return threshold
