"""Selective risk: the risk among the queries that are answered."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.calibration import critical_scores
from racer_jax.core.proportions import clopper_pearson_upper
from racer_jax.core.risk_levels import Level, exact_alpha
from racer_jax.risk_control.high_probability_budgets import check_delta


class Selective(NamedTuple):
    """A threshold with a bound of the share misrouted among the queries answered.

    Attributes:
      threshold: The smallest certified threshold; None where none is certified.
      answered: Share of the calibration queries it answers.
      misrouted: Share misrouted among those.
      upper: Clopper-Pearson bound of that share at this threshold alone.
      num_tested: Thresholds tested until the first that failed.

    Use this when you read the result of `calibrate_selective`; `prediction_sets` takes the
    threshold, unless it is None.
    """

    threshold: float | None
    answered: float
    misrouted: float
    upper: float
    num_tested: int


def calibrate_selective(
    nonconformity: ArrayLike, correct: ArrayLike, thresholds: ArrayLike, alpha: Level, delta: float
) -> Selective:
    r"""Smallest threshold of a fixed grid whose SELECTIVE risk is at most alpha.

    With probability 1 - delta.

    Selective risk is P(misrouted | some model is called). It is not monotone in the threshold, so
    Eq. 6 does not bound it. Learn-then-Test does: thresholds are tested from the largest down, each
    by the exact binomial test of "selective risk > alpha" at level delta, and testing stops at the
    first that is not rejected; so the chance that any certified threshold is above alpha is at most
    delta, without a share for each.

    Args:
      nonconformity: E(x, m) of the calibration queries, floating `[n, m + 1]`, null model last.
      correct: Whether each real model is right, bool or 0/1 `[n, m]`.
      thresholds: The grid, floating `[l]`, chosen WITHOUT the calibration queries (for example
        quantiles of E over training queries).
      alpha: Selective risk allowed, in (0, 1).
      delta: Chance of failure, in (0, 1).

    Returns:
      The threshold, and the share that it answers.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, or a value is out of range.

    References:
      Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test", 2021, fixed sequence testing.

    Use this when abstaining is free and few of the queries that are answered may be misrouted. Of
    those that no model answers the null mode says which are: under `never`, all.

    >>> nonconformity = np.tile(np.float32([[0.1, -np.inf]]), (100, 1))
    >>> calibrate_selective(nonconformity, np.ones((100, 1)), [0.5], 0.1, 0.05).threshold
    0.5
    """
    from scipy.special import bdtr  # takes a fifth of a second to import

    level, delta = float(exact_alpha(alpha)), check_delta(delta)
    grid = np.asarray(given("thresholds", thresholds))
    if grid.dtype.kind != "f" or grid.ndim != 1 or not len(grid) or np.isnan(grid).any():
        raise ValueError(
            f"thresholds must be floating [l] with l >= 1 and no NaN, got {thresholds!r}"
        )
    answers_from, missed_until = _selective_steps(nonconformity, correct)
    num = len(answers_from)
    best = Selective(None, 0.0, 0.0, 1.0, 0)
    for i, threshold in enumerate(np.sort(grid)[::-1], start=1):
        at = threshold.astype(answers_from.dtype)
        is_answered = (answers_from <= at) & (answers_from < np.inf)
        num_answered = int(is_answered.sum())
        # +inf is the critical score of a query that no set can save.
        hits = (missed_until <= at) & (missed_until < np.inf)
        misses = int((is_answered & ~hits).sum())
        # so few misses are too likely at risk alpha
        if not num_answered or bdtr(misses, num_answered, level) > delta:
            return best._replace(num_tested=i)
        upper = clopper_pearson_upper(misses, num_answered, delta)
        best = Selective(float(at), num_answered / num, misses / num_answered, upper, i)
    return best


def _selective_steps(nonconformity: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The threshold from which each query is answered, and that until which it is a miss, `[n]`."""
    nonconformity = given("nonconformity", nonconformity)
    critical = np.asarray(critical_scores(nonconformity, correct))
    if critical.ndim != 1 or not len(critical):
        raise ValueError(
            f"nonconformity must have shape [n, m + 1] with n >= 1, got {np.shape(nonconformity)}"
        )
    return np.asarray(nonconformity)[:, :-1].min(axis=1).astype(critical.dtype), critical
