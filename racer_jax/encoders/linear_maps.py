"""Products with a matrix and with a row, with derivatives that suit a CPU; without Flax.

Products accumulate in float32, whatever the compute dtype. They stand apart from the layers, so
that a router read from disk is used without the half second that Flax takes to import.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike


def matmul_precision(dtype: DTypeLike) -> lax.Precision | None:
    """float32 means float32: accelerators otherwise multiply with 10 bits of mantissa."""
    return lax.Precision.HIGHEST if dtype == jnp.float32 else None


@jax.custom_vjp
def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`[..., d]` times `[d, f]`, accumulated and returned in float32.

    Its derivative is written out for the order of the factors alone. A CPU turns the left factor of
    the product that makes the kernel's gradient before it multiplies, and all that XLA fuses into
    that loop walks memory across the grain: so the narrower factor goes left.
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


def _dense_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return dense(x, kernel), (x, kernel)


def _dense_backward(
    saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
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
    """`[..., f]` plus `[f]`; its derivative is written out for the sum over rows alone."""
    return x + row.reshape((1,) * (x.ndim - 1) + (-1,))


@jax.custom_vjp
def times_row(x: jax.Array, row: jax.Array) -> jax.Array:
    """`[..., f]` times `[f]`; its derivative is written out for the sum over rows alone."""
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
