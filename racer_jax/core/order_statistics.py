r"""Order statistics of rows without sorting each: the kernels of `calibrate`.

One rank is found by counting how many entries are below some bounds, again and again; many ranks by
one sort, and with a mask by counting in the packed bits of the mask, so that under a vmap over
masks the scores are sorted once.

All comparisons are of integers in the order of the floats: exact for subnormal numbers too, which
XLA flushes to zero.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from racer_jax.core.float_keys import (
    as_integers,
    float_keys,
    from_integers,
    signed_dtype,
    without_sign_of_zero,
)

# Rows shorter than this stay in a core's cache, so that a pass costs what it computes; longer ones
# what they read.
_CACHED = 1 << 19
_PARTS_IN_CACHE, _PARTS_IN_MEMORY = 4, 8
# From this length on, every 64th entry is looked at first.
_SAMPLED, _STRIDE = 1 << 14, 64


def counts(masks: Sequence[jax.Array], axes: Sequence[int]) -> tuple[jax.Array, ...]:
    """Number of set entries of each mask over some axes, int32, in one pass.

    Quick on a CPU from three masks on.

    Use this when several masks are counted over the same axes.
    """

    def add(a: tuple[jax.Array, ...], b: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(x + y for x, y in zip(a, b, strict=True))

    # Several sums in one reduction run on vectors; XLA adds up a single one entry by entry, 8 times
    # as slowly.
    terms = tuple(mask.astype(jnp.int32) for mask in masks)
    sums: tuple[jax.Array, ...] = lax.reduce(terms, (np.int32(0),) * len(terms), add, tuple(axes))
    return sums


def varying_like(array: jax.Array, *others: jax.Array | None) -> jax.Array:
    """`array`, said to differ between the devices of a `shard_map` wherever one of the others does.

    A loop must be given what it gives back: bounds that start equal everywhere differ after one
    step over rows that do. A condition that is never true says so without a word of `shard_map`,
    and the compiler leaves nothing of it.

    Use this when a loop under `shard_map` carries an array.
    """
    for x in others:
        if x is not None:
            array = jnp.where(x.astype(bool).any() & False, jnp.zeros_like(array), array)
    return array


def _count_below(
    value: jax.Array, mask: jax.Array | None, bounds: Sequence[jax.Array]
) -> tuple[jax.Array, ...]:
    """Entries of each row `[..., n]` whose key is below each bound `[...]`, in one pass."""
    # The keys are made anew in each pass: were they known not to change, the compiler would keep a
    # copy of the row.
    value, bounds = lax.optimization_barrier((value, tuple(bounds)))
    keys = as_integers(value)
    below = [keys < bound[..., None] for bound in bounds]
    return counts([flags if mask is None else flags & mask for flags in below], (value.ndim - 1,))


# Why not a sort: one order statistic needs no order of the others. A bracket of keys that holds the
# answer is cut into parts, and one pass over the row counts how many entries lie below each cut;
# the part that holds the rank is the next bracket. A key has 32 bits, so a handful of passes end at
# a single key, and each pass reads the row without writing anything as large as it. More cuts mean
# fewer passes but more comparisons in each: a row that stays in the cache is cheap to read again,
# so it gets few cuts, and a row in memory gets many.
def _narrow(
    value: jax.Array, mask: jax.Array | None, rank: jax.Array, low: jax.Array, high: jax.Array
) -> jax.Array:
    """Key of the `rank`-th smallest `[...]` of each row.

    By narrowing the keys [low, high] that it may have.
    """
    parts = _PARTS_IN_CACHE if value.shape[-1] < _CACHED else _PARTS_IN_MEMORY
    word = np.dtype(f"uint{8 * low.dtype.itemsize}")

    def narrow(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = state
        width = high.astype(word) - low.astype(word)
        # The bracket holds width + 1 keys, and `parts` steps must reach all of them: the last one
        # is `high` itself. step * parts is at most width + parts, and a power of two divides 2**32,
        # so step * parts - 1 never wraps.
        step = width // parts + 1

        def at(offset: jax.Array) -> jax.Array:
            return (low.astype(word) + jnp.minimum(offset, width)).astype(low.dtype)

        below = _count_below(value, mask, [at(step * j) for j in range(1, parts)])
        part = sum((count < rank).astype(word) for count in below)
        return at(step * part), at(step * (part + 1) - 1)

    start = (varying_like(low, value, mask, rank), varying_like(high, value, mask, rank))
    return lax.while_loop(lambda state: (state[0] != state[1]).any(), narrow, start)[0]


def _select_one(value: jax.Array, mask: jax.Array | None, rank: jax.Array) -> jax.Array:
    """The `rank`-th smallest of each row by counting passes.

    Exact, no sort, nothing as large as the row kept.

    A sample says where to look. A bracket that misses costs passes, never the result.

    Args:
      value: Floats or unsigned integers `[..., n]`.
      mask: bool `[..., n]`, which entries take part; None for all.
      rank: 1-based, `[...]`, between 1 and the number of entries that take part.

    Returns:
      `[...]`; either zero where it is 0.
    """
    kind = signed_dtype(value.dtype)
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    low, high = jnp.full(rank.shape, least, kind), jnp.full(rank.shape, most, kind)
    if value.shape[-1] >= _SAMPLED:
        some, some_mask = value[..., ::_STRIDE], None if mask is None else mask[..., ::_STRIDE]
        num, num_some = (
            jnp.float32(x.shape[-1]) if m is None else jnp.sum(m, axis=-1, dtype=jnp.float32)
            for x, m in ((value, mask), (some, some_mask))
        )
        middle, spread = (
            rank * (num_some / jnp.maximum(num, 1)),
            2 * jnp.sqrt(num_some),
        )  # 4 standard deviations or more
        ends = [
            jnp.clip(end, 1, jnp.maximum(num_some, 1)) for end in (middle - spread, middle + spread)
        ]
        near = lax.map(
            lambda end: _narrow(some, some_mask, end, low, high), jnp.stack(ends).astype(jnp.int32)
        )
        below, upto = _count_below(value, mask, [near[0], jnp.minimum(near[1], most - 1) + 1])
        low, high = jnp.where(below < rank, near[0], low), jnp.where(upto >= rank, near[1], high)
    return from_integers(_narrow(value, mask, rank, low, high), value.dtype)


def select(
    value: jax.Array, tie: jax.Array | None, mask: jax.Array | None, rank: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """Value and tie at one rank `[...]` of rows `[..., n]`.

    Use this when one order statistic of long rows is needed; `select_sorted` serves several.
    """
    at = without_sign_of_zero(_select_one(value, mask, rank))
    if tie is None:
        return at, None
    keys, key = float_keys(value), as_integers(at)[..., None]
    below, equal = keys < key, keys == key
    if mask is not None:
        below, equal = below & mask, equal & mask
    return at, _select_one(tie, equal, rank - jnp.sum(below, axis=-1, dtype=jnp.int32))


def select_sorted(
    value: jax.Array, tie: jax.Array | None, mask: jax.Array | None, rank: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """Value and tie at ranks `[..., a]` of rows `[..., n]`, by one sort of the row.

    The sort reads nothing of the mask, so under a vmap over masks the pool is sorted once for all
    of them.

    Use this when many ranks of the same row are needed; `select` serves one.
    """
    # Integers sort several times as fast as floats, whose comparison minds NaN.
    keys = [float_keys(value), *([] if tie is None else [tie])]
    if mask is None:
        keys = list(lax.sort(keys, dimension=-1, num_keys=len(keys)))
        index = rank - 1
    else:
        place = jnp.broadcast_to(jnp.arange(value.shape[-1], dtype=jnp.int32), value.shape)
        *keys, order = lax.sort((*keys, place), dimension=-1, num_keys=len(keys))
        index = _masked_place(jnp.take_along_axis(mask, order, axis=-1), rank)
    at = [jnp.take_along_axis(key, index, axis=-1, mode="clip") for key in keys]
    return from_integers(at[0], value.dtype), None if tie is None else at[1]


def bit_in_word(word: jax.Array, rank: jax.Array) -> jax.Array:
    """Place of the rank-th bit of each word.

    From 0: is it in the lower half, and so on, five times.

    Use this when bits are packed in words and one of them is looked for.
    """
    place = jnp.zeros_like(rank)
    for half in (16, 8, 4, 2, 1):
        low = lax.population_count(word & np.uint32((1 << half) - 1)).astype(jnp.int32)
        above = low < rank
        rank = rank - jnp.where(above, low, 0)
        place = place + jnp.where(above, half, 0)
        word = jnp.where(above, word >> half, word)
    return place


def _masked_place(mask: jax.Array, rank: jax.Array) -> jax.Array:
    """Index of the `rank`-th `[..., a]` set entry of each row `[..., n]`, by word, then bit."""
    short = -mask.shape[-1] % 32
    entries = jnp.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, short)]).reshape(
        *mask.shape[:-1], -1, 32
    )
    place = lax.broadcasted_iota(jnp.uint32, entries.shape, entries.ndim - 1)
    words = jnp.sum(entries.astype(jnp.uint32) << place, axis=-1, dtype=jnp.uint32)
    upto = jnp.cumsum(lax.population_count(words).astype(jnp.int32), axis=-1)
    word = jnp.sum(upto[..., None, :] < rank[..., :, None], axis=-1, dtype=jnp.int32)
    before = jnp.where(word > 0, jnp.take_along_axis(upto, word - 1, axis=-1, mode="clip"), 0)
    return 32 * word + bit_in_word(
        jnp.take_along_axis(words, word, axis=-1, mode="clip"), rank - before
    )
