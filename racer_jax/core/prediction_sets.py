r"""The sets a threshold makes, and what is measured on them (Eq. 4 of the paper).

Every set is a prefix of the query's models in order of nonconformity: nested, growing with the
threshold.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.checks import (
    as_array,
    as_binary,
    check_no_nan,
    check_tie_break,
    nan_as_inf,
    on_device,
)
from racer_jax.core.float_keys import common_dtype, float_keys
from racer_jax.core.nonconformity import TieBroken, augmented_truth
from racer_jax.core.padding import by_rows, can_pad, first_rows, padded
from racer_jax.core.placement import on_any_mesh


@on_any_mesh
def prediction_sets(
    nonconformity: ArrayLike, threshold: ArrayLike | TieBroken, tie_break: jax.Array | None = None
) -> jax.Array:
    r"""The sets C(x) = {m in the augmented pool : E(x, m) <= lambda}.

    A model with E = +inf is in no set, not even at threshold +inf. So under the null mode `"never"`
    no set holds the null model.

    Args:
      nonconformity: E(x, m), floating, `[..., n, m + 1]`, or `[m + 1]` for a single query; null
        model last. Of the dtype that it had in calibration: rounded otherwise, scores near the
        threshold fall on the other side of it, and nothing is promised.
      threshold: lambda, floating, any shape `[...]` that broadcasts against the axes before `n`:
        `[a]` thresholds on `[n, m + 1]` give `[a, n, m + 1]`. With a tie-break the `TieBroken` pair
        that `calibrate` returned. A Python float is read in the dtype of `nonconformity`.
      tie_break: Second keys, uint32, the shape of `nonconformity`; required with, and only with, a
        `TieBroken` threshold. Pairs (E, U) are then compared lexicographically, as they were in
        calibration.

    Returns:
      bool `[..., n, m + 1]`, null model last. Under `jit`, where values cannot be refused, a model
      with NaN is in no set, and a threshold of NaN is +inf.

    Raises:
      TypeError: If an array is not floating, or `tie_break` not uint32.
      ValueError: If shapes do not fit, a value is NaN, or only one of the two is tie-broken.

    References:
      Eq. 4 of the paper.

    Use this when you have a threshold and want to know which models to call; `set_size`, `abstains`
    and `misrouted` measure the result.

    >>> prediction_sets(jnp.array([[0.0, 0.5, 0.25]]), 0.25).tolist()
    [[True, False, True]]
    """
    nonconformity = as_array("nonconformity", nonconformity)
    check_no_nan("nonconformity", nonconformity)
    if nonconformity.ndim < 1 or nonconformity.shape[-1] < 2:
        raise ValueError(
            f"nonconformity must have shape [..., m + 1] with m >= 1, got {nonconformity.shape}"
        )
    if isinstance(threshold, TieBroken) != (tie_break is not None):
        raise ValueError(
            "threshold and tie_break go together: a TieBroken threshold needs the tie_break of the "
            "queries, and a "
            "tie_break needs a threshold calibrated with one"
        )
    if isinstance(threshold, float):  # in the precision of what it is compared with
        threshold = on_device(np.asarray(threshold, nonconformity.dtype))
    value, tie = (
        threshold if isinstance(threshold, TieBroken) else (as_array("threshold", threshold), None)
    )
    if jnp.issubdtype(value.dtype, jnp.integer):
        value = value.astype(nonconformity.dtype)
    check_no_nan("threshold", value)
    value = nan_as_inf(value)
    if tie_break is not None:
        check_tie_break(tie_break, nonconformity.shape)
    inside: jax.Array
    if _pads(nonconformity, value, tie_break, tie):
        size, nonconformity = nonconformity.shape[0], padded(nonconformity, 0, 0)
        tie_break = None if tie_break is None else padded(tie_break, 0, 0)
        inside = first_rows(_inside(nonconformity, value, tie_break, tie), -2, size)
    else:
        inside = _inside(nonconformity, value, tie_break, tie)
    return inside


# Sets of more entries are not copied to cut off what was added.
_MOST_PADDED = 1 << 22


def _pads(nonconformity: jax.Array, value: jax.Array, *ties: jax.Array | None) -> bool:
    """Whether rows are padded, so that few lengths are compiled."""
    if nonconformity.ndim != 2 or nonconformity.size * max(1, value.size) > _MOST_PADDED:
        return False
    return nonconformity.shape[0] > 0 and can_pad(nonconformity, value, *ties)


@jax.jit
def _inside(
    nonconformity: jax.Array,
    value: jax.Array,
    tie_break: jax.Array | None,
    tie: jax.Array | None,
) -> jax.Array:
    """Whether each pair (E, U) is at most the threshold's, compared as integers."""
    inner = tuple(range(-min(nonconformity.ndim, 2), 0))  # [n, m + 1], or [m + 1] alone
    dtype = common_dtype(nonconformity.dtype, value.dtype)
    entry, limit = jnp.broadcast_arrays(
        nonconformity.astype(dtype), jnp.expand_dims(value.astype(dtype), inner)
    )
    key, last = float_keys(entry), float_keys(limit)
    if tie is None or tie_break is None:
        inside = key <= last
    else:
        _, second, last_tie = jnp.broadcast_arrays(entry, tie_break, jnp.expand_dims(tie, inner))
        inside = (key < last) | ((key == last) & (second <= last_tie))
    # The free null model is in every set, also where its tie-break says otherwise at threshold
    # -inf; what has E = +inf is in none.
    return (inside | (entry == -jnp.inf)) & (entry < jnp.inf)


def _check_sets(sets: ArrayLike) -> jax.Array:
    sets = as_binary("sets", sets)
    if sets.ndim < 1 or sets.shape[-1] < 2:
        raise ValueError(
            f"sets must have shape [..., m + 1] with m >= 1, null model last, got {sets.shape}"
        )
    return sets


@on_any_mesh
def set_size(sets: ArrayLike) -> jax.Array:
    """Number of models called, |C(x) minus m0|; the null model is never counted.

    Args:
      sets: bool or 0/1, `[..., m + 1]`, null model last.

    Returns:
      int32 `[...]`.

    Raises:
      TypeError: If `sets` is neither boolean nor numeric.
      ValueError: If it holds anything but 0 and 1, or has no real model.

    Use this when you want the number of calls that a set costs; `abstains` says where it is zero.

    >>> set_size(jnp.array([[True, True, True], [False, False, True]])).tolist()
    [2, 0]
    """
    sizes: jax.Array = by_rows(_set_size, _check_sets(sets))
    return sizes


@partial(jax.jit, inline=True)
def _set_size(sets: jax.Array) -> jax.Array:
    return sets[..., :-1].sum(axis=-1, dtype=jnp.int32)


@on_any_mesh
def abstains(sets: ArrayLike) -> jax.Array:
    """Whether no real model is called: the set is empty or holds the null model alone.

    Args:
      sets: bool or 0/1, `[..., m + 1]`, null model last.

    Returns:
      bool `[...]`.

    Raises:
      TypeError: If `sets` is neither boolean nor numeric.
      ValueError: If it holds anything but 0 and 1, or has no real model.

    Use this when you count the queries that get no answer; `set_size` says how many models the
    others call.

    >>> abstains(jnp.array([[True, True, True], [False, False, True]])).tolist()
    [False, True]
    """
    is_empty: jax.Array = by_rows(_abstains, _check_sets(sets))
    return is_empty


@partial(jax.jit, inline=True)
def _abstains(sets: jax.Array) -> jax.Array:
    return ~sets[..., :-1].any(axis=-1)


def _check_pair(sets: ArrayLike, correct: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Sets and the models that are right `[..., m]`, whose leading axes can be broadcast."""
    sets, correct = _check_sets(sets), as_binary("correct", correct)
    if correct.ndim < 1 or correct.shape[-1] != sets.shape[-1] - 1:
        raise ValueError(
            f"correct must have shape [..., m] where sets has [..., m + 1], got {correct.shape} "
            f"and {sets.shape}"
        )
    try:
        jnp.broadcast_shapes(sets.shape[:-1], correct.shape[:-1])
    except ValueError:
        raise ValueError(
            f"sets and correct must have leading axes that broadcast, got shapes {sets.shape} and "
            f"{correct.shape}"
        ) from None
    return sets, correct


def _with_equal_axes(sets: jax.Array, correct: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sets and the models that are right, with their leading axes broadcast."""
    batch = jnp.broadcast_shapes(sets.shape[:-1], correct.shape[:-1])
    return jnp.broadcast_to(sets, (*batch, sets.shape[-1])), jnp.broadcast_to(
        correct, (*batch, correct.shape[-1])
    )


@on_any_mesh
def misrouted(sets: ArrayLike, correct: ArrayLike) -> jax.Array:
    r"""Misrouting loss: whether C(x) holds no model of the augmented truth set.

    Its expectation is the risk that `calibrate` bounds by alpha.

    Args:
      sets: bool or 0/1, `[..., m + 1]`, null model last.
      correct: Whether each real model is right, bool or 0/1, `[..., m]`; leading axes broadcast
        against `sets`.

    Returns:
      bool `[...]`.

    Raises:
      TypeError: If an array is neither boolean nor numeric.
      ValueError: If the shapes do not fit, or an array holds anything but 0 and 1.

    References:
      Eq. 5 of the paper.

    Use this when you measure the risk on labelled queries; `avoidably_missed` leaves out the
    queries that no model can answer.

    >>> sets = jnp.array([[True, False, True], [False, True, False]])
    >>> misrouted(sets, jnp.array([[0, 1], [0, 1]])).tolist()
    [True, False]
    """
    is_miss: jax.Array = by_rows(_misrouted, *_check_pair(sets, correct))
    return is_miss


@partial(jax.jit, inline=True)
def _misrouted(sets: jax.Array, correct: jax.Array) -> jax.Array:
    sets, correct = _with_equal_axes(sets, correct)
    return ~(sets & augmented_truth(correct)).any(axis=-1)


@on_any_mesh
def avoidably_missed(sets: ArrayLike, correct: ArrayLike) -> jax.Array:
    """Whether some model could answer and none that can was called.

    The share of such queries is the avoidable-miss rate. A query that no model can answer never
    counts, so the rate, unlike the risk, does not depend on whether the null model is in a set, and
    sets of different null modes can be compared by it.

    Args:
      sets: bool or 0/1, `[..., m + 1]`, null model last.
      correct: Whether each real model is right, bool or 0/1, `[..., m]`; leading axes broadcast
        against `sets`.

    Returns:
      bool `[...]`.

    Raises:
      TypeError: If an array is neither boolean nor numeric.
      ValueError: If the shapes do not fit, or an array holds anything but 0 and 1.

    Use this when you want only the misses that calling more models would have avoided, or compare
    sets of different null modes; `misrouted` is the loss that `calibrate` bounds.
    """
    is_miss: jax.Array = by_rows(_avoidably_missed, *_check_pair(sets, correct))
    return is_miss


@partial(jax.jit, inline=True)
def _avoidably_missed(sets: jax.Array, correct: jax.Array) -> jax.Array:
    sets, correct = _with_equal_axes(sets, correct)
    return correct.any(axis=-1) & ~(sets[..., :-1] & correct).any(axis=-1)
