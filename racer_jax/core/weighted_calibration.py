r"""Calibration under covariate shift on a device: queries count by how likely they are to come.

The threshold of a query with weight w(x) is inf{lambda : (sum of w_i over c_i > lambda, plus w(x))
<= alpha (sum of w_i + w(x))}. Weights are ticks of the largest, so that sums are exact and equal
weights give `calibrate` bit for bit. What may be lost is rounded up to whole ticks, and the sum of
which alpha is a share is rounded down.
"""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax.core.checks import (
    as_array,
    check_no_nan,
    first_bad,
    is_traced,
    on_device,
    on_host,
)
from racer_jax.core.loss_calibration import (
    MOST_DENOMINATOR,
    MOST_STEPS,
    Pair,
    divided,
    threshold_at_loss,
    total,
)
from racer_jax.core.losses import TICKS, SetLoss
from racer_jax.core.miss_ranks import farey_floor, rounded_down
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.padding import can_pad, padded
from racer_jax.core.risk_levels import Alpha, exact_alphas
from racer_jax.core.threshold_parts import first_threshold


def _checked(name: str, weights: ArrayLike) -> jax.Array:
    """Weights as float32: finite and above 0, where there are values to look at."""
    values = as_array(name, weights)
    if jnp.issubdtype(values.dtype, jnp.integer):
        values = values.astype(jnp.float32)
    check_no_nan(name, values)
    if not is_traced(values):
        known = on_host(values).astype(np.float64, copy=False)
        if (bad := ~(np.isfinite(known) & (known > 0))).any():
            where = f" at {first_bad(bad)}" if known.ndim else ""
            raise ValueError(f"{name} must be finite and above 0, got {known[bad][0]:g}{where}")
    return values.astype(jnp.float32)


def weighted_threshold(
    value: jax.Array,
    tie: jax.Array | None,
    alpha: Alpha,
    mask: jax.Array | None,
    weights: ArrayLike,
    query_weight: ArrayLike | None,
) -> jax.Array | TieBroken:
    """`calibrate` with weights; its arguments, checked but for the weights.

    Use this when you call `calibrate(weights=...)`, which checks the scores first.
    """
    weight = _checked("weights", weights)
    if weight.shape[-1:] != value.shape[-1:]:
        raise ValueError(
            f"weights must have shape [..., {value.shape[-1]}] like critical_scores {value.shape}, "
            f"got {weight.shape}"
        )
    if value.shape[-1] > MOST_STEPS:
        raise ValueError(
            f"weights are for at most {MOST_STEPS:,} calibration queries, got {value.shape[-1]:,}"
        )
    query = None if query_weight is None else _checked("query_weight", query_weight)
    level, scalar = _level(alpha)
    if can_pad(value, tie, mask, weight):
        size = value.shape[-1]
        if mask is None:
            mask = on_device(np.ones(size, bool))
        value, mask = padded(value, -1, np.inf), padded(mask, -1, False)
        weight = padded(weight, -1, 1)
        tie = None if tie is None else padded(tie, -1, 0)
    threshold = _weighted_threshold(value, tie, mask, weight, query, level)
    return first_threshold(threshold) if scalar else threshold


@jax.jit
def _weighted_threshold(
    value: jax.Array,
    tie: jax.Array | None,
    mask: jax.Array | None,
    weight: jax.Array,
    query_weight: jax.Array | None,
    level: tuple[jax.Array, ...],
) -> jax.Array | TieBroken:
    """Thresholds `[..., a]`; what it is given fits together."""
    shape = jnp.broadcast_shapes(value.shape, weight.shape, () if mask is None else mask.shape)
    weight = jnp.broadcast_to(weight, shape)
    rows = jnp.ones(shape, bool) if mask is None else jnp.broadcast_to(mask, shape)
    top = jnp.where(rows, weight, 0).max(axis=-1)
    query = top
    if query_weight is not None:
        query = jnp.broadcast_to(query_weight, top.shape)
        top = jnp.maximum(top, query)
    # That the divisors of a row are equal is hidden: a product with an inverse is no quotient.
    exact = weight / lax.optimization_barrier(jnp.broadcast_to(top[..., None], shape)) * TICKS
    # Rounded up: what a query may lose is not to be understated. Rounded down: what it adds to the
    # sum of which alpha is a share.
    ticks, query_ticks = (jnp.ceil(x).astype(jnp.int32) for x in (exact, query / top * TICKS))
    high, low = total(jnp.where(rows, jnp.floor(exact).astype(jnp.int32), 0))
    query_least = jnp.floor(query / top * TICKS).astype(jnp.int32)
    high, low = high + (query_least >> 16), low + (query_least & 0xFFFF)
    high, low = high + (low >> 16), low & 0xFFFF
    most_high, most_low = _share(level, high[..., None], low[..., None])
    most_low = most_low - (query_ticks & 0xFFFF)[..., None]
    budget = (most_high - (query_ticks >> 16)[..., None] + (most_low >> 16), most_low & 0xFFFF)
    steps = jnp.broadcast_to(value, shape)[..., None]
    loss = SetLoss(
        start=ticks,
        step=steps,
        drop=ticks[..., None],
        model=jnp.zeros(steps.shape, jnp.int32),
        tie=None if tie is None else jnp.broadcast_to(tie, shape)[..., None],
        bound=Fraction(1),
    )
    return threshold_at_loss(loss, budget, rows)


def _level(alpha: Alpha) -> tuple[tuple[jax.Array, ...], bool]:
    """A known alpha as numerators and denominators, a traced one as itself; whether it is one."""
    if is_traced(alpha):
        level = jnp.asarray(alpha)
        if level.ndim > 1:
            raise ValueError(f"alpha must be a scalar or have shape [a], got shape {level.shape}")
        return (jnp.atleast_1d(level),), level.ndim == 0
    fractions, scalar = exact_alphas(alpha)
    near = [farey_floor(fraction, MOST_DENOMINATOR) for fraction in fractions]
    p = on_device(np.array([fraction.numerator for fraction in near], np.int32))
    q = on_device(np.array([fraction.denominator for fraction in near], np.int32))
    return (p, q), scalar


def _share(level: tuple[jax.Array, ...], high: jax.Array, low: jax.Array) -> Pair:
    """The floor of alpha times a number (high, low) `[..., 1]`, as a pair `[..., a]`."""
    axes = tuple(range(high.ndim - 1))
    if len(level) == 1:
        # Rounded down wherever the decimal is in doubt, as in `calibrate`.
        slack = jnp.expand_dims(rounded_down(level[0]), axes)
        number = slack * (high.astype(jnp.float32) * 2**16 + low.astype(jnp.float32))
        whole = jnp.floor(number * (1 - 2.0**-22) / 2**16)
        rest = jnp.floor(number * (1 - 2.0**-22) - whole * 2**16)
        return whole.astype(jnp.int32), rest.astype(jnp.int32)
    p, q = (jnp.expand_dims(part, axes) for part in level)
    quotient, remainder = divided(p, high, q, 31)
    more, _ = divided(p, low, q, 16, remainder)
    return quotient + (more >> 16), more & 0xFFFF
