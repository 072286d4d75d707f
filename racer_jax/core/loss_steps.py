"""The kernels of the losses: their steps in ticks, and what is measured on them (see `losses`)."""

from fractions import Fraction
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from racer_jax.core.float_keys import common_dtype, float_keys

TICKS = 5_040_000


def ticks_of(values: jax.Array, bound: Fraction) -> jax.Array:
    """Numbers in [0, bound] as whole ticks, int32, to the nearest; any other, or NaN, is the bound.

    Use this when numbers are to be added up exactly.
    """
    ticks = jnp.rint(values.astype(jnp.float32) * np.float32(float(TICKS / bound)))
    inside = (ticks >= 0) & (ticks <= np.float32(TICKS))
    return jnp.where(inside, ticks, np.float32(TICKS)).astype(jnp.int32)


@partial(jax.jit, static_argnames="bound", inline=True)
def in_units_of(ticks: jax.Array, bound: Fraction) -> jax.Array:
    """Ticks as a loss, float32.

    Use this when ticks are shown to people.
    """
    # By one number the compiler would multiply with its inverse, and half of all ticks would
    # not be a half: it must not see that the divisors are equal.
    per_unit = lax.optimization_barrier(jnp.full(ticks.shape, float(TICKS / bound), jnp.float32))
    loss: jax.Array = ticks.astype(jnp.float32) / per_unit
    return loss


@partial(jax.jit, static_argnames="bound", inline=True)
def full_of(step: jax.Array, drop: jax.Array, start: jax.Array, bound: Fraction) -> jax.Array:
    """The loss of the set of every model.

    Use this when you want to know how low a loss can go.
    """
    lost = jnp.where(step < jnp.inf, drop, 0).sum(axis=-1, dtype=jnp.int32)
    left: jax.Array = in_units_of(start - lost, bound)
    return left


@jax.jit
def in_order(
    entries: jax.Array, tie: jax.Array | None
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """Each query's entries in the order in which they enter the set, and their columns.

    Use this when a loss falls as models enter.
    """
    column = jnp.broadcast_to(jnp.arange(entries.shape[-1], dtype=jnp.int32), entries.shape)
    keys = [float_keys(entries), *([] if tie is None else [tie]), column]
    order = lax.sort(keys, dimension=-1, num_keys=len(keys))[-1]
    in_order = jnp.take_along_axis(entries, order, axis=-1)
    return in_order, None if tie is None else jnp.take_along_axis(tie, order, axis=-1), order


@partial(jax.jit, static_argnames=("bound", "against"))
def grade_steps(
    entries: jax.Array, tie: jax.Array | None, values: jax.Array, bound: Fraction, against: str
) -> tuple[jax.Array, ...]:
    """Start, steps, drops, models (and ties) of the best grade minus the best one so far.

    Use this when the arguments of `grade_loss` were checked.
    """
    nothing = ~(values > 0).any(axis=-1, keepdims=True)
    # In ticks, which are whole numbers: a bound such as 0.3 is none of 16 bits.
    null = jnp.where(nothing, np.int32(TICKS), np.int32(0))
    grades = jnp.concatenate([ticks_of(values, bound), null], axis=-1)
    goal = jnp.full(values.shape[:-1], TICKS, jnp.int32)
    if against == "pool":
        goal = grades.max(axis=-1)
    step, second, order = in_order(entries, tie)
    best = lax.cummax(jnp.take_along_axis(grades, order, axis=-1), axis=grades.ndim - 1)
    drop = jnp.diff(best, axis=-1, prepend=0)
    parts = (goal, step, drop, order)
    return parts if second is None else (*parts, second)


def sets_by_size(numpy: Any, entries: Any, order: Any) -> Any:
    """The sets of each query from none to all of its models, by NumPy or JAX, `[m + 2, n, m + 1]`.

    Use this when a loss is a function of sets.
    """
    place = numpy.argsort(order, axis=-1)
    sizes = numpy.arange(entries.shape[-1] + 1)[:, None, None]
    return (place[None] < sizes) & (entries < numpy.inf)[None]


@partial(jax.jit, static_argnames=("bound", "is_envelope"), inline=True)
def falls(
    values: jax.Array, bound: Fraction, is_envelope: bool = False
) -> tuple[jax.Array, jax.Array]:
    """The first of losses `[n, s + 1]` and how much each further one is lower, in ticks.

    Use this when losses were measured at every size.

    Args:
      values: The losses.
      bound: The largest there can be.
      is_envelope: Whether each counts as the largest of itself and those after it.
    """
    ticks = ticks_of(values, bound)
    if is_envelope:
        ticks = lax.cummax(ticks, axis=ticks.ndim - 1, reverse=True)
    return ticks[:, 0], -jnp.diff(ticks, axis=-1)


@partial(jax.jit, static_argnames="most", inline=True)
def weighted_steps(
    drop: jax.Array, start: jax.Array, weights: jax.Array, most: Fraction
) -> tuple[jax.Array, jax.Array]:
    """Start and drops of losses times weights.

    Use this when the arguments of `weighted_loss` were checked.
    """
    # The loss after each step, so that its rounding is that of one number and not of a sum.
    after = start[..., None] - jnp.cumsum(drop, axis=-1, dtype=jnp.int32)
    before_and_after = jnp.concatenate([start[..., None], after], axis=-1)
    ticks = product(before_and_after, ticks_of(weights, most)[..., None])
    return ticks[..., 0], -jnp.diff(ticks, axis=-1)


def product(left: jax.Array, right: jax.Array) -> jax.Array:
    """The product left * right / TICKS to the nearest, in 32 bits: long multiplication.

    The right factor is read bit by bit from its highest; what is carried is (quotient, remainder).

    Use this when a loss is multiplied by a share.
    """
    left, right = jnp.broadcast_arrays(left, right)
    quotient, remainder = jnp.zeros_like(left), jnp.zeros_like(left)
    for shift in range(TICKS.bit_length() - 1, -1, -1):
        remainder = 2 * remainder + ((right >> shift) & 1) * left
        quotient = 2 * quotient + remainder // TICKS
        remainder = remainder % TICKS
    return quotient + (2 * remainder >= TICKS).astype(quotient.dtype)


@partial(jax.jit, static_argnames="bound", inline=True)
def lost_at_one(
    step: jax.Array,
    drop: jax.Array,
    tie: jax.Array | None,
    *limits_and_start: jax.Array,
    bound: Fraction,
) -> jax.Array:
    """The loss of each query at one threshold for all, or at those of a batch.

    Use this when thresholds are not `[n]`.
    """
    *limits, start = limits_and_start
    result: jax.Array = lost_at(step, drop, tie, start, *limits, bound=bound)
    return result


@partial(jax.jit, static_argnames="bound", inline=True)
def lost_at(
    step: jax.Array,
    drop: jax.Array,
    tie: jax.Array | None,
    start: jax.Array,
    value: jax.Array,
    second: jax.Array | None = None,
    *,
    bound: Fraction,
) -> jax.Array:
    """The loss of each query at its threshold.

    Use this when each query has a threshold.
    """

    def beside(limit: jax.Array) -> jax.Array:
        """The threshold of each query, beside its steps."""
        return jnp.broadcast_to(limit, start.shape)[..., None]

    limit = beside(value)
    dtype = common_dtype(step.dtype, limit.dtype)
    key, last = jnp.broadcast_arrays(
        float_keys(step.astype(dtype)), float_keys(limit.astype(dtype))
    )
    inside = key <= last
    if tie is not None and second is not None:
        ties, last_second = jnp.broadcast_arrays(tie, beside(second))
        inside = (key < last) | ((key == last) & (ties <= last_second))
    inside = (inside | (step == -jnp.inf)) & (step < jnp.inf)
    lost = jnp.where(inside, drop, 0).sum(axis=-1, dtype=jnp.int32)
    left: jax.Array = in_units_of(start - lost, bound)
    return left
