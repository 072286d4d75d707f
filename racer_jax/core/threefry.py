"""Threefry, JAX's default generator: on the host, and quick to compile; the same to the bit.

JAX writes each use of a key as a loop of its own. Outside of `jit` a key that is split once costs
four programs, a tenth of a second in a process that has none of them yet: here NumPy does it.
Within `jit` each loop takes the compiler a tenth to a quarter of a second: here the rounds are
written out, which compiles in a fifth of that. Keys of another kind go to `jax.random`.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from racer_jax.core.checks import is_traced

Pair: TypeAlias = tuple[Any, Any]


def threefry(key: Pair, x0: Any, x1: Any) -> Pair:
    """Threefry-2x32 with 20 rounds written out, of uint32 arrays of NumPy or JAX.

    The bits of JAX's own generator, several times as fast on a CPU.

    Use this when random words are needed inside a kernel, without keys as arguments.
    """
    k0, k1 = key
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    x0, x1 = x0 + k0, x1 + k1
    for i in range(5):
        for distance in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            x0 = x0 + x1
            x1 = ((x1 << distance) | (x1 >> (32 - distance))) ^ x0
        x0 = x0 + keys[(i + 1) % 3]
        x1 = x1 + keys[(i + 2) % 3] + np.uint32(i + 1)
    return x0, x1


def draws_by_place(key: jax.Array) -> bool:
    """Whether it is a Threefry key whose draws depend on their place alone, as by default.

    Use this when fewer words are wanted than are drawn.
    """
    partitionable = bool(getattr(jax.config, "jax_threefry_partitionable", False))
    return partitionable and str(jax.random.key_impl(key)) == "threefry2x32"


def written_out(keys: jax.Array) -> jax.Array:
    """The same keys, for `jax.random` to draw the same numbers by rounds that are written out.

    Use this when a function under `jit` draws: it compiles and runs faster.

    >>> key = jax.random.key(0)
    >>> bool(jax.random.uniform(key) == jax.random.uniform(written_out(key)))
    True
    """
    if not draws_by_place(keys):
        return keys
    same: jax.Array = jax.random.wrap_key_data(jax.random.key_data(keys), impl=_implementation())
    return same


@cache
def _implementation() -> Any:
    """Threefry for `jax.random` to draw with."""
    from jax.extend.random import define_prng_impl

    types = {8: np.uint8, 16: np.uint16, 32: np.uint32}

    def hashed(key: jax.Array, places: jax.Array) -> jax.Array:
        pair = threefry((key[0], key[1]), jnp.zeros_like(places), places)
        # A key that the compiler makes anew for every word costs as much as the word.
        words: jax.Array = lax.optimization_barrier(jnp.stack(pair, axis=-1))
        return words

    def places(shape: tuple[int, ...]) -> jax.Array:
        num = math.prod(shape)
        if num >= 1 << 32:
            raise ValueError(f"at most 2**32 - 1 words can be drawn at once, got shape {shape}")
        return lax.iota(np.uint32, num).reshape(shape)

    def random_bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
        place = places(shape)
        high, low = threefry((key[0], key[1]), jnp.zeros_like(place), place)
        words: jax.Array = (high ^ low).astype(types.get(width, np.uint32))
        return high.astype(np.uint64) << 32 | low.astype(np.uint64) if width == 64 else words

    return define_prng_impl(
        key_shape=(2,),
        seed=lambda seed: jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
        split=lambda key, shape: hashed(key, places(shape)),
        random_bits=random_bits,
        fold_in=lambda key, number: hashed(key, jnp.asarray(number).astype(np.uint32)),
        name="threefry2x32_written_out",
        tag="fry",
    )


def _words(key: jax.Array) -> Pair | None:
    """The words `[..., 1]` of Threefry keys; None where the draws are not for the host to make."""
    if is_traced(key) or not draws_by_place(key):
        return None
    data = np.asarray(jax.random.key_data(key))
    return data[..., :1], data[..., 1:]


def _key(words: np.ndarray) -> jax.Array:
    """The Threefry keys `[...]` of words `[..., 2]`."""
    keys: jax.Array = jax.random.wrap_key_data(jax.device_put(words), impl="threefry2x32")
    return keys


def seeded(seed: int) -> jax.Array:
    """`jax.random.key(seed)`.

    Use this when a command starts from a seed.

    >>> bool((jax.random.key_data(seeded(7)) == jax.random.key_data(jax.random.key(7))).all())
    True
    """
    default = getattr(jax.config, "jax_default_prng_impl", None)
    if default != "threefry2x32" or not 0 <= seed < 1 << 31:
        return jax.random.key(seed)
    return _key(np.array([0, seed], np.uint32))


def at(keys: jax.Array, index: Any) -> jax.Array:
    """`keys[index]`, as NumPy takes an index.

    Use this when one of several keys, or an array of one key, is wanted outside of `jit`.
    """
    if is_traced(keys):
        chosen: jax.Array = keys[index]
        return chosen
    places = index if isinstance(index, tuple) else (index,)
    if any(place is Ellipsis for place in places):
        places = (*places, slice(None))  # the words of a key come last
    data = np.asarray(jax.random.key_data(keys))[places]
    impl = jax.random.key_impl(keys)
    chosen = jax.random.wrap_key_data(jax.device_put(data), impl=impl)
    return chosen


def folded(keys: jax.Array, number: int) -> jax.Array:
    """`jax.random.fold_in` of a key, or of each of several, with a number in 0..2**31 - 1.

    Use this when a key outside of `jit` is folded.
    """
    words = _words(keys)
    if words is None:
        fold_in = jax.random.fold_in
        for _ in range(keys.ndim):
            fold_in = jax.vmap(fold_in, (0, None))
        others: jax.Array = fold_in(keys, number)
        return others
    words = threefry(words, np.zeros(1, np.uint32), np.array([number], np.uint32))
    return _key(np.concatenate(words, axis=-1))


def folded_each(keys: jax.Array, numbers: np.ndarray) -> jax.Array:
    """`jax.random.fold_in` of each key `[...]` with each number `[n]`, `[..., n]`.

    Use this when many keys are derived at once, outside of `jit` or within.
    """
    words = _words(keys)
    if words is None:
        fold_in = jax.vmap(jax.random.fold_in, (None, 0))
        for _ in range(keys.ndim):
            fold_in = jax.vmap(fold_in, (0, None))
        others: jax.Array = fold_in(keys, numbers)
        return others
    numbers = np.asarray(numbers, np.uint32)
    return _key(np.stack(threefry(words, np.zeros_like(numbers), numbers), axis=-1))


def split_each(keys: jax.Array, num: int) -> jax.Array:
    """`jax.random.split` of each key `[...]`, `[..., num]`.

    Use this when many keys are split at once, outside of `jit` or within.
    """
    if _words(keys) is not None:  # Threefry splits as it folds
        return folded_each(keys, np.arange(num))
    split: Callable[[jax.Array], jax.Array] = partial(jax.random.split, num=num)
    for _ in range(keys.ndim):
        split = jax.vmap(split)
    return split(keys)


def halves(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two keys of `jax.random.split(key)`.

    Use this when a key outside of `jit` is split.
    """
    words = _words(key)
    if words is None:
        first, second = jax.random.split(key)
        return first, second
    pairs = np.stack(threefry(words, np.zeros(2, np.uint32), np.arange(2, dtype=np.uint32)), -1)
    return _key(pairs[0]), _key(pairs[1])


def bits(key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """`jax.random.bits(key, shape, uint32)`.

    Use this when random words are needed outside of `jit`.
    """
    words = _words(key)
    num = math.prod(shape)
    if words is None or num >= 1 << 32:
        return np.asarray(jax.random.bits(key, shape, jnp.uint32))
    high, low = threefry(words, np.zeros(num, np.uint32), np.arange(num, dtype=np.uint32))
    word: np.ndarray = high ^ low
    return word.reshape(shape)


def permutation(key: jax.Array, num: int) -> np.ndarray:
    """`jax.random.permutation(key, num)`, int32 `[num]`.

    Use this when rows are drawn outside of `jit`.
    """
    words = _words(key)
    if words is None:
        return np.asarray(jax.random.permutation(key, num))
    order = np.arange(num, dtype=np.int32)
    zeros, places = np.zeros(num, np.uint32), np.arange(num, dtype=np.uint32)
    # So many rounds that a pair with equal words in all of them is unlikely, as JAX has it.
    for _ in range(math.ceil(3 * math.log(max(1, num)) / math.log(2**32 - 1))):
        both = threefry(words, np.zeros(2, np.uint32), np.arange(2, dtype=np.uint32))
        words, draw = tuple(w[:1] for w in both), tuple(w[1:] for w in both)
        high, low = threefry(draw, zeros, places)
        order = order[np.argsort(high ^ low, kind="stable")]
    return order
