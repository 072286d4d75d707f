"""The rank of the threshold among the critical scores, from alpha and the number of rows.

Integer arithmetic on the decimal that was written, on the host and on a device alike.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from racer_jax.core.checks import is_traced, on_device, on_host
from racer_jax.core.order_statistics import varying_like
from racer_jax.core.risk_levels import Alpha, exact_alphas


def farey_floor(alpha: Fraction, limit: int) -> Fraction:
    """The largest fraction <= alpha whose denominator is at most `limit`.

    floor(alpha t) is the same for both for every integer t <= limit: s <= alpha t means s / t <=
    alpha, whose denominator is at most `limit`. So any decimal is exact in int32 arithmetic.

    Use this when an alpha is a float and rationals are exact.
    """
    if alpha.denominator <= limit:
        return alpha
    near = alpha.limit_denominator(limit)
    if near <= alpha:
        return near
    # `near` = p/q is the neighbour above; the one below it of order `limit` solves p y - q x = 1, y
    # as large as may be.
    p, q = near.numerator, near.denominator
    y = pow(p, -1, q) if q > 1 else 1
    y += (limit - y) // q * q
    return Fraction((p * y - 1) // q, y)


def _floor_multiples(alphas: Sequence[Fraction], t: jax.Array, limit: int) -> jax.Array:
    """floor(alpha t) `[..., a]` for traced integers 0 <= t <= limit `[...]`, exact in int32."""
    fractions = [farey_floor(alpha, limit) for alpha in alphas]
    axes = (*(1,) * t.ndim, -1)
    p = np.array([fraction.numerator for fraction in fractions], np.int32).reshape(axes)
    q = np.array([fraction.denominator for fraction in fractions], np.int32).reshape(axes)
    t = t[..., None]
    if int(p.max()) * limit < 2**31:
        return lax.div(*jnp.broadcast_arrays(p * t, q))  # of numbers that are not negative
    # Horner's scheme over the bits of t: the remainder stays below 3 q, which int32 holds for any q
    # <= 7e8.
    shifts = jnp.arange(limit.bit_length() - 1, -1, -1, dtype=jnp.int32)

    def bit(
        carry: tuple[jax.Array, jax.Array], shift: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        quotient, remainder = carry
        remainder = 2 * remainder + ((t >> shift) & 1) * p
        return (2 * quotient + remainder // q, remainder % q), None

    zero = varying_like(jnp.zeros((*t.shape[:-1], len(fractions)), jnp.int32), t)
    return lax.scan(bit, (zero, zero), shifts)[0][0]


def rounded_down(alpha: jax.Array, bound: float = 1.0) -> jax.Array:
    """A traced level as float32, below the decimal that was meant; 0 where it is not in (0, bound).

    Reading a decimal rounds it by half a unit in the last place of its dtype; 2**-22 covers that of
    float32 and what is computed with it.

    Raises:
      TypeError: If it is not floating.

    Use this when an alpha is known under `jit` alone: a NaN, or 10 for 10%, must not become a
    licence to miss.
    """
    if not jnp.issubdtype(alpha.dtype, jnp.floating):
        raise TypeError(f"alpha must be floating where it is traced, got dtype {alpha.dtype}")
    # Reading a decimal rounds it by half of eps at most.
    eps = float(cast(Any, jnp.finfo)(alpha.dtype).eps)
    level = alpha.astype(jnp.float32) * (1 - max(2.0**-22, eps))
    return jnp.where((alpha > 0) & (alpha < bound), level, 0)


def _traced_rank(alpha: jax.Array, n: jax.Array) -> jax.Array:
    """Rank n - b for a traced alpha; `n` [..., 1].

    Rounds down the budget wherever the decimal is in doubt.
    """
    alpha = jnp.expand_dims(alpha, tuple(range(n.ndim - 1)))
    return n - (jnp.floor(rounded_down(alpha) * (n + 1).astype(jnp.float32)).astype(jnp.int32) - 1)


def ranks(alpha: Alpha, num: int | np.ndarray | jax.Array, limit: int) -> tuple[jax.Array, bool]:
    """Ranks n - b, int32 `[..., a]`, for a known or a traced number of rows n <= limit.

    Whether alpha is a scalar.

    Use this when a threshold is the rank-th of n critical scores.
    """
    if is_traced(alpha):
        level = jnp.asarray(alpha)
        if level.ndim > 1:
            raise ValueError(f"alpha must be a scalar or have shape [a], got shape {level.shape}")
        return _traced_rank(
            jnp.atleast_1d(level), jnp.asarray(num, jnp.int32)[..., None]
        ), level.ndim == 0
    fractions, scalar = exact_alphas(alpha)
    if isinstance(num, jax.Array) and is_traced(num):
        return num[..., None] - (_floor_multiples(fractions, num + 1, limit + 1) - 1), scalar
    # Python's own integers on the host: exact for any decimal and any n.
    counts = on_host(num).astype(object)
    budgets = [(counts + 1) * f.numerator // f.denominator - 1 for f in fractions]
    return on_device(
        np.stack([counts - budget for budget in budgets], axis=-1).astype(np.int32)
    ), scalar
