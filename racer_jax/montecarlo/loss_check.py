"""Are the bounds kept? For bounded losses, and for the calibrated stop of a chain of calls.

Results have the form of `check_bounds`, so that they are shown and judged alike.
"""

from typing import Literal, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.core.keys import check_key
from racer_jax.core.losses import TICKS, Against, SetLoss, grade_loss
from racer_jax.core.nonconformity import NONCONFORMITIES, NullMode
from racer_jax.core.nonconformity import tie_break as second_keys
from racer_jax.core.risk_levels import exact_alphas, miss_budget
from racer_jax.montecarlo.bound_check import (
    BoundCheck,
    BoundSpec,
    ScoredPool,
    infeasible_note,
    standardised,
    verdicts,
)
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.loss_splits import Progress, exact_loss_means, loss_trials
from racer_jax.montecarlo.step_functions import Pool
from racer_jax.montecarlo.trials import stream_trials
from racer_jax.risk_control.bounds import risk_bounds
from racer_jax.risk_control.loss_guarantees import loss_bounds

GradeLoss = Literal["grade", "shortfall"]
# What each compares the best called grade with.
GRADE_LOSSES: dict[str, Against] = {"grade": "perfect", "shortfall": "pool"}


class _Measured(NamedTuple):
    """What splits gave, float64 `[a]` each; errors are 0 where all splits were taken."""

    loss: np.ndarray
    error: np.ndarray
    std: np.ndarray
    size: np.ndarray
    abstention: np.ndarray
    reached: np.ndarray


def _measured(
    key: jax.Array,
    steps: SetLoss,
    alphas: list[str],
    num_calibration: int,
    num_splits: int,
    progress: Progress,
) -> _Measured:
    """Means over random splits, or over all of them."""
    if num_splits == 0:
        law = exact_loss_means(steps, alphas, num_calibration=num_calibration)
        unknown = np.full(len(alphas), np.nan)
        return _Measured(law.loss, np.zeros(len(alphas)), unknown, *law[1:])
    trials = loss_trials(
        key,
        steps,
        alphas,
        num_calibration=num_calibration,
        num_trials=num_splits,
        progress=progress,
    )
    std = trials.loss.std(axis=0, ddof=1)
    return _Measured(
        trials.loss.mean(axis=0),
        std / np.sqrt(num_splits),
        std,
        trials.size.mean(axis=0),
        trials.abstention.mean(axis=0),
        np.asarray(trials.reached.all(axis=0)),
    )


class _Compared(NamedTuple):
    """What a verdict looks at; see `BoundCheck`."""

    risk: np.ndarray
    risk_error: np.ndarray
    exact: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    lower_applies: np.ndarray


def check_losses(
    key: jax.Array,
    pool: ScoredPool,
    graded: np.ndarray,
    nonconformity: str,
    loss: GradeLoss,
    *,
    num_splits: int,
    progress: Progress = lambda _: None,
    **spec: Unpack[BoundSpec],
) -> BoundCheck:
    """Splits a pool at random and compares its mean test loss with what is promised.

    Args:
      key: A typed PRNG key.
      pool: Queries with scores.
      graded: How good each answer is, `[n, m]` in [0, 1].
      nonconformity: Name of a nonconformity score, or of what `matrix` holds.
      loss: `grade`, 1 - the best grade called, or `shortfall`, by how much it is below the best of
        the pool.
      num_splits: Number of splits, at least 2; 0 takes all there are, of a pool small enough to
        enumerate them.
      progress: Called with the number of splits done since the last call.
      **spec: The fields of `BoundSpec`; plans are not padded, so `size` has no effect.

    Returns:
      The `BoundCheck`; there is no closed law, so `exact` is NaN unless all splits were taken, and
      so are `sharp` and the avoidable misses. A level that no threshold reaches in some split is
      `infeasible`.

    Raises:
      ValueError: If a grade is missing or out of range, the parts do not fit, or there are too many
        splits to enumerate.

    Use this when answers are graded: `check_bounds` is for right and wrong.
    """
    check_key(key)
    num_calibration, null = spec["num_calibration"], spec.get("null", "paper")
    alphas, matrix = tuple(spec["alphas"]), spec.get("matrix")
    tie_break = spec.get("tie_break", True)
    if not np.isfinite(graded).all() or (graded < 0).any() or (graded > 1).any():
        raise ValueError(
            f"grades of pool {pool.name!r} must be in [0, 1], got "
            f"{np.nanmin(graded):g} to {np.nanmax(graded):g} and {int(np.isnan(graded).sum())} "
            "missing"
        )
    num_test = len(pool.correct) - num_calibration
    if num_calibration < 1 or num_test < 1:
        raise ValueError(f"pool {pool.name!r} of {len(pool.correct)} queries is too small")
    tie_key, split_key = jax.random.split(key)
    entries = jnp.asarray(matrix) if matrix is not None else _made(pool, nonconformity, null)
    ties = second_keys(tie_key, entries.shape) if tie_break else None
    steps = grade_loss(entries, graded, ties, against=GRADE_LOSSES[loss])
    measured = _measured(split_key, steps, list(alphas), num_calibration, num_splits, progress)
    bounds = loss_bounds(list(alphas), num_calibration, 1, max(float(steps.largest_drop), 1e-9))
    whole = tie_break and bool((np.asarray(steps.start) == TICKS).all())
    reached = np.asarray(measured.reached)
    unknown = np.full(len(alphas), np.nan)
    means = _Compared(
        risk=measured.loss,
        risk_error=measured.error,
        exact=unknown if num_splits else measured.loss,
        lower=bounds.lower,
        upper=bounds.upper,
        lower_applies=reached & whole,
    )
    verdict = verdicts(means, spec["z_limit"], null)
    levels = exact_alphas(alphas)[0]
    out_of_reach = "in some splits no threshold loses as little on the calibration queries"
    notes = [
        infeasible_note(level, num_calibration) or ("" if possible else out_of_reach)
        for level, possible in zip(levels, reached, strict=True)
    ]
    exact_size = unknown if num_splits else measured.size
    over = np.minimum(means.upper - means.risk, 0)
    return BoundCheck(
        pool=pool.name,
        nonconformity=nonconformity,
        num_calibration=num_calibration,
        num_test=num_test,
        num_splits=num_splits,
        alpha=means.upper,
        risk=means.risk,
        risk_std=measured.std,
        risk_error=means.risk_error,
        lower=means.lower,
        upper=means.upper,
        lower_applies=means.lower_applies,
        sharp=unknown,
        exact=means.exact,
        exact_std=unknown,
        z=np.where(reached, standardised(-over, means.risk_error), np.nan),
        size=measured.size,
        exact_size=exact_size,
        abstention=measured.abstention,
        avoidable_miss=unknown,
        verdict=[
            name if possible or name == "PASS" else "infeasible"
            for name, possible in zip(verdict, reached, strict=True)
        ],
        note=notes,
        histogram=None,
    )


def _made(pool: ScoredPool, nonconformity: str, null: NullMode) -> jax.Array:
    """The nonconformity of a pool `[n, m + 1]`."""
    return NONCONFORMITIES[nonconformity](jnp.asarray(pool.scores), null)


def check_stops(
    key: jax.Array,
    name: str,
    loss: str,
    pool: Pool,
    *,
    num_splits: int,
    progress: Progress = lambda _: None,
    **spec: Unpack[BoundSpec],
) -> BoundCheck:
    """Splits logged paths at random and compares the mean risk of their envelope with its law.

    Args:
      key: A typed PRNG key.
      name: Of the pool.
      loss: The loss, for the label.
      pool: The paths in rank space, ties broken, with the metrics `calls` and `abstained`, from
        `Paths.pool`.
      num_splits: Number of splits; 0 for the exact law of all of them.
      progress: As of `check_losses`.
      **spec: `num_calibration`, `alphas` and `z_limit`, as of `BoundSpec`.

    Returns:
      The `BoundCheck`; `size` is the number of calls, `avoidable_miss` the loss that stopping did
      incur, which is at most that of the envelope, where the pool has it.

    Raises:
      ValueError: If the parts do not fit.

    Use this when a calibrated stop is to be held against its theorem.
    """
    check_key(key)
    num_calibration = spec["num_calibration"]
    levels = exact_alphas(tuple(spec["alphas"]))[0]
    budget = miss_budget(levels, num_calibration)
    law = pool_law(pool, num_calibration=num_calibration, budget=budget)
    spread, means = law.risk_std, {"risk": law.risk_mean, **law.extra_mean}
    if num_splits:
        summaries = stream_trials(
            key,
            pool,
            num_calibration=num_calibration,
            budget=budget,
            num_trials=num_splits,
            bins=64,
            progress=progress,
        )
        spread = summaries["risk"].std
        means = {metric: summary.mean for metric, summary in summaries.items()}
    bounds = risk_bounds(levels, num_calibration)
    sharp = (budget + 1) / (num_calibration + 1)
    error = spread / np.sqrt(num_splits) if num_splits else np.zeros(len(levels))
    compared = _Compared(
        means["risk"],
        error,
        law.risk_mean,
        bounds.lower,
        bounds.upper,
        np.abs(law.risk_mean - sharp) < 1e-9,
    )
    distance = compared.risk - compared.exact
    distance[np.abs(distance) < 1e-12] = 0.0
    unknown = np.full(len(levels), np.nan)
    return BoundCheck(
        pool=name,
        nonconformity=loss,
        num_calibration=num_calibration,
        num_test=pool.num_queries - num_calibration,
        num_splits=num_splits,
        alpha=bounds.upper,
        risk=compared.risk,
        risk_std=spread,
        risk_error=error,
        lower=bounds.lower,
        upper=bounds.upper,
        lower_applies=compared.lower_applies,
        sharp=sharp,
        exact=compared.exact,
        exact_std=law.risk_std,
        z=standardised(distance, error),
        size=means["calls"],
        exact_size=law.extra_mean["calls"],
        abstention=means["abstained"],
        avoidable_miss=means.get(loss, unknown),
        verdict=verdicts(compared, spec["z_limit"], "paper"),
        note=[infeasible_note(level, num_calibration) for level in levels],
        histogram=None,
    )
