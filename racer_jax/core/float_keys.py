"""Floats as signed integers in the same order: comparisons on a device that lose nothing.

XLA flushes subnormal numbers to zero when it compares or sorts floats, and a host does not: a score
of 1e-40 would be 0 on one side and above 0 on the other. The integers keep every bit, and minima
and comparisons of them are faster than those of floats, which mind NaN.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def signed_dtype(dtype: Any) -> Any:
    """The signed integers as wide as a dtype. Use this when floats are compared as integers."""
    return np.dtype(f"int{8 * dtype.itemsize}")


def _mirrored(bits: jax.Array) -> jax.Array:
    """Sign and magnitude to two's complement, and back: negative numbers change their order."""
    return bits ^ ((bits >> (8 * bits.dtype.itemsize - 1)) & np.iinfo(bits.dtype).max)


def as_integers(value: jax.Array) -> jax.Array:
    """Signed integers in the order of floats (-0 just below 0) or of unsigned integers.

    Use this when a selection by bits shall serve floats and unsigned integers alike.
    """
    bits = lax.bitcast_convert_type(value, signed_dtype(value.dtype))
    if jnp.issubdtype(value.dtype, jnp.floating):
        return _mirrored(bits)
    return bits ^ np.iinfo(bits.dtype).min


def from_integers(keys: jax.Array, dtype: Any) -> jax.Array:
    """What `as_integers` was made of. Use this when a selected integer is to be a float again."""
    if jnp.issubdtype(dtype, jnp.floating):
        return lax.bitcast_convert_type(_mirrored(keys), dtype)
    return lax.bitcast_convert_type(keys ^ np.iinfo(keys.dtype).min, dtype)


def without_sign_of_zero(value: jax.Array) -> jax.Array:
    """-0 as 0, on the bits: arithmetic on floats may flush subnormal numbers.

    Use this when two zeros must compare equal.
    """
    bits = lax.bitcast_convert_type(value, signed_dtype(value.dtype))
    return lax.bitcast_convert_type(
        jnp.where(bits == np.iinfo(bits.dtype).min, jnp.zeros_like(bits), bits), value.dtype
    )


def float_keys(value: jax.Array) -> jax.Array:
    """Signed integers in the order of floats; -0 and 0 are the same number.

    Use this when floats are sorted or selected by their bits.
    """
    return as_integers(without_sign_of_zero(value))


def common_dtype(*dtypes: Any) -> Any:
    """The dtype that holds numbers of both, also where the caller forbids implicit promotion.

    Use this when two arrays are compared with each other.
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(*dtypes)
