"""Lengths rounded up, so that calls with many lengths share few compilations.

A kernel is compiled for each shape, which takes half a second where it then runs for a millisecond.
So what is called with arrays that have values pads their queries to one of few lengths; entries
that are added change no bit of a result, which lies on the device of the arguments. Under the
caller's `jit` or `vmap`, and for arrays spread over devices, nothing is padded.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from racer_jax.core.checks import is_traced, on_host

# Up to here a power of two; beyond, eight lengths for each power, so that little is added.
_POWERS_UP_TO = 1024
# More entries are not copied for it.
_MOST_PADDED = 1 << 22


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


def placed_like(values: np.ndarray, array: Any) -> jax.Array:
    """Values of the host as an array on the device of another, if that is bound to its device.

    Use this when an array went over the host and comes back; nothing is compiled.
    """
    is_bound = isinstance(array, jax.Array) and array.committed
    placed: jax.Array = jax.device_put(values, array.sharding if is_bound else None)
    return placed


def padded(array: jax.Array, axis: int, fill: Any) -> jax.Array:
    """`array` with one axis padded to its `padded_size`, on the host: no compilation.

    With `fill`, or with copies of the last entry where it is None.

    Use this when an array goes to a compiled function that serves a few lengths.
    """
    missing = padded_size(array.shape[axis]) - array.shape[axis]
    if not missing:
        return array
    values = on_host(array)
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, missing)
    if fill is None:
        return placed_like(np.pad(values, widths, mode="edge"), array)
    return placed_like(np.pad(values, widths, constant_values=fill), array)


def first_rows(array: jax.Array, axis: int, size: int) -> jax.Array:
    """The first `size` entries along an axis, cut on the host: no compilation.

    Use this when the result of a padded call is cut to the true length.
    """
    if array.shape[axis] == size:
        return array
    places = [slice(None)] * array.ndim
    places[axis] = slice(size)
    return placed_like(on_host(array)[tuple(places)], array)


def _ndim(array: Any) -> int:
    """Number of axes; 0 for None."""
    return 0 if array is None else int(array.ndim)


def by_rows(
    function: Callable[..., Any],
    *arrays: Any,
    cubes: tuple[Any, ...] = (),
    vectors: tuple[Any, ...] = (),
) -> Any:
    """`function(*arrays, *cubes, *vectors)`, which makes of each query a result of its own.

    Where the arrays are `[n, ...]` of two axes and have values they are padded with copies of the
    last query, and the results, trees of `[n, ...]`, are cut. What has less than two axes belongs
    to all queries, and so does None.

    Use this when a public function works query by query and may be called outside of `jit`.

    Args:
      function: A function under `jit`, so that one program serves.
      *arrays: Arrays of the queries, the first of them `[n, ...]` with two axes.
      cubes: Arrays of the queries with three axes, `[n, ...]`.
      vectors: Numbers of the queries, `[n]`.
    """
    matrices = [array for array in arrays if _ndim(array) > 1]
    size = len(matrices[0]) if matrices else 0
    rows = [(matrices, 2), (cubes, 3), (vectors, 1)]
    fits = bool(size) and all(
        array.ndim == ndim and len(array) == size for group, ndim in rows for array in group
    )
    if not fits or not can_pad(*arrays, *cubes, *vectors):
        return function(*arrays, *cubes, *vectors)
    if padded_size(size) == size or sum(array.size for array in (*matrices, *cubes)) > _MOST_PADDED:
        return function(*arrays, *cubes, *vectors)

    longer = (padded(array, 0, None) if _ndim(array) > 1 else array for array in arrays)
    results = function(*longer, *(padded(array, 0, None) for array in (*cubes, *vectors)))
    return jax.tree.map(lambda result: first_rows(result, 0, size), results)
