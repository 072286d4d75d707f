"""Are the bounds kept? Mean test risks over splits of a pool, beside their promises.

Three ways to split, one record: `check_bounds` draws splits at random, `check_bounds_exactly` takes
all at once, and `check_bounds_broken` breaks the assumption, so that the check must fail.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple, Required, TypedDict, Unpack

import jax
import numpy as np

from racer_jax.core.nonconformity import NullMode
from racer_jax.core.risk_levels import exact_alphas, miss_budget
from racer_jax.montecarlo.common_size import PlanSize
from racer_jax.montecarlo.compared import Compared
from racer_jax.montecarlo.exact import SplitLaw, pool_law
from racer_jax.montecarlo.measured_splits import (
    Progress,
    RiskLaws,
    SplitMetrics,
    exact_splits,
    fresh_splits,
    risk_laws,
    stale_splits,
)
from racer_jax.montecarlo.pool_entries import pool_entries
from racer_jax.montecarlo.step_functions import Pool, pool_steps
from racer_jax.risk_control import bounds as guarantees

# The risk level whose test risks are kept as a histogram, as in the paper's figures.
HISTOGRAM_ALPHA = "0.1"


class BoundSpec(TypedDict, total=False):
    """What is checked: keywords of `check_bounds` and its two sisters.

    Use this when several pools are checked alike: make it once and hand it on with `**`.

    Attributes:
      num_calibration: n, the calibration queries of a split.
      alphas: Risk levels, as decimals.
      z_limit: Number of standard errors beyond which a mean counts as off.
      null: The null mode, `paper` by default.
      tie_break: Whether ties are broken exactly, as by default; the lower bound and the sharp law
        need it.
      matrix: Nonconformity `[n, m + 1]`, null model last, that is not to be made from the scores.
      size: What plans are padded to, from `plan_size`, so that several pools share one compilation.
    """

    num_calibration: Required[int]
    alphas: Required[Sequence[str]]
    z_limit: Required[float]
    null: NullMode
    tie_break: bool
    matrix: np.ndarray | None
    size: PlanSize | None


class ScoredPool(NamedTuple):
    """Labelled queries with the scores of a router.

    Use this when a check is to run on a router's scores from anywhere.

    Attributes:
      name: Of the benchmark.
      scores: Router scores, float32 `[n, m]` in [0, 1].
      correct: Whether each model is right, bool `[n, m]`.
      note: What a reader should know of how it was made; may be empty.
    """

    name: str
    scores: np.ndarray
    correct: np.ndarray
    note: str = ""


class RiskHistogram(NamedTuple):
    """Test risk of one score on one pool over splits, at one alpha.

    Use this when drawing what single splits give, as the mean hides it.

    Attributes:
      edges: Edges of the bins `[h + 1]`.
      share: Share of the splits in each bin `[h]`.
      law: The share the exact law gives each bin `[h]`.
      mean: Mean test risk.
    """

    edges: np.ndarray
    share: np.ndarray
    law: np.ndarray
    mean: float


class BoundCheck(NamedTuple):
    """Everything about one pool and score, arrays by alpha `[a]`.

    Use this when reading what `check_bounds` found.

    Attributes:
      pool: Name of the pool.
      nonconformity: Name of the score.
      num_calibration: Calibration queries of a split.
      num_test: Test queries of a split.
      num_splits: Number of splits.
      alpha: Risk levels.
      risk: Mean test risk over the splits.
      risk_std: Its standard deviation over the splits.
      risk_error: Standard error of `risk`.
      lower: The paper's lower bound (Theorem 4.5).
      upper: The paper's upper bound (Theorem 4.3).
      lower_applies: Whether the lower bound is promised: no ties and no infinite critical scores
        move the law.
      sharp: The sharp law floor(alpha (n + 1)) / (n + 1).
      exact: Exact mean risk over all splits of this pool, with its ties and null mode.
      exact_std: Exact standard deviation of the test risk; NaN where it is not known (ties and a
        validation part).
      z: (risk - exact) / risk_error.
      size: Mean number of models called.
      exact_size: Its exact mean over all splits.
      abstention: Share of test queries without a model called.
      avoidable_miss: Share that some model could answer while none that can was called.
      verdict: `PASS`, `FAIL`, or `infeasible`: the null mode `never` puts this alpha below the
        share of queries no model can answer.
      note: What an infeasible alpha would take.
      histogram: Test risk at alpha = .10 over splits, None where this alpha is not among the
        levels.
    """

    pool: str
    nonconformity: str
    num_calibration: int
    num_test: int
    num_splits: int
    alpha: np.ndarray
    risk: np.ndarray
    risk_std: np.ndarray
    risk_error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    lower_applies: np.ndarray
    sharp: np.ndarray
    exact: np.ndarray
    exact_std: np.ndarray
    z: np.ndarray
    size: np.ndarray
    exact_size: np.ndarray
    abstention: np.ndarray
    avoidable_miss: np.ndarray
    verdict: list[str]
    note: list[str]
    histogram: RiskHistogram | None


class _Means(NamedTuple):
    """Mean risks beside what was promised of them; see `BoundCheck`."""

    risk: np.ndarray
    risk_error: np.ndarray
    exact: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    lower_applies: np.ndarray


def verdicts(check: Compared, z_limit: float, null: str) -> list[str]:
    """By alpha, PASS, FAIL or infeasible. Use this when the measured means are your own.

    FAIL is `z_limit` errors above the upper bound, below the lower, or off the law.
    """
    margin = z_limit * check.risk_error + 1e-12
    infeasible = (check.exact > check.upper + 1e-12) & (null == "never")
    failures = (check.risk > check.upper + margin) | (np.abs(check.risk - check.exact) > margin)
    failures |= check.lower_applies & (check.risk < check.lower - margin)
    verdict = np.where(failures, "FAIL", "PASS")
    return [str(name) for name in np.where(infeasible, "infeasible", verdict)]


class _Prepared(NamedTuple):
    """A pool in rank space and its levels, read once.

    Attributes:
      split_key: Key of the splits.
      entries: Nonconformity `[n, m + 1]`.
      correct: Whether each model is right.
      ties: Second keys, or None.
      steps: The pool in rank space.
      budget: Misses allowed at each level, int64 `[a]`.
    """

    split_key: jax.Array
    entries: np.ndarray
    correct: np.ndarray
    ties: np.ndarray | None
    steps: Pool
    budget: np.ndarray


def _check(
    key: jax.Array,
    pool: ScoredPool,
    nonconformity: str,
    measure: Callable[[_Prepared, SplitLaw, int], SplitMetrics],
    num_validation: int = 0,
    **spec: Unpack[BoundSpec],
) -> BoundCheck:
    """Splits a pool in one way (`measure`, of the pool, its law and n_test) and compares."""
    num_calibration, null = spec["num_calibration"], spec.get("null", "paper")
    num_test = len(pool.correct) - num_calibration - num_validation
    if num_calibration < 1 or num_test < 1:
        raise ValueError(
            f"pool {pool.name!r} of {len(pool.correct)} queries is too small: {num_calibration} "
            f"would calibrate and {num_test} test, and each part needs at least one"
        )
    levels = exact_alphas(tuple(spec["alphas"]))[0]
    budget = miss_budget(levels, num_calibration)
    size = spec.get("size")
    rows = None if size is None else size.num_queries
    matrix = spec.get("matrix")
    entries, keys, split_key = pool_entries(key, pool.scores, nonconformity, null, matrix, rows)
    ties = keys if spec.get("tie_break", True) else None
    steps = pool_steps(entries, pool.correct, ties)
    # Of the law of the other metrics the means are enough: the rest is megabytes for each pool.
    law = pool_law(steps, num_calibration=num_calibration, budget=budget)._replace(mixture={})
    ready = _Prepared(split_key, entries, pool.correct, ties, steps, budget)
    metrics = measure(ready, law, num_test)

    bounds = guarantees.risk_bounds(levels, num_calibration)
    sharp = (budget + 1) / (num_calibration + 1)
    means = _Means(
        risk=metrics.mean["risk"],
        risk_error=metrics.risk_std / np.sqrt(max(metrics.num_splits, 1)),
        exact=law.risk_mean,
        lower=bounds.lower,
        upper=bounds.upper,
        lower_applies=np.abs(law.risk_mean - sharp) < 1e-9,
    )
    if not metrics.num_splits:  # all splits: nothing is sampled
        means = means._replace(risk_error=np.zeros_like(means.risk))
    laws = risk_laws(levels, law, means.lower_applies, num_calibration, num_validation, num_test)
    distance = means.risk - means.exact
    distance[np.abs(distance) < 1e-12] = 0.0
    return BoundCheck(
        pool=pool.name,
        nonconformity=nonconformity,
        num_calibration=num_calibration,
        num_test=num_test,
        num_splits=metrics.num_splits,
        alpha=np.array([float(level) for level in levels]),
        risk=means.risk,
        risk_std=metrics.risk_std,
        risk_error=means.risk_error,
        lower=means.lower,
        upper=means.upper,
        lower_applies=means.lower_applies,
        sharp=sharp,
        exact=means.exact,
        exact_std=laws.std,
        z=standardised(distance, means.risk_error),
        size=metrics.mean["size"],
        exact_size=law.size_mean,
        abstention=metrics.mean["abstention"],
        avoidable_miss=metrics.mean["avoidable_miss"],
        verdict=verdicts(means, spec["z_limit"], null),
        note=[infeasible_note(level, num_calibration) for level in levels],
        histogram=_histogram_at(Fraction(HISTOGRAM_ALPHA), levels, metrics, laws),
    )


def check_bounds(
    key: jax.Array,
    pool: ScoredPool,
    nonconformity: str,
    *,
    num_splits: int,
    num_validation: int = 0,
    progress: Progress = lambda _: None,
    **spec: Unpack[BoundSpec],
) -> BoundCheck:
    r"""Splits a pool at random and compares the mean test risk with what is promised.

    Use this when the whole way from the draw of a split to the test risk is to be checked. The
    verdict allows for Monte Carlo error; without any, use `check_bounds_exactly`.

    Args:
      key: A typed PRNG key.
      pool: Labelled queries with scores.
      nonconformity: Name of a nonconformity score, or of what `matrix` holds.
      num_splits: Number of splits.
      num_validation: Queries of a split that neither calibrate nor test.
      progress: Called with the number of splits done since the last call.
      **spec: What is checked, the fields of `BoundSpec`: `num_calibration`, `alphas`, `z_limit`,
        and where wanted `null`, `tie_break` and `matrix`.

    Returns:
      The measured risks, their bounds and the verdict on each.

    Raises:
      ValueError: If `num_calibration` leaves no part for one side, or an alpha is out of range.

    References:
      Theorems 4.3 and 4.5 of the paper; `racer_jax.montecarlo.exact` for the law.
    """

    def measure(ready: _Prepared, law: SplitLaw, num_test: int) -> SplitMetrics:
        return fresh_splits(
            ready.split_key,
            ready.steps,
            spec["num_calibration"],
            num_validation,
            ready.budget,
            num_splits,
            progress,
            spec.get("size"),
        )

    return _check(key, pool, nonconformity, measure, num_validation, **spec)


def check_bounds_exactly(
    key: jax.Array, pool: ScoredPool, nonconformity: str, **spec: Unpack[BoundSpec]
) -> BoundCheck:
    """`check_bounds` over all splits at once: their exact law, nothing sampled.

    Use this when the promises are to be checked in a moment; the key only breaks ties.

    Args:
      key: As for `check_bounds`.
      pool: As for `check_bounds`.
      nonconformity: As for `check_bounds`.
      **spec: As for `check_bounds`.

    Returns:
      The `BoundCheck`, of 0 splits.

    Raises:
      ValueError: As `check_bounds`.
    """

    def measure(ready: _Prepared, law: SplitLaw, num_test: int) -> SplitMetrics:
        return exact_splits(law, num_test)

    return _check(key, pool, nonconformity, measure, **spec)


def check_bounds_broken(
    key: jax.Array,
    pool: ScoredPool,
    nonconformity: str,
    *,
    num_splits: int,
    **spec: Unpack[BoundSpec],
) -> BoundCheck:
    """`check_bounds` where test queries are routed by the scores of other queries.

    Use this when you want to see that the check can fail: calibration and test are not
    exchangeable, nothing is promised, and a verdict of PASS throughout would say that the check
    detects nothing.

    Args:
      key: As for `check_bounds`.
      pool: As for `check_bounds`.
      nonconformity: As for `check_bounds`.
      num_splits: As for `check_bounds`.
      **spec: As for `check_bounds`.

    Returns:
      The measured risks, their bounds and the verdict on each.

    Raises:
      ValueError: As `check_bounds`.
    """

    def measure(ready: _Prepared, law: SplitLaw, num_test: int) -> SplitMetrics:
        return stale_splits(
            ready.split_key,
            ready.entries,
            ready.correct,
            ready.ties,
            spec["num_calibration"],
            ready.budget,
            num_splits,
        )

    return _check(key, pool, nonconformity, measure, **spec)


def standardised(distance: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Distance in standard errors. Use this when a mean is compared with an exact value.

    0 where there is none, infinite where there is one and no error.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / error)


def infeasible_note(alpha: Fraction, num_calibration: int) -> str:
    """What makes an alpha feasible; empty where it is. Use this when a table shows its alphas."""
    smallest = guarantees.smallest_calibration_size(alpha)
    return f"threshold +inf: needs n >= {smallest}" if smallest > num_calibration else ""


def _histogram_at(
    level: Fraction, levels: list[Fraction], metrics: SplitMetrics, laws: RiskLaws
) -> RiskHistogram | None:
    """Test risk over splits at one level and its exact law in the same bins.

    Trimmed to the bins where either is; None without the level.
    """
    if level not in levels:
        return None
    row = levels.index(level)
    edges, share, law = metrics.edges[row], metrics.share[row], laws.laws[row]
    exact_share = np.zeros(len(share))
    if law is not None:
        # A value on an edge belongs to the bin below it, in the law as in the histogram of the
        # splits.
        support, probability = law
        bins = np.clip(np.searchsorted(edges, support - 1e-12) - 1, 0, len(share) - 1)
        exact_share += np.bincount(bins, probability, len(share))
    nonzero = np.flatnonzero((share > 0) | (exact_share > 1e-6))
    first, last = nonzero[0], nonzero[-1] + 1
    return RiskHistogram(
        edges[first : last + 1],
        share[first:last],
        exact_share[first:last],
        float(metrics.mean["risk"][row]),
    )
