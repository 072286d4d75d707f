"""How often each value stands among many trials, counted where the trials are.

An accelerator computes a chunk of trials in less time than a host takes to fetch and count it. So
it counts its totals itself, and only the counts come to the host.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Values a row of counts has room for: eight bytes of each trial would have to be sent in its place.
_WIDTH = 1 << 13


class ValueCounts(NamedTuple):
    """Counts of whole totals, by alpha.

    Use this when you read what `value_counts` returns.

    Attributes:
      least: Smallest total, or less, int32 `[a]`.
      most: Largest total, int32 `[a]`.
      times: How often `least`, `least + 1` and so on stand in a row, int32 `[a, w]`.
    """

    least: jax.Array | np.ndarray
    most: jax.Array | np.ndarray
    times: jax.Array | np.ndarray

    def fits(self) -> bool:
        """Whether `times` has room for all values. Use this when the counts are to be read."""
        spread = np.asarray(self.most, np.int64) - np.asarray(self.least)
        return int(spread.max()) < self.times.shape[1]


@partial(jax.jit, static_argnames="width")
def value_counts(totals: jax.Array, num: jax.Array, width: int = _WIDTH) -> ValueCounts:
    """Counts of the first `num` totals of each row.

    Values of `least + width` and above are not counted: `ValueCounts.fits` says whether there are
    any.

    Use this when totals lie on an accelerator and only their distribution is needed.

    Args:
      totals: int32 `[a, s]`.
      num: How many of the s trials count, at least 1, int32 `[]`.
      width: Values that are counted, from the smallest of a row on.
    """
    counted = jnp.arange(totals.shape[1]) < num
    limits = np.iinfo(np.int32)
    least = jnp.where(counted, totals, limits.max).min(axis=1)
    most = jnp.where(counted, totals, limits.min).max(axis=1)
    place = jnp.where(counted, totals - least[:, None], width)
    row = jnp.arange(len(totals))[:, None]
    zeros = jnp.zeros((len(totals), width), jnp.int32)
    return ValueCounts(least, most, zeros.at[row, place].add(1, mode="drop"))
