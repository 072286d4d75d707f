r"""Exactly uniform random subsets, many at once, as packed bits.

Bernoulli bits give a subset that is uniform given its size; removing (or adding) uniformly drawn
elements until the size is right keeps it so. That needs no sort and some sqrt(N) draws. An order of
repair shared by several subsets would be cheaper and wrong: each subset draws its own.

Layout: every subset is a LANE, and neighbouring lanes are neighbours in memory. Words are uint32
`[w, l]`: bit b of word i tells whether element 32 i + b is in.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax.core.keys import check_key
from racer_jax.core.threefry import threefry as threefry

Words = tuple[jax.Array, jax.Array]
Leaf: TypeAlias = Any  # data of a plan: NumPy on the host, a tracer inside jit

# Draws of one round of repair.
_ROUND = 64
# Up to so many words a position has at most 16 bits, and a word of draws gives two.
HALF_WORDS = 2048
# What one more binary digit of the Bernoulli probability costs for each word, in draws.
_DIGIT_COST = 0.35


def load(array: ArrayLike, index: jax.Array) -> jax.Array:
    """`array[index]` along the first axis for indices known to be in bounds.

    There is no clamping, no wrapping.

    Use this when an index is known to be in range and a check would cost time.
    """
    return jnp.asarray(array).at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def key_words(key: jax.Array) -> jax.Array:
    """Two uint32 words `[2]` that stand for a typed key of any kind.

    Those of a Threefry key are its own.

    Use this when a key goes into a jitted call as plain words.
    """
    check_key(key)
    if str(jax.random.key_impl(key)) == "threefry2x32":
        return jax.random.key_data(key)
    return jax.random.bits(key, (2,), np.uint32)  # by default, 64 bits where JAX has them


def folded(key: Words, data: jax.Array) -> Words:
    """`jax.random.fold_in` of a Threefry key, elementwise.

    Use this when many keys are made from one inside a kernel.
    """
    return threefry(key, jnp.zeros_like(data), data)


class Draw(NamedTuple):
    """How to draw: one kind of subset for each of `g` lanes, that every trial repeats.

    Use this when you read what `draw_plan` returns.

    Attributes:
      num: Elements in the subset, int32 `[g]`.
      size: Elements to choose from, int32 `[g]`.
      digit: Binary digits of the Bernoulli probability, last one first, bool `[d, g]`.
      valid: Which bits are elements, uint32 `[w, g]`.
      shift: 32 less the bits of a position, uint32 `[g]`.
    """

    num: Leaf
    size: Leaf
    digit: Leaf
    valid: Leaf
    shift: Leaf


def _digits(num: int, size: int) -> tuple[int, int]:
    """(k, d): the Bernoulli probability k / 2**d near num / size that costs least in all.

    The cost is that of its digits and of the draws that repair takes.
    """
    share, words = num / size, -(-size // 32)
    best = (np.inf, 0, 1)
    for d in range(1, 17):
        k = round(share * 2**d)
        bias = abs(k / 2**d - share) * size
        best = min(best, (d * words * _DIGIT_COST + 2 * bias / min(share, 1 - share), k, d))
    return best[1], best[2]


def draw_plan(num: np.ndarray, size: np.ndarray) -> Draw:
    """The `Draw` of subsets of `num` `[g]` of `size` `[g]` elements, 0 <= num <= size.

    Made on the host.

    Use this when subsets of given sizes are drawn, as those of a split.
    """
    num, size = np.asarray(num), np.asarray(size)
    words = -(-int(size.max()) // 32)
    pairs = [
        _digits(int(n), int(s)) if 0 < n < s else (int(n == s), 0)
        for n, s in zip(num, size, strict=True)
    ]
    depth = max(1, *(d for _, d in pairs))
    digit = [[(k << (depth - d)) >> i & 1 for k, d in pairs] for i in range(depth)]
    # A probability of 1 has no digits after the point: the repair adds every element of such a
    # lane.
    rest = np.clip(size[None] - 32 * np.arange(words)[:, None], 0, 32).astype(np.uint64)
    bits = np.maximum(1, np.ceil(np.log2(np.maximum(size, 2)))).astype(np.uint32)
    return Draw(
        num=num.astype(np.int32),
        size=size.astype(np.int32),
        digit=np.array(digit, bool),
        valid=((np.uint64(1) << rest) - np.uint64(1)).astype(np.uint32),
        shift=(32 - bits).astype(np.uint32),
    )


def _bernoulli(key: Words, digit: jax.Array, num_words: int) -> jax.Array:
    """Words of independent bits, each 1 with the probability whose binary digits are `[d, l]`."""
    place = jnp.arange(num_words, dtype=jnp.uint32)[:, None]
    row_key = (key[0][None], key[1][None])

    def refine(i: jax.Array, words: jax.Array) -> jax.Array:
        # Reading the digits from the last to the first: P(1) becomes (digit + P(1)) / 2.
        # One word of the two, as the compiler would make both anew for the other.
        uniform = threefry(
            row_key, place, jnp.broadcast_to(jnp.asarray(i, jnp.uint32), place.shape)
        )[0]
        return jnp.where(load(digit, i)[None], words | uniform, words & uniform)

    zero = jnp.zeros((num_words, key[0].shape[0]), jnp.uint32)
    words: jax.Array = lax.fori_loop(0, digit.shape[0], refine, zero)
    return words


def uniform_subsets(key: Words, draw: Draw, within: jax.Array | None = None) -> jax.Array:
    """An exactly uniform subset for each lane.

    Why not a shuffle or a sort: they read and write N numbers of 32 bits for each subset. Here a
    subset is N bits. The Bernoulli bits cost a word of random bits for each binary digit of the
    probability and 32 elements, and the number of elements is then off by some sqrt(N), which the
    repair flips one by one. `draw_plan` weighs the two: few digits put the probability a little off
    and cost more repair, many digits cost words.

    Why it is exact: given its size, a Bernoulli subset is uniform among the subsets of that size.
    Taking out (or putting in) an element drawn uniformly among those that are in (or not) keeps it
    so. A draw that hits a position outside, or of the side that has too few, is thrown away, which
    leaves the others uniform. The draws have a counter of their own (`1 << 16`, above any digit),
    so they share no random word with the Bernoulli bits: else what is taken out would depend on
    what is in.

    Use this when you need uniform subsets of packed elements.

    Args:
      key: Two uint32 `[l]`, a Threefry key for each lane; used for nothing else.
      draw: What to draw; its `g` divides `l`, and lane i draws the kind i // (l / g).
      within: Words `[w, l]` of the elements to choose from; all by default. `draw` then says how
        many elements there are in all, while its digits are those of the share of `within`.

    Returns:
      uint32 `[w, l]`.
    """
    num_lanes, num_words = key[0].shape[0], draw.valid.shape[0]
    if len(draw.num) > 1:
        draw = jax.tree.map(lambda x: jnp.repeat(x, num_lanes // x.shape[-1], axis=-1), draw)
    words = _bernoulli(key, draw.digit, num_words) & draw.valid
    if within is not None:
        words = words & within
    lane = jnp.arange(num_lanes, dtype=jnp.int32)
    row_key = (key[0][None], key[1][None])
    halves = num_words <= HALF_WORDS

    def draws(number: jax.Array) -> jax.Array:
        """Words of draws, `[r, l]`."""
        num = _ROUND // 2 if halves else _ROUND
        place = number * num + jnp.arange(num, dtype=jnp.uint32)[:, None]
        words: jax.Array = threefry(row_key, place, jnp.full_like(place, 1 << 16))[0]
        return words

    def surplus_of(words: jax.Array) -> jax.Array:
        surplus: jax.Array = (
            lax.population_count(words).astype(jnp.int32).sum(axis=0, dtype=jnp.int32) - draw.num
        )
        return surplus

    def repair(
        state: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        words, surplus, number, _ = state
        # Counted here, where the words exist once: before the loop they would be drawn again for
        # the count.
        surplus = lax.cond(number == 0, surplus_of, lambda _: surplus, words)
        uniform = draws(number)

        def flip(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            # The top bits of a word are uniform on a power of two. A position outside, or on the
            # side that has too few, is no draw: what is left is uniform.
            flat, surplus = state
            word = (
                load(uniform, i >> 1) << jnp.asarray((i & 1) << 4, jnp.uint32)
                if halves
                else load(uniform, i)
            )
            position = (word >> draw.shift).astype(jnp.int32)
            at = jnp.minimum(position, draw.size - 1)
            index = (at >> 5) * num_lanes + lane
            bit = jnp.uint32(1) << (at & 31).astype(jnp.uint32)
            word = load(flat, index)
            wrong_bit = (
                (position < draw.size) & (((word & bit) != 0) == (surplus > 0)) & (surplus != 0)
            )
            if within is not None:
                wrong_bit &= (load(within.reshape(-1), index) & bit) != 0
            flat = flat.at[index].set(
                jnp.where(wrong_bit, word ^ bit, word),
                mode="promise_in_bounds",
                unique_indices=True,
                wrap_negative_indices=False,
            )
            return flat, surplus - jnp.where(wrong_bit, jnp.sign(surplus), 0)

        flat, surplus = lax.fori_loop(0, _ROUND, flip, (words.reshape(-1), surplus))
        words = flat.reshape(num_words, num_lanes)
        return words, surplus, number + 1, (surplus != 0).any()

    start = (words, jnp.zeros(num_lanes, jnp.int32), jnp.uint32(0), jnp.array(True))
    result: jax.Array = lax.while_loop(lambda state: state[3], repair, start)[0]
    return result


def unpack(words: jax.Array, size: int) -> jax.Array:
    """Words `[w, l]` as bool `[size, l]`. Use this when you need the subsets as truth values."""
    place = lax.broadcasted_iota(jnp.uint32, (words.shape[0], 32, words.shape[1]), 1)
    bits = (words[:, None, :] >> place) & 1
    return (bits != 0).reshape(-1, words.shape[1])[:size]
