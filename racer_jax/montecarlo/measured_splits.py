"""What splits of a pool measure, drawn in three ways: exchangeable, all at once, or broken."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from racer_jax.core.calibration import critical_scores, threshold_at_budget
from racer_jax.core.prediction_sets import (
    abstains,
    avoidably_missed,
    misrouted,
    prediction_sets,
    set_size,
)
from racer_jax.montecarlo.common_size import PlanSize
from racer_jax.montecarlo.exact import SplitLaw
from racer_jax.montecarlo.replay import split_masks
from racer_jax.montecarlo.step_functions import Pool
from racer_jax.montecarlo.trials import stream_trials
from racer_jax.risk_control.bounds import split_risk_law

Progress = Callable[[int], object]


class SplitMetrics(NamedTuple):
    """What the splits of one pool and score gave, by alpha.

    Use this when you read what `fresh_splits`, `exact_splits` or `stale_splits` returns.

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
    budget: np.ndarray,
    num_splits: int,
    progress: Progress,
    size: PlanSize | None = None,
) -> SplitMetrics:
    """Exchangeable splits, as the guarantee asks for.

    Use this when the guarantee is checked as it is stated.
    """
    summaries = stream_trials(
        key,
        pool,
        num_calibration=num_calibration,
        num_validation=num_validation,
        budget=budget,
        num_trials=num_splits,
        bins=64,
        progress=progress,
        size=size,
    )
    risk = summaries["risk"]
    means = {name: summary.mean for name, summary in summaries.items()}
    return SplitMetrics(num_splits, means, risk.std, risk.edges, risk.histogram / num_splits)


def exact_splits(law: SplitLaw, num_test: int) -> SplitMetrics:
    """All splits at once: the exact law in the place of what a sample of splits would give.

    Use this when the pool is small enough for the exact law.
    """
    means = {
        "risk": law.risk_mean,
        "size": law.size_mean,
        "abstention": law.abstention_mean,
        "avoidable_miss": law.avoidable_miss_mean,
    }
    half = 0.5 / num_test  # the test risk takes whole multiples of 1 / n_test: each is a bin
    edges = np.concatenate([law.risk_support - half, law.risk_support[:, -1:] + half], axis=1)
    return SplitMetrics(0, means, law.risk_std, edges, law.risk_probability)


@jax.jit
def stale_trials(
    masks: jax.Array,
    nonconformity: jax.Array,
    stale: jax.Array,
    correct: jax.Array,
    ties: jax.Array | None,
    budget: jax.Array,
) -> dict[str, jax.Array]:
    """Metrics `[s, a]` of splits whose test scores are those of another router.

    Plain use of the public functions, one split at a time: calibrate on the mask, predict on the
    rest.

    Use this when you need single trials of a broken guarantee; `stale_splits` gives their means.
    """
    critical = critical_scores(nonconformity, correct, ties)

    def one_split(mask: jax.Array) -> dict[str, jax.Array]:
        sets = prediction_sets(stale, threshold_at_budget(critical, budget, mask), ties)
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
    nonconformity: jax.Array | np.ndarray,
    correct: np.ndarray,
    ties: jax.Array | np.ndarray | None,
    num_calibration: int,
    budget: np.ndarray,
    num_splits: int,
) -> SplitMetrics:
    """Splits that are not exchangeable.

    Each test query is routed by the scores of another query.

    Use this when you want to see that the check fails where the guarantee does not hold.
    """
    rows_key, split_key = jax.random.split(key)
    nonconformity = jnp.asarray(nonconformity)
    stale = nonconformity[jax.random.permutation(rows_key, len(correct))]
    masks = split_masks(
        split_key, jnp.arange(num_splits), num_calibration=num_calibration, num_queries=len(correct)
    )
    arrays = (masks, nonconformity, stale, jnp.asarray(correct), ties, jnp.asarray(budget))
    trials = stale_trials(*arrays)
    values = {name: np.asarray(value, np.float64) for name, value in trials.items()}
    histograms = [np.histogram(column, bins=32) for column in values["risk"].T]
    return SplitMetrics(
        num_splits,
        {name: value.mean(0) for name, value in values.items()},
        values["risk"].std(0, ddof=1),
        np.stack([edges for _, edges in histograms]),
        np.stack([counts for counts, _ in histograms]) / num_splits,
    )


class RiskLaws(NamedTuple):
    """The law of the test risk at each level; None where it is not known.

    Use this when you read what `risk_laws` returns.

    Attributes:
      std: Standard deviation, NaN where it is not known, `[a]`.
      laws: Values and their probabilities, by level.
    """

    std: np.ndarray
    laws: list[tuple[np.ndarray, np.ndarray] | None]


def risk_laws(
    levels: list[Fraction],
    law: SplitLaw,
    distinct: np.ndarray,
    num_calibration: int,
    num_validation: int,
    num_test: int,
) -> RiskLaws:
    """The laws of the test risk, where a validation part may have made the test part smaller.

    Use this when measured risks are compared with what theory says.
    """
    if not num_validation:
        laws_of_risk = zip(law.risk_support, law.risk_probability, strict=True)
        return RiskLaws(law.risk_std, list(laws_of_risk))
    # A smaller test part has the same mean; without ties its law depends on the sizes alone.
    laws = [split_risk_law(level, num_calibration, num_test) for level in levels]
    std = np.where(distinct, [level_law.std for level_law in laws], np.nan)
    return RiskLaws(
        std,
        [
            (level_law.risk, level_law.probability) if laws_of_risk else None
            for level_law, laws_of_risk in zip(laws, distinct, strict=True)
        ],
    )
