"""Calibration under covariate shift.

Calibration queries count by how likely they are among the queries to come.

The law of the queries changes between calibration and use, the law of right and wrong given the
query does not (Tibshirani, Barber, Candes and Ramdas 2019).
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import check_no_nan, first_bad
from racer_jax.core.risk_levels import Level, exact_alpha


def check_likelihood_ratio(name: str, weights: ArrayLike) -> np.ndarray:
    """Likelihood ratios `[n]`: numeric, finite, above 0; float64.

    Use this when density ratios come from outside.
    """
    values = np.asarray(given(name, weights))
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numeric, got dtype {values.dtype}")
    values = values.astype(np.float64)
    if values.ndim != 1 or len(values) < 1:
        raise ValueError(f"{name} must have shape [n] with n >= 1, got {values.shape}")
    if (bad := ~(np.isfinite(values) & (values > 0))).any():
        raise ValueError(
            f"{name} must be finite and above 0, got {values[bad][0]} at {first_bad(bad)}: a query "
            "that cannot occur "
            "among those to come (0), or only there (inf), says nothing about them and must be "
            "left out by the caller"
        )
    return values


@dataclass(frozen=True)
class WeightedCalibration:
    """Critical scores in order, and their weights.

    The threshold of a query depends on the query's own weight.

    Attributes:
      critical: Critical scores ascending, `[n]`.
      above: Total weight of the calibration queries above each of them, float64 `[n]`.
      total: Total weight.
      alpha: Risk level.

    Use this when you read the result of `calibrate_weighted`: calibrate once, then ask `threshold`
    for any number of queries.
    """

    critical: np.ndarray
    above: np.ndarray
    total: float
    alpha: Level

    def threshold(self, weights: ArrayLike) -> np.ndarray:
        r"""The threshold of each query.

        inf{lambda : (sum of w_i over c_i > lambda, plus w(x)) <= alpha (sum of w_i + w(x))}.

        Args:
          weights: w(x) of the queries, `[t]`, finite and above 0.

        Returns:
          `[t]`, the dtype of the critical scores; +inf where the query's own weight leaves no
          budget.

        Raises:
          TypeError: If weights are not numeric.
          ValueError: If they are not `[t]`, finite and above 0.

        Use this when you have the likelihood ratios of the queries to come; each query gets a
        threshold of its own.
        """
        query_weights = check_likelihood_ratio("weights", weights)
        # A relative slack of 1e-12 takes in what rounding does to sums that are equal on paper.
        budget = (
            float(exact_alpha(self.alpha)) * (self.total + query_weights) * (1 + 1e-12)
            - query_weights
        )
        index = len(self.above) - np.searchsorted(self.above[::-1], budget, side="right")
        critical = np.append(self.critical, np.array(np.inf, self.critical.dtype))
        return np.asarray(critical[np.where(budget < 0, len(self.above), index)])


def calibrate_weighted(
    critical_scores: ArrayLike, weights: ArrayLike, alpha: Level
) -> WeightedCalibration:
    r"""Calibration under covariate shift.

    Calibration query i counts w_i = dP_to_come(x_i) / dP_calibration(x_i).

    If the weights are the true likelihood ratios up to a factor, and the law of right and wrong
    given the query is the same, the risk on the queries to come is at most alpha. With estimated
    weights the guarantee holds only up to their error. Equal weights give `calibrate`. Runs on the
    host in float64.

    Args:
      critical_scores: c(x) of the calibration queries, floating `[n]`, without tie-break.
      weights: w_i of each, `[n]`, finite and above 0.
      alpha: Risk level in (0, 1).

    Returns:
      The `WeightedCalibration`, whose `threshold` takes the weights of the queries to come.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, scores are NaN, a weight is zero, negative or infinite, or
        alpha is outside (0, 1).

    References:
      Tibshirani, Barber, Candes and Ramdas, "Conformal Prediction Under Covariate Shift", 2019,
      Corollary 1.

    Use this when the queries to come differ from the calibration queries and you have their
    likelihood ratios, known or from `estimate_density_ratio`; else use `calibrate`.

    >>> from racer_jax import calibrate
    >>> weighted = calibrate_weighted(jnp.arange(1.0, 100.0), jnp.ones(99), 0.29)
    >>> weighted.threshold([1.0]).tolist(), calibrate(jnp.arange(1.0, 100.0), 0.29).tolist()
    ([71.0], 71.0)
    """
    exact_alpha(alpha)
    critical = np.asarray(given("critical_scores", critical_scores))
    check_no_nan("critical_scores", jnp.asarray(critical))
    values = check_likelihood_ratio("weights", weights)
    if critical.shape != values.shape:
        raise ValueError(
            f"critical_scores and weights must both be [n], got {critical.shape} and {values.shape}"
        )
    order = np.argsort(critical, kind="stable")
    critical, values = critical[order], values[order]
    total = float(values.sum())
    above = np.append(np.cumsum(values[::-1])[::-1][1:], 0.0)
    # of the queries that tie with each
    last = np.searchsorted(critical, critical, side="right") - 1
    return WeightedCalibration(critical, above[last], total, alpha)


class DensityRatio(NamedTuple):
    """Likelihood ratios estimated by a classifier.

    Attributes:
      calibration: w_i of the calibration queries, float64 `[n]`, mean 1.
      to_come: w(x) of the queries to come, float64 `[t]`, on the same scale.
      effective_size: The number of equally weighted calibration queries that are worth as much,
        (sum w)^2 / sum w^2.
      caveat: A sentence that every result that uses these weights should show.

    Use this when you read the result of `estimate_density_ratio`: `calibration` goes to
    `calibrate_weighted`, `to_come` to the `threshold` of its result.
    """

    calibration: np.ndarray
    to_come: np.ndarray
    effective_size: float
    caveat: str


def estimate_density_ratio(
    calibration: ArrayLike, to_come: ArrayLike, ridge: float = 1.0, largest: float = 50.0
) -> DensityRatio:
    r"""Likelihood ratios by logistic regression between the two sets of embeddings.

    w = p / (1 - p) n / t, where p is the predicted chance that a query is one of those to come.

    Args:
      calibration: Embeddings of the calibration queries, floating `[n, d]`.
      to_come: Embeddings of unlabelled queries to come, floating `[t, d]`.
      ridge: Penalty on the squared weights of the classifier, above 0.
      largest: Ratios are clipped to [1 / largest, largest].

    Returns:
      The ratios of both sets, and how many queries they are worth.

    Raises:
      TypeError: If an array is not floating.
      ValueError: If shapes do not fit, a value is not finite, or ridge or largest is out of range.

    Use this when you have unlabelled queries to come but no known likelihood ratios for
    `calibrate_weighted`.
    """
    parts: list[np.ndarray] = []
    for name, array in (("calibration", calibration), ("to_come", to_come)):
        values = np.asarray(given(name, array))
        if values.dtype.kind != "f":
            raise TypeError(f"{name} must be floating, got dtype {values.dtype}")
        if (
            values.ndim != 2
            or 0 in values.shape
            or (parts and values.shape[1] != parts[0].shape[1])
        ):
            raise ValueError(
                f"{name} must have shape [n, d] with the d of the other, got {values.shape}"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite")
        parts.append(values.astype(np.float64))
    if not ridge > 0 or not largest > 1:
        raise ValueError(f"ridge must be above 0 and largest above 1, got {ridge} and {largest}")
    x = np.concatenate(parts)
    x = np.concatenate([x - x.mean(axis=0), np.ones((len(x), 1))], axis=1)
    label = np.repeat([0.0, 1.0], [len(part) for part in parts])
    penalty = np.append(np.full(x.shape[1] - 1, ridge), 1e-9)
    beta = np.zeros(x.shape[1])

    def objective(beta: np.ndarray) -> float:
        logit = x @ beta
        return float(
            (np.logaddexp(0, logit) - label * logit).sum() + 0.5 * (penalty * beta * beta).sum()
        )

    for _ in range(50):  # Newton's method, halving steps that do not descend
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (p - label) + penalty * beta
        step = np.linalg.solve((x.T * (p * (1 - p) + 1e-12)) @ x + np.diag(penalty), gradient)
        size, start = 1.0, objective(beta)
        while objective(beta - size * step) > start and size > 1e-6:
            size /= 2
        beta = beta - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    ratio = np.exp(np.clip(x @ beta, -30, 30)) * len(parts[0]) / len(parts[1])
    ratio = np.clip(ratio / ratio[: len(parts[0])].mean(), 1 / largest, largest)
    first, other = ratio[: len(parts[0])], ratio[len(parts[0]) :]
    effective = float(first.sum() ** 2 / (first**2).sum())
    caveat = (
        "weights were estimated by a classifier, not known: the risk is at most alpha only up to "
        "their error; "
        f"{len(first)} calibration queries are worth {effective:.0f} equally weighted ones"
    )
    return DensityRatio(first, other, effective, caveat)
