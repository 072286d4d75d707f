"""Ties of nonconformity: exact second keys, and the paper's small noise."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from racer_jax.core.checks import as_array, check_no_nan
from racer_jax.core.keys import check_key
from racer_jax.core.padding import by_rows, can_pad, first_rows, padded_size
from racer_jax.core.threefry import draws_by_place


def tie_break(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random second keys that break ties exactly: pairs (E, U) are compared lexicographically.

    Adding a small float to E does not break ties in float32: near 1 its spacing is 6e-8, so eps =
    1e-6 leaves some 16 levels. A second key keeps every bit of E. Draw it once for the whole pool,
    before any split.

    Args:
      key: A typed PRNG key.
      shape: Shape of the nonconformity, `[..., m + 1]`.

    Returns:
      uint32 of that shape, independent and uniform over all 2**32 values.

    Use this when many scores are equal and the risk should be exactly floor(alpha (n + 1)) / (n +
    1); `smooth`, the paper's way, leaves most ties in float32.
    """
    check_key(key)
    if len(shape) == 2 and shape[0] > 0 and can_pad(key) and draws_by_place(key):
        longer = (padded_size(shape[0]), shape[1])
        return first_rows(jax.random.bits(key, longer, jnp.uint32), 0, shape[0])
    return jax.random.bits(key, shape, jnp.uint32)


def smooth(key: jax.Array, nonconformity: ArrayLike, eps: float = 1e-6) -> jax.Array:
    """The paper's randomized smoothing, E + eps * U with U ~ Uniform(0, 1).

    Kept for comparison: in float32 it leaves most ties in place. Prefer `tie_break`.

    Args:
      key: A typed PRNG key.
      nonconformity: E(x, m), floating, `[..., m + 1]`.
      eps: Scale of the noise, positive and finite.

    Returns:
      Smoothed nonconformity, same shape and dtype.

    Raises:
      TypeError: If `nonconformity` is not floating.
      ValueError: If `eps` is not positive and finite.

    References:
      Appendix B of the paper, "Non-conformity scores".

    Use this when you reproduce the paper's own way of breaking ties.
    """
    check_key(key)
    nonconformity = as_array("nonconformity", nonconformity)
    check_no_nan("nonconformity", nonconformity)
    if not 0 < eps < float("inf"):
        raise ValueError(f"eps must be positive and finite, got {eps}")
    if draws_by_place(key):
        noisy: jax.Array = by_rows(partial(_smooth, key, eps), nonconformity)
        return noisy
    return _smooth(key, eps, nonconformity)


def _smooth(key: jax.Array, eps: float, nonconformity: jax.Array) -> jax.Array:
    # Not under `jit`, where product and sum may be rounded as one.
    return nonconformity + eps * jax.random.uniform(key, nonconformity.shape, nonconformity.dtype)
