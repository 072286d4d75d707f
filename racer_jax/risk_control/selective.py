"""Selective risk: the risk among the queries that are answered."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.special import bdtr

from racer_jax.core.checks import as_binary
from racer_jax.core.prediction_sets import abstains, misrouted, prediction_sets
from racer_jax.core.risk_levels import Level, exact_alpha
from racer_jax.risk_control.bounds import clopper_pearson
from racer_jax.risk_control.high_probability import check_delta


class Selective(NamedTuple):
    """A threshold with a bound of the share misrouted among the queries answered.

    Attributes:
      threshold: The smallest certified; None where none is.
      answered: Share of the calibration queries it answers.
      misrouted: Share misrouted among those.
      upper: Clopper-Pearson bound of that share at this threshold alone.
      num_tested: Thresholds tested until the first that failed.
    """

    threshold: float | None
    answered: float
    misrouted: float
    upper: float
    num_tested: int


def calibrate_selective(
    nonconformity: ArrayLike, correct: ArrayLike, thresholds: ArrayLike, alpha: Level, delta: float
) -> Selective:
    r"""Smallest threshold of a fixed grid whose SELECTIVE risk is at most alpha, with probability 1 - delta.

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
      The `Selective`.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, or a value is out of range.

    References:
      Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test", 2021, fixed sequence testing.
    """
    level, delta = float(exact_alpha(alpha)), check_delta(delta)
    grid = np.asarray(thresholds)
    if grid.dtype.kind != "f" or grid.ndim != 1 or not len(grid) or np.isnan(grid).any():
        raise ValueError(
            f"thresholds must be floating [l] with l >= 1 and no NaN, got {thresholds!r}"
        )
    right = as_binary("correct", correct)
    found = Selective(None, 0.0, 0.0, 1.0, 0)
    for i, threshold in enumerate(np.sort(grid)[::-1], start=1):
        sets = prediction_sets(
            nonconformity, jnp.asarray(threshold, jnp.asarray(nonconformity).dtype)
        )
        answered = ~np.asarray(abstains(sets))
        misses, num = (
            int((np.asarray(misrouted(sets, right)) & answered).sum()),
            int(answered.sum()),
        )
        # so few misses are too likely at risk alpha
        if not num or bdtr(misses, num, level) > delta:
            return found._replace(num_tested=i)
        found = Selective(
            float(threshold),
            num / len(answered),
            misses / num,
            clopper_pearson(misses, num, delta),
            i,
        )
    return found
