"""Arithmetic of the layers: products in float32, rows with their derivatives, and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike


def matmul_precision(dtype: DTypeLike) -> lax.Precision | None:
    """float32 means float32: accelerators otherwise multiply with 10 bits of mantissa.

    Use this when a product must be as exact on an accelerator as on the CPU.
    """
    return lax.Precision.HIGHEST if dtype == jnp.float32 else None


@jax.custom_vjp
def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`[..., d]` times `[d, f]`, accumulated and returned in float32.

    Its derivative is written out for the order of the factors alone. A CPU turns the left factor of
    the product that makes the kernel's gradient before it multiplies, and all that XLA fuses into
    that loop walks memory across the grain: so the narrower factor goes left.

    Use this when a layer multiplies activations by weights.
    """
    return _contract(x, kernel, (x.ndim - 1,), (0,))


def _contract(
    a: jax.Array, b: jax.Array, a_axes: tuple[int, ...], b_axes: tuple[int, ...]
) -> jax.Array:
    return lax.dot_general(
        a,
        b,
        ((a_axes, b_axes), ((), ())),
        precision=matmul_precision(a.dtype),
        preferred_element_type=jnp.float32,
    )


# Not a product with the transposed matrix: for a single row XLA may write that out first, which
# takes four times as long as the product.
def inner_products(a: jax.Array, b: jax.Array) -> jax.Array:
    """Products of the rows of `a` `[n, d]` with the rows of `b` `[m, d]`, float32 `[n, m]`.

    Use this when vectors of queries are compared with a list of vectors.
    """
    return _contract(a, b, (1,), (1,))


def _dense_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return dense(x, kernel), (x, kernel)


def _dense_backward(
    residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    cotangent = cotangent.astype(x.dtype)
    rows = tuple(range(x.ndim - 1))
    to_x = _contract(cotangent, kernel, (x.ndim - 1,), (1,))
    if kernel.shape[0] <= kernel.shape[1]:
        to_kernel = _contract(x, cotangent, rows, rows)
    else:
        to_kernel = _contract(cotangent, x, rows, rows)
        # Left to itself, XLA undoes the turn; for a narrow kernel that triples the product's time.
        to_kernel = (lax.optimization_barrier(to_kernel) if kernel.shape[1] < 32 else to_kernel).T
    return to_x.astype(x.dtype), to_kernel.astype(kernel.dtype)


dense.defvjp(_dense_forward, _dense_backward)


def _total(x: jax.Array) -> jax.Array:
    """Sum of the rows of `[..., f]`, float32 `[f]`."""
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    ones = jnp.ones(rows.shape[0], jnp.float32)
    total: jax.Array = lax.platform_dependent(
        rows,
        # XLA's sums over rows walk memory across the grain on a CPU; a product with ones takes a
        # tenth of their time.
        cpu=lambda rows: jnp.matmul(ones, rows, precision=lax.Precision.HIGHEST),
        default=lambda rows: rows.sum(axis=0),
    )
    return total


@jax.custom_vjp
def add_row(x: jax.Array, row: jax.Array) -> jax.Array:
    """`[..., f]` plus `[f]`; its derivative is written out for the sum over rows alone.

    Use this when a bias is added to activations.
    """
    return x + row.reshape((1,) * (x.ndim - 1) + (-1,))


@jax.custom_vjp
def times_row(x: jax.Array, row: jax.Array) -> jax.Array:
    """`[..., f]` times `[f]`; its derivative is written out for the sum over rows alone.

    Use this when activations are scaled by feature.
    """
    return x * row.reshape((1,) * (x.ndim - 1) + (-1,))


add_row.defvjp(
    lambda x, row: (add_row(x, row), (jnp.zeros((), x.dtype), jnp.zeros((), row.dtype))),
    lambda zeros, cotangent: (
        cotangent.astype(zeros[0].dtype),
        _total(cotangent).astype(zeros[1].dtype),
    ),
)
times_row.defvjp(
    lambda x, row: (times_row(x, row), (x, row)),
    lambda saved, cotangent: (
        times_row(cotangent, saved[1]).astype(saved[0].dtype),
        _total(cotangent * saved[0]).astype(saved[1].dtype),
    ),
)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product over the last two axes, accumulated and returned in float32.

    Use this when attention multiplies queries by keys, or weights by values.
    """
    return jnp.matmul(a, b, precision=matmul_precision(a.dtype), preferred_element_type=jnp.float32)


def _dropout_bits(rate: float) -> int:
    """Random bits of an entry: the binary digits of the rate, 1 for a half, 16 at most."""
    return next(bits for bits in (1, 2, 4, 8, 16) if bits == 16 or (rate * 2**bits).is_integer())


def dropout_words(key: jax.Array, size: int, rate: float) -> jax.Array:
    """Random words with which `drop` drops from `size` entries, uint32 `[w]`; none at rate 0.

    Use this when several layers drop with words that were drawn at once.
    """
    num_words = -(-size * _dropout_bits(rate) // 32) if rate else 0
    words: jax.Array = jax.random.bits(key, (num_words,), jnp.uint32)
    return words


def drop(words: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Zeroes entries with probability `rate` and scales up the rest.

    The words are those of `dropout_words`.

    An entry takes as many random bits as its rate has binary digits, to which the rate is rounded;
    a float for each would cost as much as a layer. What is left is scaled by the rounded rate, so
    that its mean is exact.

    Use this when the random words are drawn already; `dropout` draws them itself.
    """
    if rate == 0:
        return x
    bits = _dropout_bits(rate)
    num_zeroed = min(round(rate * 2**bits), 2**bits - 1)
    bits_of_element = (
        words[None] >> jnp.arange(0, 32, bits, dtype=jnp.uint32)[:, None]
    ) & np.uint32(2**bits - 1)
    keep = (bits_of_element >= num_zeroed).reshape(-1)[: x.size].reshape(x.shape)
    return jnp.where(keep, x / (1 - num_zeroed / 2**bits), jnp.zeros((), x.dtype))


def dropout(key: jax.Array | None, x: jax.Array, rate: float) -> jax.Array:
    """`drop` with words drawn on the spot; without a key it does nothing.

    Use this when a layer drops by itself.
    """
    return x if key is None or rate == 0 else drop(dropout_words(key, x.size, rate), x, rate)
