"""Counting in packed bits against plain loops over bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.montecarlo.packed_bits import (
    BLOCK,
    Packed,
    as_bytes,
    count_before,
    exclusive_sums,
    gather_bytes,
    packing_order,
    running_counts,
    select,
)


def bits_of(words):
    """Bits [32 w, t] of words [w, t], one at a time."""
    return np.array(
        [[int(w) >> b & 1 for w in row] for row in np.asarray(words) for b in range(32)]
    )


def packed(byte, out):
    running, total = running_counts(byte, out)
    return Packed(byte, running, exclusive_sums(total)[0])


def some_words(rng, num_words, lanes):
    return jnp.asarray(rng.integers(0, 2**32, (num_words, lanes), dtype=np.uint32))


@pytest.mark.long
@pytest.mark.parametrize("num", [1, 2, 7, 64, 100])
def test_exclusive_sums(num):
    rows = np.random.default_rng(num).integers(0, 33, (num, 3))
    before, total = jax.jit(exclusive_sums)(jnp.asarray(rows, jnp.int32))
    np.testing.assert_array_equal(before, np.cumsum(rows, axis=0) - rows)
    np.testing.assert_array_equal(total, rows.sum(axis=0))


@pytest.mark.long
@pytest.mark.parametrize(("num_words", "num_entries"), [(1, 5), (3, 128), (9, 700)])
def test_count_before(num_words, num_entries):
    rng = np.random.default_rng(num_words)
    lanes = 6
    words = some_words(rng, num_words, lanes)
    element = rng.integers(0, 32 * num_words, num_entries)
    entry = rng.integers(0, num_entries, (20, lanes))
    entry[0], entry[1] = 0, num_entries - 1

    @jax.jit
    def counts(words, order, entry):
        out = jnp.zeros((*order.row.shape[::2], lanes), jnp.uint8)
        return count_before(packed(gather_bytes(as_bytes(words), order, out), out), entry)

    got = counts(words, packing_order(element, num_words), jnp.asarray(entry, jnp.int32))
    bits = bits_of(words)[element]
    expected = [[bits[: entry[a, t], t].sum() for t in range(lanes)] for a in range(len(entry))]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.long
def test_a_full_block_is_counted():
    words = jnp.full((2 * BLOCK // 32, 1), 0xFFFFFFFF, jnp.uint32)
    order = packing_order(np.arange(2 * BLOCK), len(words))
    out = jnp.zeros((*order.row.shape[::2], 1), jnp.uint8)
    bits = packed(gather_bytes(as_bytes(words), order, out), out)
    entry = jnp.arange(2 * BLOCK, dtype=jnp.int32)[:, None]
    np.testing.assert_array_equal(count_before(bits, entry), entry)


@pytest.mark.long
@pytest.mark.parametrize("density", [0.03, 0.5, 1.0])
@pytest.mark.parametrize("width", [1, 3, 40])
@pytest.mark.parametrize("guess", [0, 20])
def test_select_finds_the_bit_wherever_the_bracket_is(density, width, guess):
    rng = np.random.default_rng(1)
    num_words, lanes = 60, 4
    bits = rng.random((num_words * 32, lanes)) < density
    words = np.packbits(bits.reshape(num_words, 4, 8, lanes)[:, ::-1, ::-1], axis=2)[
        :, :, 0
    ].astype(np.uint32)
    words = jnp.asarray(
        (words << np.array([24, 16, 8, 0], np.uint32)[None, :, None]).sum(axis=1, dtype=np.uint32)
    )
    np.testing.assert_array_equal(bits_of(words), bits)
    least = int(bits.sum(axis=0).min())
    rank = jnp.asarray([1, 2, least // 2, least], jnp.int32)

    @jax.jit
    def positions(words, rank):
        before, _ = exclusive_sums(jax.lax.population_count(words))
        return select(words, before, rank[:, None], jnp.full(len(rank), guess, jnp.int32), width)

    expected = [[np.flatnonzero(bits[:, t])[r - 1] for t in range(lanes)] for r in np.asarray(rank)]
    np.testing.assert_array_equal(positions(words, rank), expected)
