r"""Sharper promises than the mean: by group, with high probability, and under covariate shift.

- Grouped (Mondrian): one threshold for each group, so that the risk is at most alpha in every group and not on average.
- High probability: risk at most alpha with probability 1 - delta over the calibration set, by the exact Beta quantile.
- Weighted: calibration queries count by how likely they are among the queries to come (Tibshirani et al. 2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.special import betainc

from racer_jax._checks import check_no_nan, first_bad
from racer_jax.calibration import Alpha, Level, calibrate, check_count, exact_alpha, exact_alphas, threshold_at_rank
from racer_jax.guarantees import smallest_calibration_size
from racer_jax.nonconformity import TieBroken

Fallback = Literal["pooled", "all"]
FALLBACKS: tuple[str, ...] = get_args(Fallback)


# --- high probability ------------------------------------------------------------------------------------------------


def check_delta(delta: float) -> float:
    """A chance of failure: a number in (0, 1)."""
    if isinstance(delta, bool) or not isinstance(delta, int | float | np.number):
        raise TypeError(f"delta must be a number in (0, 1), got {delta!r} of type {type(delta).__name__}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1), got {delta}")
    return float(delta)


def high_probability_budget(alpha: Alpha, n: int, delta: float) -> Any:
    r"""The largest miss budget b with P(Beta(b + 1, n - b) <= alpha) >= 1 - delta.

    Args:
      alpha: Risk level or levels in (0, 1).
      n: Number of calibration queries.
      delta: Chance over the calibration set that the risk exceeds alpha, in (0, 1).

    Returns:
      An int for one alpha, an int64 array `[a]` for several; -1 where no budget will do, (1 - alpha)^n > delta.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If alpha or delta is outside (0, 1), or `n` below 1.

    >>> high_probability_budget(0.1, 1000, 0.05), high_probability_budget(0.1, 28, 0.05)
    (83, -1)
    """
    check_count("n", n)
    delta = check_delta(delta)
    fractions, scalar = exact_alphas(alpha)
    budgets = np.array([_largest_budget(float(f), int(n), delta) for f in fractions], np.int64)
    return int(budgets[0]) if scalar else budgets


def _largest_budget(alpha: float, n: int, delta: float) -> int:
    """Bisection: the probability falls as the budget grows."""
    low, high = -1, n - 1  # `low` will do (at -1 every model is called), above `high` nothing is looked for
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

    `calibrate` bounds the risk on average over calibration sets; on half of them it is above alpha, by some
    sqrt(alpha (1 - alpha) / n). This bounds it on all but a share delta of them, at the price of larger sets.
    Assumes independent calibration queries from the law of the queries to come.

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
    value, tie = critical_scores if isinstance(critical_scores, TieBroken) else (jnp.asarray(critical_scores), None)
    check_no_nan("critical_scores", value)
    if value.ndim < 1 or value.shape[-1] < 1:
        raise ValueError(f"critical_scores must have shape [..., n] with n >= 1, got {value.shape}")
    n = value.shape[-1]
    budget = high_probability_budget(alpha, n, delta)
    rank = jnp.asarray(n - np.atleast_1d(budget), jnp.int32)
    threshold: jax.Array | TieBroken = threshold_at_rank(value, rank, None, tie)
    return threshold if np.ndim(budget) else jax.tree.map(lambda x: x[..., 0], threshold)


# --- by group --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupedThreshold:
    """One threshold for each group.

    Attributes:
      groups: Names of the groups, `[g]`.
      threshold: float32 `[g]`, or a `TieBroken` pair of them.
      num_rows: Calibration queries of each group, `[g]`.
      alpha: The risk level as given.
      fallback: What groups too small for alpha were given.
      too_small: Names of those groups; no promise holds for them under `"pooled"`.
    """

    groups: tuple[str, ...]
    threshold: jax.Array | TieBroken
    num_rows: tuple[int, ...]
    alpha: Level
    fallback: str
    too_small: tuple[str, ...]

    def warning(self) -> str:
        """What a user must know of the groups that are too small; empty where there are none."""
        if not self.too_small:
            return ""
        counts = dict(zip(self.groups, self.num_rows, strict=True))
        names = ", ".join(f"{name!r} (n = {counts[name]})" for name in self.too_small)
        given = "the pooled threshold, without a promise of their own" if self.fallback == "pooled" else "every model"
        needed = smallest_calibration_size(self.alpha)
        return f"groups too small for alpha = {self.alpha}, which takes n >= {needed}: {names}; they get {given}"

    def of(self, groups: Sequence[str]) -> jax.Array | TieBroken:
        """The threshold of each query, `[n]`.

        Args:
          groups: Name of the group of each query, `[n]`.

        Raises:
          TypeError: If `groups` is a single string.
          ValueError: If a group was not among the calibration queries.
        """
        codes = _codes(groups, self.groups, "calibration")
        return jax.tree.map(lambda x: x[codes], self.threshold)


def _codes(groups: Sequence[str], known: Sequence[str], kind: str) -> np.ndarray:
    if isinstance(groups, str):
        raise TypeError(f"groups must be a sequence of names, got the one string {groups!r}")
    place = {name: i for i, name in enumerate(known)}
    for i, name in enumerate(groups):
        if name not in place:
            raise ValueError(f"groups must be among those of the {kind} queries, {tuple(known)}, got {name!r} at [{i}]")
    return np.array([place[name] for name in groups], np.int32)


def calibrate_by_group(
    critical_scores: ArrayLike | TieBroken, groups: Sequence[str], alpha: Level, fallback: Fallback = "all"
) -> GroupedThreshold:
    r"""Mondrian calibration: a threshold for each group, all in one vmapped call.

    If the queries of a group are exchangeable with the calibration queries of that group, the risk within the group is
    at most alpha; hence it is on average too, whatever mix of groups is to come.

    Args:
      critical_scores: c(x) of the calibration queries, floating `[n]`, or a `TieBroken` pair.
      groups: Name of the group of each, `[n]`.
      alpha: Risk level in (0, 1).
      fallback: What a group with fewer than ceil(1 / alpha) - 1 queries gets: `"all"` models, which keeps the promise,
        or the `"pooled"` threshold of all groups, which makes none for it.

    Returns:
      The `GroupedThreshold`; its `warning` names the groups that fell back.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, scores are NaN, alpha is outside (0, 1) or the fallback unknown.

    References:
      Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, Section 4.5.

    >>> grouped = calibrate_by_group(jnp.arange(12.0), ["a"] * 9 + ["b"] * 3, 0.1)
    >>> grouped.threshold.tolist(), grouped.too_small
    ([8.0, inf], ('b',))
    """
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback must be one of {FALLBACKS}, got {fallback!r}")
    value = critical_scores.value if isinstance(critical_scores, TieBroken) else jnp.asarray(critical_scores)
    if value.ndim != 1:
        raise ValueError(f"critical_scores must have shape [n], got {value.shape}")
    if not isinstance(groups, str) and len(groups) != len(value):
        raise ValueError(f"groups must name one group for each of the {len(value)} queries, got {len(groups)}")
    needed = smallest_calibration_size(exact_alpha(alpha))
    known = tuple(dict.fromkeys(groups))
    codes = _codes(groups, known, "calibration")
    masks = codes == np.arange(len(known))[:, None]
    threshold = calibrate(critical_scores, alpha, mask=masks)
    num_rows = tuple(int(num) for num in masks.sum(axis=1))
    small = np.array([num < needed for num in num_rows])
    if fallback == "pooled" and small.any():
        pooled = calibrate(critical_scores, alpha)
        threshold = jax.tree.map(lambda own, all_: jnp.where(small, all_, own), threshold, pooled)
    names = tuple(name for name, is_small in zip(known, small, strict=True) if is_small)
    return GroupedThreshold(known, threshold, num_rows, alpha, fallback, names)


# --- under covariate shift -------------------------------------------------------------------------------------------


def check_likelihood_ratio(name: str, weights: ArrayLike) -> np.ndarray:
    """Likelihood ratios `[n]`: numeric, finite, above 0; float64."""
    values = np.asarray(weights)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numeric, got dtype {values.dtype}")
    values = values.astype(np.float64)
    if values.ndim != 1 or len(values) < 1:
        raise ValueError(f"{name} must have shape [n] with n >= 1, got {values.shape}")
    if (bad := ~(np.isfinite(values) & (values > 0))).any():
        raise ValueError(
            f"{name} must be finite and above 0, got {values[bad][0]} at {first_bad(bad)}: a query that cannot occur "
            f"among those to come (0), or only there (inf), tells nothing about them and must be left out by the caller"
        )
    return values


@dataclass(frozen=True)
class WeightedCalibration:
    """Critical scores in order and what they weigh: the threshold of a query depends on the query's own weight.

    Attributes:
      critical: Critical scores ascending, `[n]`.
      above: Total weight of the calibration queries above each of them, float64 `[n]`.
      total: Total weight.
      alpha: Risk level.
    """

    critical: np.ndarray
    above: np.ndarray
    total: float
    alpha: Level

    def threshold(self, weights: ArrayLike) -> np.ndarray:
        r"""inf{lambda : (sum of w_i over c_i > lambda, plus w(x)) <= alpha (sum of w_i + w(x))} for each query.

        Args:
          weights: w(x) of the queries, `[t]`, finite and above 0.

        Returns:
          `[t]`, the dtype of the critical scores; +inf where the query's own weight leaves no budget.

        Raises:
          TypeError: If weights are not numeric.
          ValueError: If they are not `[t]`, finite and above 0.
        """
        own = check_likelihood_ratio("weights", weights)
        # A relative slack of 1e-12 takes in what rounding does to sums that are equal on paper.
        budget = float(exact_alpha(self.alpha)) * (self.total + own) * (1 + 1e-12) - own
        index = len(self.above) - np.searchsorted(self.above[::-1], budget, side="right")
        padded = np.append(self.critical, np.array(np.inf, self.critical.dtype))
        return np.asarray(padded[np.where(budget < 0, len(self.above), index)])


def calibrate_weighted(critical_scores: ArrayLike, weights: ArrayLike, alpha: Level) -> WeightedCalibration:
    r"""Calibration under covariate shift: calibration query i counts w_i = dP_to_come(x_i) / dP_calibration(x_i).

    If the weights are the true likelihood ratios up to a factor, and the law of right and wrong given the query is the
    same, the risk on the queries to come is at most alpha. Weights that were estimated make it a guarantee up to their
    error. Equal weights give `calibrate`. Runs on the host in float64.

    Args:
      critical_scores: c(x) of the calibration queries, floating `[n]`, without tie-break.
      weights: w_i of each, `[n]`, finite and above 0.
      alpha: Risk level in (0, 1).

    Returns:
      The `WeightedCalibration`, whose `threshold` takes the weights of the queries to come.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, scores are NaN, a weight is zero, negative or infinite, or alpha is outside
        (0, 1).

    References:
      Tibshirani, Barber, Candes and Ramdas, "Conformal Prediction Under Covariate Shift", 2019, Corollary 1.

    >>> weighted = calibrate_weighted(jnp.arange(1.0, 100.0), jnp.ones(99), 0.29)
    >>> weighted.threshold([1.0]).tolist(), calibrate(jnp.arange(1.0, 100.0), 0.29).tolist()
    ([71.0], 71.0)
    """
    exact_alpha(alpha)
    check_no_nan("critical_scores", jnp.asarray(critical_scores))
    critical = np.asarray(critical_scores)
    values = check_likelihood_ratio("weights", weights)
    if critical.shape != values.shape:
        raise ValueError(f"critical_scores and weights must both be [n], got {critical.shape} and {values.shape}")
    order = np.argsort(critical, kind="stable")
    critical, values = critical[order], values[order]
    total = float(values.sum())
    above = np.append(np.cumsum(values[::-1])[::-1][1:], 0.0)
    last = np.searchsorted(critical, critical, side="right") - 1  # of the queries that tie with each
    return WeightedCalibration(critical, above[last], total, alpha)


class DensityRatio(NamedTuple):
    """Likelihood ratios estimated by a classifier.

    Attributes:
      calibration: w_i of the calibration queries, float64 `[n]`, mean 1.
      to_come: w(x) of the queries to come, float64 `[t]`, on the same scale.
      effective_size: How many equally weighted calibration queries they are worth, (sum w)^2 / sum w^2.
      caveat: What a reader of a result that rests on them must be told.
    """

    calibration: np.ndarray
    to_come: np.ndarray
    effective_size: float
    caveat: str


def estimate_density_ratio(
    calibration: ArrayLike, to_come: ArrayLike, ridge: float = 1.0, largest: float = 50.0
) -> DensityRatio:
    r"""Likelihood ratios by logistic regression between the two sets of embeddings: w = p / (1 - p) n / t.

    Args:
      calibration: Embeddings of the calibration queries, floating `[n, d]`.
      to_come: Embeddings of unlabelled queries to come, floating `[t, d]`.
      ridge: Penalty on the squared weights of the classifier, above 0.
      largest: Ratios are clipped to [1 / largest, largest].

    Returns:
      The `DensityRatio`.

    Raises:
      TypeError: If an array is not floating.
      ValueError: If shapes do not fit, a value is not finite, or ridge or largest is out of range.
    """
    parts = []
    for name, array in (("calibration", calibration), ("to_come", to_come)):
        values = np.asarray(array)
        if values.dtype.kind != "f":
            raise TypeError(f"{name} must be floating, got dtype {values.dtype}")
        if values.ndim != 2 or 0 in values.shape or (parts and values.shape[1] != parts[0].shape[1]):
            raise ValueError(f"{name} must have shape [n, d] with the d of the other, got {values.shape}")
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
        return float((np.logaddexp(0, logit) - label * logit).sum() + 0.5 * (penalty * beta * beta).sum())

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
    own, other = ratio[: len(parts[0])], ratio[len(parts[0]) :]
    effective = float(own.sum() ** 2 / (own**2).sum())
    caveat = (
        f"weights were estimated by a classifier, not known: the risk is at most alpha only up to their error; "
        f"{len(own)} calibration queries are worth {effective:.0f} equally weighted ones"
    )
    return DensityRatio(own, other, effective, caveat)
