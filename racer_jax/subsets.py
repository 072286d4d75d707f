r"""Exactly uniform random n-subsets, many at once, as packed bits.

Bernoulli bits give a subset that is uniform given its size; removing (or adding) uniformly drawn elements until the
size is n keeps it so. That needs no sort and about sqrt(N) draws.

Layout: a subset is a LANE. Words are `[ceil(N / 32), t]`: bit b of word w tells whether element 32 w + b is in, and
neighbouring lanes are neighbours in memory.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# A Bernoulli probability is rounded to this many binary digits; the repair makes up for the rounding.
_MAX_DIGITS = 10


def _rotate(x: jax.Array, distance: int) -> jax.Array:
    return (x << distance) | (x >> (32 - distance))


def threefry(key: tuple[jax.Array, jax.Array], x0: jax.Array, x1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds, written out: the same bits as JAX's, several times as fast on a CPU."""
    k0, k1 = key
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    x0, x1 = x0 + k0, x1 + k1
    for i in range(5):
        for distance in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            x0 = x0 + x1
            x1 = _rotate(x1, distance) ^ x0
        x0 = x0 + keys[(i + 1) % 3]
        x1 = x1 + keys[(i + 2) % 3] + np.uint32(i + 1)
    return x0, x1


def _bernoulli_digits(num: int, size: int) -> tuple[int, int]:
    """(k, d) with k / 2**d near num / size: fewest digits d that cost the repair no more than chance does."""
    chance = np.sqrt(num * (size - num) / size)
    for digits in range(1, _MAX_DIGITS + 1):
        k = round(num / size * 2**digits)
        if abs(k / 2**digits * size - num) <= chance / 4 and 0 < k < 2**digits:
            return k, digits
    return k, digits


def uniform_subsets(keys: tuple[jax.Array, jax.Array], num: int, size: int) -> jax.Array:
    """An exactly uniform `num`-subset of `size` elements for each lane.

    Args:
      keys: Key data of each lane, two uint32 `[t]`.
      num: n, the size of the subsets.
      size: N, the number of elements, less than 2**31.

    Returns:
      uint32 `[ceil(N / 32), t]`.
    """
    num_words = -(-size // 32)
    lanes = keys[0].shape[0]
    row_keys = (keys[0][None], keys[1][None])  # [1, t] against the words' [w, 1]
    k, digits = _bernoulli_digits(num, size)
    place = jnp.arange(-(-num_words // 2), dtype=jnp.uint32)[:, None]
    words = jnp.zeros((2 * place.shape[0], lanes), jnp.uint32)
    for digit in range(digits):  # Bernoulli(k / 2**digits), 32 at a time: read the digits of k from the last one up
        uniform = jnp.concatenate(threefry(row_keys, place, jnp.full_like(place, digit)))
        words = words | uniform if k >> digit & 1 else words & uniform
    words = words[:num_words]
    if size % 32:
        words = words.at[-1].set(words[-1] & np.uint32((1 << size % 32) - 1))
    surplus = lax.population_count(words).astype(jnp.int32).sum(axis=0) - num

    # Draw positions, uniform on a power of two; one that is outside, or on the short side, is no draw.
    shift = 32 - max(1, (size - 1).bit_length())
    lane = jnp.arange(lanes)

    def unfinished(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return (state[1] != 0).any()

    def draw(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        words, surplus, counter = state
        for uniform in threefry(keys, counter, jnp.full_like(counter, _MAX_DIGITS)):
            position = (uniform >> shift).astype(jnp.int32)
            row = jnp.minimum(position >> 5, num_words - 1)
            bit = jnp.uint32(1) << (position & 31).astype(jnp.uint32)
            word = words[row, lane]
            flip = (surplus != 0) & (position < size) & ((word & bit != 0) == (surplus > 0))
            words = words.at[row, lane].set(jnp.where(flip, word ^ bit, word))
            surplus = surplus - jnp.where(flip, jnp.sign(surplus), 0)
        return words, surplus, counter + 1

    return lax.while_loop(unfinished, draw, (words, surplus, jnp.zeros(lanes, jnp.uint32)))[0]


def unpack(words: jax.Array, size: int) -> jax.Array:
    """Bits `[..., w, t]` as bool `[..., N, t]`."""
    place = lax.broadcasted_iota(jnp.uint32, (*words.shape[:-1], 32, words.shape[-1]), words.ndim - 1)
    bits = (words[..., :, None, :] >> place) & 1
    return (bits != 0).reshape(*words.shape[:-2], -1, words.shape[-1])[..., :size, :]
