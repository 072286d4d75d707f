r"""What calibration promises, in closed form: Theorems 4.3 and 4.5, and the exact laws.

Evaluated on the host in float64. n is the number of calibration queries, b = floor(alpha (n + 1)) -
1 the miss budget, k = n - b the rank of the threshold among the n critical scores. The upper bound
needs exchangeability alone; the lower bound and the exact laws also need critical scores without
ties, which the exact tie-break supplies for every router, and a threshold that is finite.
"""

from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np

from racer_jax.core.risk_levels import (
    Alpha,
    Budget,
    Level,
    budget_of,
    exact_alpha,
    exact_alphas,
)
from racer_jax.core.scalar_checks import check_count


class RiskBounds(NamedTuple):
    """Bounds of the expected risk.

    Attributes:
      lower: Exclusive lower bound, float64 `[]` or `[a]`.
      upper: Inclusive upper bound, float64 `[]` or `[a]`.

    Use this when you read the result of `risk_bounds`.
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

    Use this when deciding how many queries to label.

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

    Use this when a figure is to show the bounds of the paper; `sharp_risk` is the exact mean.
    """
    check_count("n", n)
    fractions, scalar = exact_alphas(alpha)
    upper = np.array([float(f) for f in fractions])
    lower = upper - 2 / (n + 1)
    return RiskBounds(float(lower[0]), float(upper[0])) if scalar else RiskBounds(lower, upper)


def sharp_risk(alpha: Alpha | None, n: int, *, budget: Budget | None = None) -> Any:
    r"""The exact expected risk without ties.

    E[risk] = (b + 1) / (n + 1) = floor(alpha (n + 1)) / (n + 1).

    So alpha - 1 / (n + 1) < E[risk] <= alpha: twice as sharp as Theorem 4.5. An infeasible alpha,
    below 1 / (n + 1), gives 0, since every model is called.

    Args:
      alpha: Risk level or levels in (0, 1); None where the budget is given.
      n: Number of calibration queries.
      budget: Miss budget or budgets b in the place of alpha.

    Returns:
      A float, or a float64 array `[a]`.

    Raises:
      TypeError: If `alpha` is not numeric, or `n` or the budget not an integer.
      ValueError: If an alpha is outside (0, 1), a budget outside -1 ... n - 1, or `n` below 1.

    Use this when a measured mean risk is to be compared with what it must be.

    >>> sharp_risk(0.1, 99), sharp_risk(None, 99, budget=9)
    (0.1, 0.1)
    """
    return (budget_of(alpha, n, budget) + 1) / (n + 1)


def _feasible_budget(alpha: Level | None, n: int, budget: int | None) -> int:
    misses = budget_of(alpha, n, budget)
    if np.ndim(misses):
        raise TypeError(f"alpha or budget must be a single one, got {len(misses)}")
    if misses < 0 and alpha is None:
        raise ValueError("budget must be at least 0: with -1 the threshold is +inf and the risk 0")
    if misses < 0 and alpha is not None:
        raise ValueError(
            f"alpha = {alpha} is infeasible with n = {n}: the threshold is +inf and the risk is 0; "
            f"it takes n >= {smallest_calibration_size(alpha)}"
        )
    return int(misses)


def risk_law(alpha: Level | None, n: int, *, budget: int | None = None) -> Any:
    r"""Law of the risk given the calibration set: risk(lambda_hat) ~ Beta(b + 1, n - b).

    Args:
      alpha: One risk level in (0, 1); None where the budget is given.
      n: Number of calibration queries.
      budget: Miss budget b in the place of alpha, an integer.

    Returns:
      A frozen `scipy.stats.beta`.

    Raises:
      TypeError: If `alpha` is not numeric or `n` not an integer.
      ValueError: If alpha is outside (0, 1), `n` below 1, or alpha infeasible with n.

    Use this when the risk of one calibrated threshold is in question, not its mean.

    >>> round(float(risk_law(0.1, 99).mean()), 3)
    0.1
    """
    from scipy import stats  # takes half a second to import

    misses = _feasible_budget(alpha, n, budget)
    return stats.beta(misses + 1, n - misses)


def miss_law(alpha: Level | None, n: int, num_test: int, *, budget: int | None = None) -> Any:
    r"""Law of the number of misses on fresh test queries: BetaBinomial(n_test, b + 1, n - b).

    Args:
      alpha: One risk level in (0, 1); None where the budget is given.
      n: Number of calibration queries.
      num_test: Number of test queries.
      budget: Miss budget b in the place of alpha, an integer.

    Returns:
      A frozen `scipy.stats.betabinom`.

    Raises:
      TypeError: If `alpha` is not numeric or a count not an integer.
      ValueError: If alpha is outside (0, 1), a count below 1, or alpha infeasible with n.

    Use this when counts of misses on test queries are to be judged.
    """
    from scipy import stats  # takes half a second to import

    check_count("num_test", num_test)
    misses = _feasible_budget(alpha, n, budget)
    return stats.betabinom(num_test, misses + 1, n - misses)


def risk_std(alpha: Alpha, n: int, num_test: int) -> Any:
    r"""Standard deviation of a split's test risk, sqrt(alpha (1 - alpha) (1/n + 1/n_test)).

    Args:
      alpha: Risk level or levels in (0, 1).
      n: Number of calibration queries.
      num_test: Number of test queries.

    Returns:
      A float, or a float64 array `[a]`.

    Raises:
      TypeError: If `alpha` is not numeric or a count not an integer.
      ValueError: If an alpha is outside (0, 1) or a count below 1.

    Use this when an error bar is wanted for the risk of one split.
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
      probability: Probability of each value, float64 `[j]`; sums to 1.
      mean: The expectation, (b + 1) / (n + 1).
      std: The standard deviation.

    Use this when you read the result of `split_risk_law`, for example to find a quantile of the
    test risk.
    """

    risk: np.ndarray
    probability: np.ndarray
    mean: float
    std: float


def split_risk_law(
    alpha: Level | None, n: int, num_test: int, *, budget: int | None = None
) -> SplitRiskLaw:
    r"""Law of the test risk over all C(N, n) splits of a pool of N = n + n_test queries.

    With no ties.

    The population rank J of the threshold is negative hypergeometric, P(J = j) = C(j-1, k-1) C(N-j,
    n-k) / C(N, n) for k = n - b, and the test risk is (N - J - b) / (N - n). Its mean is (b + 1) /
    (n + 1) and Var J = k (N + 1) (N - n) (n + 1 - k) / ((n + 1)^2 (n + 2)). It is the beta-binomial
    law of `miss_law`, seen from a finite pool: the law does not depend on the scores at all.

    Args:
      alpha: One risk level in (0, 1); None where the budget is given.
      n: Number of calibration queries.
      num_test: Number of test queries, N - n.
      budget: Miss budget b in the place of alpha, an integer.

    Returns:
      `SplitRiskLaw`. An infeasible alpha has risk 0 with certainty.

    Raises:
      TypeError: If `alpha` is not numeric or a count not an integer.
      ValueError: If alpha is outside (0, 1) or a count below 1.

    Use this when the same labelled queries are split again and again.
    """
    check_count("num_test", num_test)
    misses = budget_of(alpha, n, budget)
    if misses < 0:
        return SplitRiskLaw(np.zeros(1), np.ones(1), 0.0, 0.0)
    rank, pool = n - misses, n + num_test
    j = np.arange(pool - misses, rank - 1, -1)
    log_probability = (
        _log_choose(j - 1, rank - 1)
        + _log_choose(pool - j, n - rank)
        - _log_choose(np.array(pool), np.array(n))
    )
    variance = rank * (pool + 1) * num_test * (n + 1 - rank) / ((n + 1) ** 2 * (n + 2))
    probability = np.exp(log_probability)
    return SplitRiskLaw(
        risk=(pool - j - misses) / num_test,
        # takes out the rounding of the log-gammas, about 1e-12
        probability=probability / probability.sum(),
        mean=(misses + 1) / (n + 1),
        std=sqrt(variance) / num_test,
    )


def _log_choose(n: np.ndarray, k: Any) -> np.ndarray:
    from scipy.special import gammaln

    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0))
