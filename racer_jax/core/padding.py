"""Lengths rounded up, so that calls with many lengths share few compilations.

A kernel is compiled for each shape, which takes half a second where it then runs for a millisecond.
Called with arrays that have values, `calibrate`, `critical_scores` and `prediction_sets` pad their
rows to one of few lengths; entries that are added change no bit of a result. Under the caller's
`jit` or `vmap`, and for arrays spread over devices, nothing is padded.

What works entry by entry (nonconformity, `tie_break`, the measures of sets) is not padded either.
It is meant to be part of the caller's `jit`, whose shapes are the caller's choice; JAX keeps what
it compiles for each new shape until `jax.clear_caches()`. `Racer` pads what it calculates.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.core.checks import is_traced

# Up to here a power of two; beyond, eight lengths for each power, so that little is added.
_POWERS_UP_TO = 1024


def padded_size(size: int) -> int:
    """The next of the few lengths that are compiled for: at most an eighth longer beyond 1,024.

    Use this when a length varies from call to call and each length would be compiled.
    """
    bits = (size - 1).bit_length()
    step = 1 << bits if size <= _POWERS_UP_TO else 1 << (bits - 4)
    return -(-size // step) * step


def can_pad(*arrays: Any) -> bool:
    """Whether all arrays have values and lie on one device; None counts as one that does.

    Use this when an array may be a tracer or be spread over devices, which rules padding out.
    """
    if is_traced(*arrays):
        return False
    on_device = [array for array in arrays if isinstance(array, jax.Array)]
    return all(len(array.devices()) == 1 for array in on_device)


def padded(array: jax.Array, axis: int, fill: Any) -> jax.Array:
    """`array` with one axis padded to its `padded_size`, on the host: no compilation.

    Use this when an array goes to a compiled function that serves a few lengths.
    """
    values = np.asarray(array)
    missing = padded_size(values.shape[axis]) - values.shape[axis]
    if not missing:
        return array
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, missing)
    return jnp.asarray(np.pad(values, widths, constant_values=fill))


def first_rows(array: jax.Array, axis: int, size: int) -> jax.Array:
    """The first `size` entries along an axis, cut on the host: no compilation.

    Use this when the result of a padded call is cut to the true length.
    """
    if array.shape[axis] == size:
        return array
    return jnp.asarray(np.take(np.asarray(array), np.arange(size), axis=axis))
