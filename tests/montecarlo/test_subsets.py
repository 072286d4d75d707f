"""Uniform subsets: exactly n of N, uniform over all subsets, one key a lane."""

from collections import Counter
from functools import partial
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from racer_jax.montecarlo import subsets
from racer_jax.montecarlo.subsets import (
    draw_plan,
    folded,
    key_words,
    threefry,
    uniform_subsets,
    unpack,
)

P_VALUE = 1e-6


@partial(jax.jit, static_argnames="lanes")
def lane_keys(seed, lanes):
    return jnp.stack(folded((seed, jnp.uint32(7)), jnp.arange(lanes, dtype=jnp.uint32)))


@partial(jax.jit, static_argnames="size")
def masks(keys, draw, size, within=None):
    return unpack(uniform_subsets((keys[0], keys[1]), draw, within), size)


def chi_square(patterns, num_patterns):
    """Chance of patterns at least as uneven as these, were they uniform."""
    counts = np.array(list(Counter(patterns).values()) + [0] * (num_patterns - len(set(patterns))))
    expected = len(patterns) / num_patterns
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), num_patterns - 1)


def patterns(mask):
    return [tuple(column) for column in np.packbits(np.asarray(mask).T, axis=1)]


@pytest.mark.long
@pytest.mark.parametrize(("num", "size"), [(4, 8), (3, 8), (1, 7), (6, 7), (5, 12)])
def test_uniform_over_all_subsets(num, size):
    mask = masks(
        lane_keys(jnp.uint32(num), 40_000), draw_plan(np.array([num]), np.array([size])), size
    )
    assert (np.asarray(mask).sum(axis=0) == num).all()
    assert chi_square(patterns(mask), comb(size, num)) > P_VALUE


@pytest.mark.long
@pytest.mark.parametrize(("num", "size"), [(4, 8), (3, 8)])
def test_a_biased_repair_fails(num, size):
    """Repairing from the first element on, one order for all.

    The right size, and far from uniform.
    """
    rng = np.random.default_rng(0)
    mask = rng.random((size, 40_000)) < num / size
    for column in mask.T:
        while column.sum() != num:
            column[np.flatnonzero(column == (column.sum() > num))[0]] ^= True
    assert chi_square(patterns(mask), comb(size, num)) < P_VALUE


@pytest.mark.long
def test_every_pair_is_equally_likely_over_many_words():
    """Means and covariances of the indicators of a subset of 100 in 300, across word borders."""
    num, size, lanes = 100, 300, 20_000
    mask = np.asarray(
        masks(lane_keys(jnp.uint32(3), lanes), draw_plan(np.array([num]), np.array([size])), size)
    )
    share = num / size
    z = (mask.mean(axis=1) - share) / np.sqrt(share * (1 - share) / lanes)
    assert np.abs(z).max() < 5
    pair = share * (num - 1) / (size - 1)
    together = mask.astype(np.float32) @ mask.T.astype(np.float32) / lanes
    z = (together - pair)[~np.eye(size, dtype=bool)] / np.sqrt(pair * (1 - pair) / lanes)
    assert np.abs(z).max() < 6  # of 90,000
    # Sizes of a prefix are hypergeometric: their variance has the finite-population factor.
    count = mask[: size // 2].sum(axis=0)
    assert count.var() == pytest.approx(num * 0.25 * (size - num) / (size - 1), rel=0.05)


@pytest.mark.long
@pytest.mark.parametrize(
    ("num", "size"), [(0, 5), (5, 5), (1, 1), (1, 33), (32, 33), (64, 64), (2, 70_000)]
)
def test_edges_have_the_right_size(num, size):
    mask = np.asarray(
        masks(lane_keys(jnp.uint32(0), 16), draw_plan(np.array([num]), np.array([size])), size)
    )
    assert mask.shape == (size, 16)
    assert (mask.sum(axis=0) == num).all()


@pytest.mark.long
def test_kinds_of_subsets_side_by_side():
    num, size = np.array([3, 1, 0, 4]), np.array([8, 40, 5, 4])
    lanes = 5000
    keys = lane_keys(jnp.uint32(1), 4 * lanes)
    mask = np.asarray(masks(keys, draw_plan(num, size), 40)).reshape(40, 4, lanes)
    for kind in range(4):
        assert (mask[:, kind].sum(axis=0) == num[kind]).all()
        assert not mask[size[kind] :, kind].any()
    assert chi_square(patterns(mask[:8, 0]), comb(8, 3)) > P_VALUE
    assert chi_square(patterns(mask[:, 1]), 40) > P_VALUE


@pytest.mark.long
def test_within_a_subset():
    """A uniform 2-subset of a given 5 of 8 elements, by lane."""
    lanes = 20_000
    keys = lane_keys(jnp.uint32(2), lanes)
    outer = jnp.full((1, lanes), 0b10110110, jnp.uint32)
    draw = draw_plan(np.array([2]), np.array([8]))._replace(
        digit=draw_plan(np.array([2]), np.array([5])).digit
    )
    mask = masks(keys, draw, 8, outer)
    assert not np.asarray(mask)[[0, 3, 6]].any()
    assert chi_square(patterns(mask), comb(5, 2)) > P_VALUE


@pytest.mark.long
def test_lanes_do_not_depend_on_their_neighbours():
    draw = draw_plan(np.array([20]), np.array([50]))
    keys = lane_keys(jnp.uint32(5), 64)
    whole = np.asarray(masks(keys, draw, 50))
    np.testing.assert_array_equal(np.asarray(masks(keys[:, 10:20], draw, 50)), whole[:, 10:20])
    assert len(set(patterns(whole))) == 64


@pytest.mark.long
def test_threefry_is_jax_own():
    key = jax.random.key(123)
    words = key_words(key)
    np.testing.assert_array_equal(words, jax.random.key_data(key))
    ours = folded((words[0], words[1]), jnp.arange(50, dtype=jnp.uint32))
    theirs = jax.random.key_data(jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(50)))
    np.testing.assert_array_equal(np.stack(ours, axis=1), theirs)
    # Its words, from a counter, against the published test vectors of Threefry-2x32 with 20 rounds.
    top = jnp.uint32(0xFFFFFFFF)
    assert [
        int(x) for x in threefry((jnp.uint32(0), jnp.uint32(0)), jnp.uint32(0), jnp.uint32(0))
    ] == [
        0x6B200159,
        0x99BA4EFE,
    ]
    assert [int(x) for x in threefry((top, top), top, top)] == [0x1CB996FC, 0xBB002BE7]


def test_keys():
    assert key_words(jax.random.key(0, impl="rbg")).shape == (2,)
    with pytest.raises(TypeError, match=r"key must be jax\.random\.key"):
        key_words(jnp.zeros(2, jnp.uint32))
    with pytest.raises(TypeError, match="key must be a single key"):
        key_words(jax.random.split(jax.random.key(0)))


@pytest.mark.long
def test_no_random_word_is_used_twice(monkeypatch):
    """The draws of the repair are not those that made the subset, nor of an earlier round."""
    counters = []

    def recorded(key, x0, x1):
        counters.extend(zip(np.ravel(x0).tolist(), np.ravel(x1).tolist(), strict=True))
        return threefry(key, x0, x1)

    monkeypatch.setattr(subsets, "threefry", recorded)
    monkeypatch.setattr(subsets, "_ROUND", 2)
    draw = draw_plan(np.array([20]), np.array([40]))
    key = (jnp.arange(2, dtype=jnp.uint32), jnp.zeros(2, jnp.uint32))
    with jax.disable_jit():
        words = uniform_subsets(key, draw._replace(digit=np.array([[True], [False], [True]])))
        mask = unpack(words, 40)
    assert (np.asarray(mask).sum(axis=0) == 20).all()
    assert len(counters) > 3 * 2 + 4  # three digits of two words, and several rounds of repair
    assert len(set(counters)) == len(counters)


# A position of at most 16 bits takes half a word of a draw, one of 17 bits a whole word.
@pytest.mark.long
@pytest.mark.parametrize("size", [(1 << 16) - 1, 1 << 16, (1 << 16) + 1])
def test_repair_reaches_every_position_whatever_its_bits(size):
    num, lanes = 128, 32
    draw = draw_plan(np.array([num]), np.array([size]))
    draw = draw._replace(digit=np.zeros((1, 1), bool))  # nothing by Bernoulli: all by repair
    mask = np.asarray(masks(lane_keys(jnp.uint32(4), lanes), draw, size))
    assert (mask.sum(axis=0) == num).all()
    at = np.nonzero(mask.T)[1]
    for bin_of in (at * 16 // size, at % 16):  # by their highest bits, and by their lowest
        counts = np.bincount(bin_of, minlength=16)
        expected = num * lanes / 16
        assert chi2.sf(((counts - expected) ** 2 / expected).sum(), 15) > P_VALUE


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_a_key_has_the_same_words_where_jax_has_64_bits(kind):
    words = np.asarray(key_words(jax.random.key(7, impl=kind)))
    with jax.enable_x64(True):
        wide = np.asarray(key_words(jax.random.key(7, impl=kind)))
    assert wide.dtype == words.dtype == np.uint32
    np.testing.assert_array_equal(wide, words)
