r"""Calibration of the threshold: the miss budget, the critical scores and Eq. 6 of the paper.

The calibrated threshold of Eq. 6 is an order statistic. With n calibration queries, the loss may be
1 on at most b = floor(alpha (n + 1)) - 1 of them (the miss budget), so lambda_hat is the (n - b)-th
smallest critical score. The budget is integer arithmetic on the decimal the user wrote; the graph
works on integers only, so another alpha never recompiles.
"""

from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import (
    as_array,
    as_binary,
    check_no_nan,
    check_tie_break,
    is_traced,
    nan_as_inf,
    on_device,
    on_host,
    rows_of_labels,
)
from racer_jax.core.float_keys import common_dtype, float_keys
from racer_jax.core.miss_ranks import ranks
from racer_jax.core.nonconformity import TieBroken, augmented_truth, value_and_tie
from racer_jax.core.order_statistics import select, select_sorted
from racer_jax.core.padding import can_pad, first_rows, padded
from racer_jax.core.placement import on_any_mesh
from racer_jax.core.risk_levels import Alpha
from racer_jax.core.threshold_parts import checked_rows, first_threshold, without_gradient

_TOP = np.uint32(0xFFFFFFFF)
# Up to this many alphas, selecting each by counting is faster than one sort, on a CPU
# (benchmarks/calibrate.py).
_MAX_SELECTED = 8


@overload
def critical_scores(
    nonconformity: ArrayLike, correct: ArrayLike, tie_break: None = None
) -> jax.Array: ...


@overload
def critical_scores(
    nonconformity: ArrayLike, correct: ArrayLike, tie_break: jax.Array
) -> TieBroken: ...


@on_any_mesh
def critical_scores(
    nonconformity: ArrayLike, correct: ArrayLike, tie_break: jax.Array | None = None
) -> jax.Array | TieBroken:
    r"""Critical scores c(x) = min over m in Y~(x) of E(x, m).

    c(x) is the smallest threshold at which the set is not a miss: the loss of Eq. 5 is
    1{c(x) > lambda}.

    Args:
      nonconformity: E(x, m) of the augmented pool, floating, `[..., m + 1]`, null model last.
      correct: Whether each real model is right, bool or 0/1, `[..., m]`.
      tie_break: Optional second keys, uint32 `[..., m + 1]`, from `tie_break`; they order equal E.

    Returns:
      `[...]`; with a tie-break a `TieBroken` pair of `[...]`. Under `jit`, where values cannot be
      refused, NaN counts as +inf, and so does a row with labels other than 0 and 1: as a miss.

    Raises:
      TypeError: If `nonconformity` is not floating, `correct` not boolean or 0/1, or `tie_break`
        not uint32.
      ValueError: If the shapes do not fit, nonconformity is NaN, or `correct` is not 0/1.

    Use this when you have labelled calibration queries: `calibrate` takes the result.

    >>> from racer_jax import gap
    >>> nonconformity = gap(jnp.array([[0.25, 0.75], [0.5, 0.125]]))
    >>> critical_scores(nonconformity, jnp.array([[1, 0], [0, 0]])).tolist()
    [0.5, 0.0]
    """
    nonconformity = as_array("nonconformity", nonconformity)
    check_no_nan("nonconformity", nonconformity)
    right = as_binary("correct", correct)
    if right.ndim < 1 or right.shape[-1] < 1:
        raise ValueError(
            f"correct must have shape [..., m] with at least one model, got {right.shape}"
        )
    if nonconformity.shape != (*right.shape[:-1], right.shape[-1] + 1):
        raise ValueError(
            f"nonconformity must have shape [..., m + 1] where correct has [..., m]: got "
            f"{nonconformity.shape} and {right.shape}; the null model is the last column"
        )
    if tie_break is not None:
        check_tie_break(tie_break, nonconformity.shape)
    nonconformity = nan_as_inf(nonconformity)
    if (is_labelled := rows_of_labels(correct, right)) is not None:
        nonconformity = jnp.where(is_labelled[..., None], nonconformity, jnp.inf)
    size = nonconformity.shape[0]
    pads = nonconformity.ndim == 2 and size > 0 and can_pad(nonconformity, right, tie_break)
    if pads:
        nonconformity, right = padded(nonconformity, 0, 0), padded(right, 0, False)
        tie_break = None if tie_break is None else padded(tie_break, 0, 0)
    critical: jax.Array | TieBroken = _critical(nonconformity, right, tie_break)
    return jax.tree.map(lambda x: first_rows(x, 0, size), critical) if pads else critical


@jax.jit
def _critical(
    nonconformity: jax.Array, correct: jax.Array, tie_break: jax.Array | None
) -> jax.Array | TieBroken:
    """The smallest entry of each row's truth, taken out of the row, so that a gradient can pass."""
    truth = augmented_truth(correct)
    keys = float_keys(nonconformity)
    keys = jnp.where(truth, keys, jnp.full_like(keys, np.iinfo(keys.dtype).max))
    place = jnp.argmin(keys, axis=-1, keepdims=True)
    value = jnp.take_along_axis(nonconformity, place, axis=-1)[..., 0]
    if tie_break is None:
        return value
    ties = truth & (keys == jnp.take_along_axis(keys, place, axis=-1))
    return TieBroken(value, jnp.where(ties, tie_break, jnp.uint32(_TOP)).min(axis=-1))


def _each_selected(
    value: jax.Array, tie: jax.Array | None, mask: jax.Array | None, rank: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """`select` at each of the ranks `[..., a]`."""
    shape = value.shape if mask is None else jnp.broadcast_shapes(value.shape, mask.shape)
    rank = jnp.broadcast_to(
        rank, (*jnp.broadcast_shapes(shape[:-1], rank.shape[:-1]), rank.shape[-1])
    )
    # The loop over alphas is a map, not one more axis: each pass stays a reduction of one row.
    at, tie = lax.map(lambda k: select(value, tie, mask, k), jnp.moveaxis(rank, -1, 0))
    return jnp.moveaxis(at, 0, -1), None if tie is None else jnp.moveaxis(tie, 0, -1)


def _with_ndim(array: jax.Array, ndim: int) -> jax.Array:
    """Leading axes of length 1, so that scores shared by all masks stay one row."""
    return jnp.expand_dims(array, tuple(range(ndim - array.ndim)))


def threshold_at_rank(
    critical_scores: jax.Array,
    rank: jax.Array,
    mask: jax.Array | None = None,
    tie_break: jax.Array | None = None,
) -> jax.Array | TieBroken:
    r"""The order statistic at each rank: the jitted kernel of `calibrate`, with ranks as data.

    Args:
      critical_scores: c(x), floating, `[..., n]`.
      rank: 1-based ranks k = n - b, int32 `[..., a]`. Above the number of calibration rows the
        threshold is +inf (every model is called), below 1 it is -inf.
      mask: Which rows are calibration rows, bool `[..., n]`; None for all.
      tie_break: Second keys of the critical scores, uint32 `[..., n]`.

    Returns:
      Thresholds `[..., a]`; with a tie-break a `TieBroken` pair of them.

    Use this when you have ranks under `jit`; `threshold_at_budget` also checks its arguments.
    """
    # A compiled function takes the bytes of such arrays for numbers of this machine.
    critical_scores, rank = given("critical_scores", critical_scores), given("rank", rank)
    mask, tie_break = given("mask", mask), given("tie_break", tie_break)
    threshold: jax.Array | TieBroken = _at_rank(critical_scores, rank, mask, tie_break)
    return threshold


@jax.jit
@on_any_mesh
def _at_rank(
    critical_scores: jax.Array,
    rank: jax.Array,
    mask: jax.Array | None = None,
    tie_break: jax.Array | None = None,
) -> jax.Array | TieBroken:
    """`threshold_at_rank`, of arrays that JAX takes."""
    dtype = critical_scores.dtype
    critical_scores = without_gradient(critical_scores)
    # exact, and of a width that has integers
    value = critical_scores.astype(common_dtype(dtype, jnp.float32))
    ndim = max(value.ndim, 0 if mask is None else mask.ndim)
    value, rank = _with_ndim(value, ndim), _with_ndim(rank, ndim)
    tie_break = None if tie_break is None else _with_ndim(tie_break, ndim)
    mask = None if mask is None else _with_ndim(mask, ndim)
    shape = value.shape if mask is None else jnp.broadcast_shapes(value.shape, mask.shape)
    num = (
        jnp.int32(shape[-1]) if mask is None else jnp.sum(mask, axis=-1, dtype=jnp.int32)[..., None]
    )
    inside = jnp.clip(rank, 1, jnp.maximum(num, 1))
    if rank.shape[-1] <= _MAX_SELECTED:
        # An accelerator sorts a long row in less time than it takes to start the passes over it.
        at, tie = lax.platform_dependent(
            value, tie_break, mask, inside, cpu=_each_selected, default=select_sorted
        )
    else:
        at, tie = select_sorted(value, tie_break, mask, inside)
    above, below = rank > num, rank < 1
    at = jnp.where(above, jnp.inf, jnp.where(below, -jnp.inf, at)).astype(dtype)
    if tie is None:
        return at
    return TieBroken(at, jnp.where(above, _TOP, jnp.where(below, jnp.uint32(0), tie)))


@overload
def calibrate(
    critical_scores: ArrayLike,
    alpha: Alpha,
    mask: ArrayLike | None = None,
    tie_break: None = None,
    *,
    weights: ArrayLike | None = None,
    query_weight: ArrayLike | None = None,
) -> jax.Array: ...


@overload
def calibrate(
    critical_scores: TieBroken,
    alpha: Alpha,
    mask: ArrayLike | None = None,
    tie_break: None = None,
    *,
    weights: ArrayLike | None = None,
    query_weight: ArrayLike | None = None,
) -> TieBroken: ...


@overload
def calibrate(
    critical_scores: ArrayLike,
    alpha: Alpha,
    mask: ArrayLike | None = None,
    *,
    tie_break: jax.Array,
    weights: ArrayLike | None = None,
    query_weight: ArrayLike | None = None,
) -> TieBroken: ...


@on_any_mesh
def calibrate(
    critical_scores: ArrayLike | TieBroken,
    alpha: Alpha,
    mask: ArrayLike | None = None,
    tie_break: jax.Array | None = None,
    *,
    weights: ArrayLike | None = None,
    query_weight: ArrayLike | None = None,
) -> jax.Array | TieBroken:
    r"""Calibrated threshold: lambda_hat = inf{lambda : n/(n+1) Rhat_n(lambda) + 1/(n+1) <= alpha}.

    If the calibration queries and a new one are exchangeable, the chance that the set {m : E(x, m)
    <= lambda_hat} of the new query holds no model of its augmented truth set is at most alpha. With
    the tie-break it is exactly floor(alpha (n + 1)) / (n + 1), where the threshold is sure to be
    finite. Entries of +inf, as of the null mode `never` or under `cap_models`, are in no set that
    `prediction_sets` makes: where they make the threshold +inf, nothing is promised.

    Pure and deterministic; works under the caller's `jit` and `vmap`, where a new alpha does not
    recompile if it is given as an array. Prefer a Python number: its budget is exact, while that of
    a traced alpha is rounded to the safe side (never one miss too many, at times one too few),
    and one outside (0, 1) gives +inf.

    Args:
      critical_scores: c(x) of the calibration queries, floating, `[..., n]`, or the `TieBroken`
        pair of `critical_scores`. Infinite values are allowed, NaN is not; a traced one is a miss.
      alpha: One risk level in (0, 1), or several `[a]`.
      mask: Which rows are calibration rows, bool or 0/1, `[..., n]`; all by default. The form that
        vmaps over splits.
      tie_break: Second keys of the critical scores, uint32 `[..., n]`, if not given as a pair.
      weights: Under covariate shift, how likely each calibration query is among those to come, up
        to a factor, finite and above 0, `[..., n]` with n up to 8,388,608; equal weights change
        nothing. They count in steps of 2e-7 of the largest, rounded to the safe side.
      query_weight: The weight of the query to come, `[...]`, on the same scale; by default the
        largest of the calibration queries, which is safe for queries of no more.

    Returns:
      The threshold `[...]` for one alpha, `[..., a]` for several; with a tie-break a `TieBroken`
      pair of thresholds, which `prediction_sets` compares as calibration did. +inf where alpha <
      1/(n + 1): no threshold is safe, and every model is called.

    Raises:
      TypeError: If the scores are not floating, `alpha` not numeric, `mask` not 0/1, or `tie_break`
        not uint32.
      ValueError: If shapes do not fit, there is no calibration row, scores are NaN, or alpha is
        outside (0, 1).

    References:
      Eq. 6 and Theorem 4.3 of the paper; for `weights`, Tibshirani, Barber, Candes and Ramdas,
      "Conformal Prediction Under Covariate Shift", 2019, Corollary 1.

    Use this when the mean risk must be at most alpha; `threshold_at_budget` takes other budgets.

    >>> critical = jnp.arange(1.0, 100.0) / 100  # n = 99
    >>> calibrate(critical, [0.1, 0.001]).tolist()
    [0.8999999761581421, inf]
    """
    value, tie_break = value_and_tie("critical_scores", critical_scores, tie_break)
    mask, num = checked_rows(value, mask)
    if weights is not None:
        from racer_jax.core.weighted_calibration import weighted_threshold

        return weighted_threshold(value, tie_break, alpha, mask, weights, query_weight)
    if query_weight is not None:
        raise ValueError("query_weight goes with the weights of the calibration queries: got none")
    rank, scalar = ranks(alpha, num, value.shape[-1])
    threshold = _padded_threshold(value, rank, mask, tie_break)
    return first_threshold(threshold) if scalar else threshold


@overload
def threshold_at_budget(
    critical_scores: ArrayLike,
    budget: ArrayLike,
    mask: ArrayLike | None = None,
    tie_break: None = None,
) -> jax.Array: ...


@overload
def threshold_at_budget(
    critical_scores: TieBroken,
    budget: ArrayLike,
    mask: ArrayLike | None = None,
    tie_break: None = None,
) -> TieBroken: ...


@overload
def threshold_at_budget(
    critical_scores: ArrayLike,
    budget: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    tie_break: jax.Array,
) -> TieBroken: ...


@on_any_mesh
def threshold_at_budget(
    critical_scores: ArrayLike | TieBroken,
    budget: ArrayLike,
    mask: ArrayLike | None = None,
    tie_break: jax.Array | None = None,
) -> jax.Array | TieBroken:
    r"""The smallest threshold with at most so many misses on the calibration queries.

    The (n - b)-th smallest critical score for a budget of b misses: `calibrate`, from the integer
    that an alpha stands for. Works under the caller's `jit` and `vmap`, also with traced budgets.

    Args:
      critical_scores: c(x) of the calibration queries, floating, `[..., n]`, or the `TieBroken`
        pair of `critical_scores`. Infinite values are allowed, NaN is not.
      budget: Miss budgets b, integer: one `[]`, several `[a]`, or `[..., a]` with leading axes that
        broadcast against those of the mask.
      mask: Which rows are calibration rows, bool or 0/1, `[..., n]`; all by default.
      tie_break: Second keys of the critical scores, uint32 `[..., n]`, if not given as a pair.

    Returns:
      The threshold `[...]` for one budget, `[..., a]` for several; with a tie-break a `TieBroken`
      pair. +inf where b < 0 (no threshold is safe), -inf where b >= n.

    Raises:
      TypeError: If the scores are not floating, the budget not an integer, `mask` not 0/1, or
        `tie_break` not uint32.
      ValueError: If shapes do not fit, there is no calibration row, or scores are NaN.

    References:
      Eq. 6 of the paper, solved for the number of misses.

    Use this when the budget comes from somewhere else than an average risk of alpha, such as
    `high_probability_budget`, or was computed from an alpha before.

    >>> threshold_at_budget(jnp.arange(1.0, 100.0), [9, 0, -1]).tolist()
    [90.0, 99.0, inf]
    """
    value, tie_break = value_and_tie("critical_scores", critical_scores, tie_break)
    mask, num = checked_rows(value, mask)
    budgets = budget if isinstance(budget, jax.Array) else np.asarray(given("budget", budget))
    if not jnp.issubdtype(budgets.dtype, jnp.integer):
        raise TypeError(f"budget must hold integers, got dtype {budgets.dtype}")
    scalar, size = budgets.ndim == 0, value.shape[-1]
    # Beyond n a budget says no more than n does.
    if is_traced(budgets, num):
        misses = jnp.atleast_1d(jnp.clip(budgets, -1, size)).astype(jnp.int32)
        rank = jnp.asarray(num, jnp.int32)[..., None] - misses
    else:
        levels = np.atleast_1d(np.clip(on_host(budgets), -1, size))
        rank = on_device((on_host(num)[..., None] - levels).astype(np.int32))
    threshold = _padded_threshold(value, rank, mask, tie_break)
    return first_threshold(threshold) if scalar else threshold


def _padded_threshold(
    value: jax.Array, rank: jax.Array, mask: jax.Array | None, tie_break: jax.Array | None
) -> jax.Array | TieBroken:
    """`_at_rank`, compiled for few lengths where the arrays have values.

    What is added is (+inf, the last tie), not below any score, so that it is at no rank up to n;
    and at the ranks above n the threshold is just that.
    """
    if can_pad(value, rank, mask, tie_break):
        value = padded(value, -1, np.inf)
        mask = None if mask is None else padded(mask, -1, False)
        tie_break = None if tie_break is None else padded(tie_break, -1, _TOP)
    threshold: jax.Array | TieBroken = _at_rank(value, rank, mask, tie_break)
    return threshold
