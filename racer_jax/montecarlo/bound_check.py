"""Are the bounds kept? A pool is split at random again and again, and the mean test risk compared with its promises."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from racer_jax.core.calibration import calibrate, critical_scores
from racer_jax.core.nonconformity import NullMode, gap, inverse_probability
from racer_jax.core.nonconformity import tie_break as second_keys
from racer_jax.core.prediction_sets import (
    abstains,
    avoidably_missed,
    misrouted,
    prediction_sets,
    set_size,
)
from racer_jax.montecarlo.exact import SplitLaw, pool_law
from racer_jax.montecarlo.replay import split_masks
from racer_jax.montecarlo.step_functions import Pool, pool_steps
from racer_jax.montecarlo.trials import stream_trials
from racer_jax.risk_control import bounds as guarantees

SCORES = {"gap": gap, "inverse_probability": inverse_probability}
# The risk level whose test risks are kept as a histogram, as in the paper's figures.
HISTOGRAM_ALPHA = "0.1"

Progress = Callable[[int], object]


class ScoredPool(NamedTuple):
    """Labelled queries with the scores of a router.

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
        share of queries nobody can answer.
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


class Measured(NamedTuple):
    """What the splits of one pool and score gave, by alpha.

    Attributes:
      num_splits: Number of splits.
      mean: Metric -> mean over splits `[a]`.
      risk_std: Standard deviation of the test risk over splits `[a]`.
      edges: Edges of the bins of the test risk `[a, h + 1]`.
      share: Share of the splits in each bin `[a, h]`.
    """

    num_splits: int
    mean: Mapping[str, np.ndarray]
    risk_std: np.ndarray
    edges: np.ndarray
    share: np.ndarray


def fresh_splits(
    key: jax.Array,
    pool: Pool,
    num_calibration: int,
    num_validation: int,
    alphas: tuple[str, ...],
    num_splits: int,
    progress: Progress,
) -> Measured:
    """Exchangeable splits, as the guarantee asks for."""
    summaries = stream_trials(
        key,
        pool,
        num_calibration=num_calibration,
        num_validation=num_validation,
        alpha=alphas,
        num_trials=num_splits,
        bins=64,
        progress=progress,
    )
    risk = summaries["risk"]
    means = {name: summary.mean for name, summary in summaries.items()}
    return Measured(num_splits, means, risk.std, risk.edges, risk.histogram / num_splits)


def exact_splits(law: SplitLaw, num_test: int) -> Measured:
    """All splits at once: the exact law in the place of what a sample of splits would give."""
    means = {
        "risk": law.risk_mean,
        "size": law.size_mean,
        "abstention": law.abstention_mean,
        "avoidable_miss": law.avoidable_miss_mean,
    }
    half = 0.5 / num_test  # the test risk takes whole multiples of 1 / n_test: each is a bin
    edges = np.concatenate([law.risk_support - half, law.risk_support[:, -1:] + half], axis=1)
    return Measured(0, means, law.risk_std, edges, law.risk_probability)


@partial(jax.jit, static_argnames="alphas")
def stale_trials(
    masks: jax.Array,
    nonconformity: jax.Array,
    stale: jax.Array,
    correct: jax.Array,
    ties: jax.Array | None,
    alphas: tuple[str, ...],
) -> dict[str, jax.Array]:
    """Splits whose test scores come from another router than the calibration scores: metrics `[s, a]`.

    Plain use of the public functions, one split at a time: calibrate on the mask, predict on the
    rest.
    """
    critical = critical_scores(nonconformity, correct, ties)

    def one_split(mask: jax.Array) -> dict[str, jax.Array]:
        sets = prediction_sets(stale, calibrate(critical, alphas, mask=mask), ties)
        metrics = {
            "risk": misrouted(sets, correct),
            "size": set_size(sets),
            "abstention": abstains(sets),
            "avoidable_miss": avoidably_missed(sets, correct),
        }
        return {
            name: jnp.where(mask, 0, values).sum(-1) / (~mask).sum()
            for name, values in metrics.items()
        }

    trials: dict[str, jax.Array] = lax.map(one_split, masks)
    return trials


def stale_splits(
    key: jax.Array,
    nonconformity: jax.Array,
    correct: np.ndarray,
    ties: jax.Array | None,
    num_calibration: int,
    alphas: tuple[str, ...],
    num_splits: int,
) -> Measured:
    """Splits whose exchangeability is broken: each test query is routed by the scores of some other query."""
    rows_key, split_key = jax.random.split(key)
    stale = nonconformity[jax.random.permutation(rows_key, len(correct))]
    masks = split_masks(
        split_key, jnp.arange(num_splits), num_calibration=num_calibration, num_queries=len(correct)
    )
    trials = stale_trials(masks, nonconformity, stale, jnp.asarray(correct), ties, alphas)
    values = {name: np.asarray(value, np.float64) for name, value in trials.items()}
    binned = [np.histogram(column, bins=32) for column in values["risk"].T]
    return Measured(
        num_splits,
        {name: value.mean(0) for name, value in values.items()},
        values["risk"].std(0, ddof=1),
        np.stack([edges for _, edges in binned]),
        np.stack([counts for counts, _ in binned]) / num_splits,
    )


def verdicts(check: BoundCheck, z_limit: float, null: str) -> list[str]:
    """By alpha; FAIL is `z_limit` errors above the upper bound, below the lower, or off the law."""
    margin = z_limit * check.risk_error + 1e-12
    infeasible = (check.exact > check.upper + 1e-12) & (null == "never")
    failed = (check.risk > check.upper + margin) | (np.abs(check.risk - check.exact) > margin)
    failed |= check.lower_applies & (check.risk < check.lower - margin)
    return [
        "infeasible" if i else "FAIL" if f else "PASS"
        for i, f in zip(infeasible, failed, strict=True)
    ]


def check_bounds(
    key: jax.Array,
    pool: ScoredPool,
    nonconformity: str,
    *,
    num_calibration: int,
    alphas: Sequence[str],
    num_splits: int,
    z_limit: float,
    num_validation: int = 0,
    null: NullMode = "paper",
    tie_break: bool = True,
    stale: bool = False,
    matrix: np.ndarray | None = None,
    progress: Progress = lambda _: None,
) -> BoundCheck:
    r"""Splits a pool at random again and again and compares the mean test risk with what is promised.

    Args:
      key: A typed PRNG key.
      pool: Labelled queries with scores.
      nonconformity: `gap` or `inverse_probability`, or the name of what `matrix` holds.
      num_calibration: n, the calibration queries of a split.
      alphas: Risk levels, as decimals.
      num_splits: Number of splits; 0 takes the exact laws in their place.
      z_limit: Number of standard errors beyond which a mean counts as off.
      num_validation: Queries of a split that neither calibrate nor test.
      null: The null mode.
      tie_break: Whether ties are broken exactly; the lower bound and the sharp law need it.
      stale: Break exchangeability: the test queries are routed by the scores of other queries.
      matrix: Nonconformity `[n, m + 1]`, null model last, that is not to be made from the scores.
      progress: Called with the number of splits done since the last call.

    Returns:
      The `BoundCheck`.

    Raises:
      ValueError: If `num_calibration` leaves no part for one side, or an alpha is out of range.

    References:
      Theorems 4.3 and 4.5 of the paper; `racer_jax.montecarlo.exact` for the law.
    """
    num_test = len(pool.correct) - num_calibration - num_validation
    if num_calibration < 1 or num_test < 1:
        raise ValueError(
            f"pool {pool.name!r} of {len(pool.correct)} queries is too small: {num_calibration} would calibrate and "
            f"{num_test} test, and each part needs at least one"
        )
    alphas = tuple(alphas)
    tie_key, split_key = jax.random.split(key)
    made = SCORES[nonconformity](pool.scores, null) if matrix is None else jnp.asarray(matrix)
    ties = second_keys(tie_key, made.shape) if tie_break else None
    steps = pool_steps(made, pool.correct, ties)
    law = pool_law(steps, num_calibration=num_calibration, alpha=alphas)
    if num_splits == 0:
        measured = exact_splits(law, num_test)
    elif stale:
        measured = stale_splits(
            split_key, made, pool.correct, ties, num_calibration, alphas, num_splits
        )
        progress(num_splits)
    else:
        measured = fresh_splits(
            split_key, steps, num_calibration, num_validation, alphas, num_splits, progress
        )

    bounds = guarantees.risk_bounds(alphas, num_calibration)
    risk = measured.mean["risk"]
    error = (
        measured.risk_std / np.sqrt(measured.num_splits)
        if measured.num_splits
        else np.zeros_like(risk)
    )
    distance = risk - law.risk_mean
    distance[np.abs(distance) < 1e-12] = 0.0
    sharp = guarantees.sharp_risk(alphas, num_calibration)
    lower_applies = np.abs(law.risk_mean - sharp) < 1e-9
    exact_std, support, probability = (
        law.risk_std,
        list(law.risk_support),
        list(law.risk_probability),
    )
    # a smaller test part has the same mean; without ties its law depends on the sizes alone
    if num_validation:
        laws = [guarantees.split_risk_law(alpha, num_calibration, num_test) for alpha in alphas]
        exact_std = np.where(lower_applies, [law.std for law in laws], np.nan)
        support, probability = [law.risk for law in laws], [law.probability for law in laws]
    check = BoundCheck(
        pool=pool.name,
        nonconformity=nonconformity,
        num_calibration=num_calibration,
        num_test=num_test,
        num_splits=measured.num_splits,
        alpha=np.array([float(a) for a in alphas]),
        risk=risk,
        risk_std=measured.risk_std,
        risk_error=error,
        lower=bounds.lower,
        upper=bounds.upper,
        lower_applies=lower_applies,
        sharp=sharp,
        exact=law.risk_mean,
        exact_std=exact_std,
        z=standardised(distance, error),
        size=measured.mean["size"],
        exact_size=law.size_mean,
        abstention=measured.mean["abstention"],
        avoidable_miss=measured.mean["avoidable_miss"],
        verdict=[],
        note=[infeasible_note(a, num_calibration) for a in alphas],
        histogram=None,
    )
    check = check._replace(verdict=verdicts(check, z_limit, null))
    if HISTOGRAM_ALPHA not in alphas:
        return check
    row = alphas.index(HISTOGRAM_ALPHA)
    known = lower_applies[row] or not num_validation
    return check._replace(
        histogram=histogram(
            measured, row, support[row] if known else None, probability[row] if known else None
        )
    )


def standardised(distance: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Distance in standard errors; 0 where there is no distance, infinite where there is one and no error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / error)


def infeasible_note(alpha: str, num_calibration: int) -> str:
    """What it would take to make an alpha feasible; empty where it is."""
    needed = guarantees.smallest_calibration_size(alpha)
    return f"threshold +inf: needs n >= {needed}" if needed > num_calibration else ""


def histogram(
    measured: Measured, row: int, support: np.ndarray | None, probability: np.ndarray | None
) -> RiskHistogram:
    """Test risk over splits at one alpha and its exact law in the same bins, trimmed to where either is."""
    edges, share = measured.edges[row], measured.share[row]
    expected = np.zeros(len(share))
    if support is not None and probability is not None:
        # A value on an edge belongs to the bin below it, in the law as in the histogram of the
        # splits.
        bins = np.clip(np.searchsorted(edges, support - 1e-12) - 1, 0, len(share) - 1)
        expected += np.bincount(bins, probability, len(share))
    used = np.flatnonzero((share > 0) | (expected > 1e-6))
    kept = slice(used[0], used[-1] + 1)
    return RiskHistogram(
        edges[kept.start : kept.stop + 1],
        share[kept],
        expected[kept],
        float(measured.mean["risk"][row]),
    )
