r"""What calibration promises, in closed form (Theorems 4.3 and 4.5 of the paper, and the exact laws behind them).

Evaluated on the host in float64. n is the number of calibration queries, b = floor(alpha (n + 1)) -
1 the miss budget, k = n - b the rank of the threshold among the n critical scores. The upper bound
needs exchangeability alone; the lower bound and the exact laws also need critical scores without
ties, which the exact tie-break supplies for every router.
"""

from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from scipy.special import betaincinv, gammaln

from racer_jax.core.risk_levels import (
    Alpha,
    Level,
    exact_alpha,
    exact_alphas,
    miss_budget,
)
from racer_jax.core.scalar_checks import check_count
from racer_jax.risk_control.high_probability import check_delta


class RiskBounds(NamedTuple):
    """Bounds of the expected risk.

    Attributes:
      lower: Exclusive lower bound, float64 `[]` or `[a]`.
      upper: Inclusive upper bound, float64 `[]` or `[a]`.
    """

    lower: Any
    upper: Any


def smallest_calibration_size(alpha: Level) -> int:
    """The smallest n for which a finite threshold can be safe: ceil(1 / alpha) - 1.

    Args:
      alpha: Risk level in (0, 1).

    Returns:
      The number of calibration queries.

    Raises:
      TypeError: If `alpha` is not a number or a numeral.
      ValueError: If it is outside (0, 1).

    >>> smallest_calibration_size(0.01)
    99
    """
    return ceil(1 / exact_alpha(alpha)) - 1


def risk_bounds(alpha: Alpha, n: int) -> RiskBounds:
    r"""The paper's bounds: alpha - 2 / (n + 1) < E[risk] <= alpha.

    Args:
      alpha: Risk level or levels in (0, 1).
      n: Number of calibration queries.

    Returns:
      `RiskBounds` of floats, or of `[a]` arrays. The lower bound is not clipped at 0.

    Raises:
      TypeError: If `alpha` is not numeric or `n` not an integer.
      ValueError: If an alpha is outside (0, 1) or `n` below 1.

    References:
      Theorem 4.3 (upper; exchangeability) and Theorem 4.5 (lower; no ties).
    """
    check_count("n", n)
    fractions, scalar = exact_alphas(alpha)
    upper = np.array([float(f) for f in fractions])
    lower = upper - 2 / (n + 1)
    return RiskBounds(float(lower[0]), float(upper[0])) if scalar else RiskBounds(lower, upper)


def sharp_risk(alpha: Alpha, n: int) -> Any:
    r"""The exact expected risk without ties: E[risk] = (b + 1) / (n + 1) = floor(alpha (n + 1)) / (n + 1).

    So alpha - 1 / (n + 1) < E[risk] <= alpha: twice as sharp as Theorem 4.5. An infeasible alpha,
    below 1 / (n + 1), gives 0, since every model is called.

    Args:
      alpha: Risk level or levels in (0, 1).
      n: Number of calibration queries.

    Returns:
      A float, or a float64 array `[a]`.

    Raises:
      TypeError: If `alpha` is not numeric or `n` not an integer.
      ValueError: If an alpha is outside (0, 1) or `n` below 1.

    >>> sharp_risk(0.1, 99)
    0.1
    """
    return (miss_budget(alpha, n) + 1) / (n + 1)


def _feasible_budget(alpha: Level, n: int) -> int:
    budget = int(miss_budget(alpha, n))
    if budget < 0:
        raise ValueError(
            f"alpha = {alpha} is infeasible with n = {n}: the threshold is +inf and the risk is 0; "
            f"it takes n >= {smallest_calibration_size(alpha)}"
        )
    return budget


def risk_law(alpha: Level, n: int) -> Any:
    r"""Law of the risk given the calibration set: risk(lambda_hat) ~ Beta(b + 1, n - b).

    Args:
      alpha: One risk level in (0, 1).
      n: Number of calibration queries.

    Returns:
      A frozen `scipy.stats.beta`.

    Raises:
      TypeError: If `alpha` is not numeric or `n` not an integer.
      ValueError: If alpha is outside (0, 1), `n` below 1, or alpha infeasible with n.
    """
    budget = _feasible_budget(alpha, n)
    return stats.beta(budget + 1, n - budget)


def miss_law(alpha: Level, n: int, num_test: int) -> Any:
    r"""Law of the number of misses on fresh test queries: BetaBinomial(n_test, b + 1, n - b).

    Args:
      alpha: One risk level in (0, 1).
      n: Number of calibration queries.
      num_test: Number of test queries.

    Returns:
      A frozen `scipy.stats.betabinom`.

    Raises:
      TypeError: If `alpha` is not numeric or a count not an integer.
      ValueError: If alpha is outside (0, 1), a count below 1, or alpha infeasible with n.
    """
    check_count("num_test", num_test)
    budget = _feasible_budget(alpha, n)
    return stats.betabinom(num_test, budget + 1, n - budget)


def risk_std(alpha: Alpha, n: int, num_test: int) -> Any:
    r"""Standard deviation of one split's test risk, sqrt(alpha (1 - alpha) (1/n + 1/n_test)), for large n and n_test.

    Args:
      alpha: Risk level or levels in (0, 1).
      n: Number of calibration queries.
      num_test: Number of test queries.

    Returns:
      A float, or a float64 array `[a]`.

    Raises:
      TypeError: If `alpha` is not numeric or a count not an integer.
      ValueError: If an alpha is outside (0, 1) or a count below 1.
    """
    check_count("n", n)
    check_count("num_test", num_test)
    fractions, scalar = exact_alphas(alpha)
    stds = np.array([sqrt(f * (1 - f) * (1 / n + 1 / num_test)) for f in fractions])
    return float(stds[0]) if scalar else stds


class SplitRiskLaw(NamedTuple):
    """Law of the test risk over all splits of a fixed, finite pool.

    Attributes:
      risk: Values of the test risk, ascending, float64 `[j]`.
      probability: Of each value, float64 `[j]`; sums to 1.
      mean: The expectation, (b + 1) / (n + 1).
      std: The standard deviation.
    """

    risk: np.ndarray
    probability: np.ndarray
    mean: float
    std: float


def split_risk_law(alpha: Level, n: int, num_test: int) -> SplitRiskLaw:
    r"""Law of the test risk over all C(N, n) splits of a pool of N = n + n_test queries, with no ties.

    The population rank J of the threshold is negative hypergeometric, P(J = j) = C(j-1, k-1) C(N-j,
    n-k) / C(N, n) for k = n - b, and the test risk is (N - J - b) / (N - n). Its mean is (b + 1) /
    (n + 1) and Var J = k (N + 1) (N - n) (n + 1 - k) / ((n + 1)^2 (n + 2)). It is the beta-binomial
    law of `miss_law`, seen from a finite pool: the law does not depend on the scores at all.

    Args:
      alpha: One risk level in (0, 1).
      n: Number of calibration queries.
      num_test: Number of test queries, N - n.

    Returns:
      `SplitRiskLaw`. An infeasible alpha has risk 0 with certainty.

    Raises:
      TypeError: If `alpha` is not numeric or a count not an integer.
      ValueError: If alpha is outside (0, 1) or a count below 1.
    """
    check_count("num_test", num_test)
    budget = int(miss_budget(alpha, n))
    if budget < 0:
        return SplitRiskLaw(np.zeros(1), np.ones(1), 0.0, 0.0)
    rank, pool = n - budget, n + num_test
    j = np.arange(pool - budget, rank - 1, -1)
    log_probability = (
        _log_choose(j - 1, rank - 1)
        + _log_choose(pool - j, n - rank)
        - _log_choose(np.array(pool), np.array(n))
    )
    variance = rank * (pool + 1) * num_test * (n + 1 - rank) / ((n + 1) ** 2 * (n + 2))
    probability = np.exp(log_probability)
    return SplitRiskLaw(
        risk=(pool - j - budget) / num_test,
        # takes out the rounding of the log-gammas, about 1e-12
        probability=probability / probability.sum(),
        mean=(budget + 1) / (n + 1),
        std=sqrt(variance) / num_test,
    )


def _log_choose(n: np.ndarray, k: Any) -> np.ndarray:
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0))


def clopper_pearson(misses: int, n: int, delta: float) -> float:
    """Upper bound of a Bernoulli mean that holds with probability 1 - delta: the exact one."""
    check_count("n", n)
    return 1.0 if misses >= n else float(betaincinv(misses + 1, n - misses, 1 - check_delta(delta)))
