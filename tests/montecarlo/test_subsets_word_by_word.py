"""Uniform subsets against the same draws written out in Python, bit for bit and lane by lane."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.montecarlo import subsets
from racer_jax.montecarlo.subsets import _digits, draw_plan, threefry, uniform_subsets, unpack

WORDS, LANES = 2, 30
MASK = 0xFFFFFFFF


def scrambled(key, x0, x1):
    """Threefry-2x32 with 20 rounds, as published (Salmon et al. 2011), on Python integers."""
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x0, x1 = (x0 + key[0]) & MASK, (x1 + key[1]) & MASK
    for i in range(5):
        for distance in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            x0 = (x0 + x1) & MASK
            x1 = (((x1 << distance) | (x1 >> (32 - distance))) & MASK) ^ x0
        x0 = (x0 + keys[(i + 1) % 3]) & MASK
        x1 = (x1 + keys[(i + 2) % 3] + i + 1) & MASK
    return x0, x1


def test_threefry_is_the_published_one():
    assert scrambled((0, 0), 0, 0) == (0x6B200159, 0x99BA4EFE)
    assert scrambled((MASK, MASK), MASK, MASK) == (0x1CB996FC, 0xBB002BE7)
    rows = np.random.default_rng(0).integers(0, 2**32, (50, 4), dtype=np.uint32)
    ours = threefry((rows[:, 0], rows[:, 1]), rows[:, 2], rows[:, 3])
    expected = [scrambled(row[:2], *row[2:]) for row in rows.tolist()]
    assert list(zip(*(part.tolist() for part in ours), strict=True)) == expected


def subset(key, num, size, digits, within, per_round=64, halves=True, num_words=WORDS):
    """One lane: the set drawn by Bernoulli bits, last digit first, and repaired draw by draw."""
    words = [0] * num_words
    for i, digit in enumerate(digits):
        for place in range(num_words):
            uniform = scrambled(key, place, i)[0]
            words[place] = words[place] | uniform if digit else words[place] & uniform
    allowed = {e for e in range(size) if within >> e & 1}
    chosen = {e for e in allowed if words[e // 32] >> (e % 32) & 1}
    bits = max(1, (size - 1).bit_length())
    counter = 0
    while len(chosen) != num:
        for draw in range(per_round):
            number = counter + (draw // 2 if halves else draw)
            word = scrambled(key, number, 1 << 16)[0]
            if halves and draw % 2:
                word = (word << 16) & MASK
            element = word >> (32 - bits)
            if element not in allowed:
                continue
            if len(chosen) > num and element in chosen:
                chosen.remove(element)
            elif len(chosen) < num and element not in chosen:
                chosen.add(element)
        counter += per_round // 2 if halves else per_round
    return chosen


# Draws of one round of repair below, at and above what a lane needs; positions of half and of a
# whole word of a draw.
@pytest.mark.long
@pytest.mark.parametrize(
    ("per_round", "half_words"),
    [(2, WORDS), (4, WORDS - 1), pytest.param(64, WORDS, marks=pytest.mark.long)],
)
def test_every_lane_is_the_subset_of_its_own_draws(monkeypatch, per_round, half_words):
    monkeypatch.setattr(subsets, "_ROUND", per_round)
    monkeypatch.setattr(subsets, "HALF_WORDS", half_words)
    rng = np.random.default_rng(per_round)
    keys = rng.integers(0, 2**32, (2, LANES), dtype=np.uint32)
    num, size = np.array([3, 20, 0]), np.array([7, 41, 33])
    draw = draw_plan(num, size)
    within = np.array([[0b1011101, MASK, MASK]], np.uint32).repeat(LANES // 3, axis=1)
    within = np.concatenate([within, np.full_like(within, MASK)])
    words = jax.jit(lambda keys, draw: uniform_subsets((keys[0], keys[1]), draw, within))(
        keys, draw
    )
    got = np.unpackbits(np.asarray(words).T.copy().view(np.uint8), axis=1, bitorder="little")
    for lane in range(LANES):
        kind = lane // (LANES // 3)
        allowed = int(within[0, lane]) | int(within[1, lane]) << 32
        digits = draw.digit[:, kind].tolist()
        expected = subset(
            tuple(keys[:, lane].tolist()),
            int(num[kind]),
            int(size[kind]),
            digits,
            allowed,
            per_round,
            half_words >= WORDS,
        )
        assert set(np.flatnonzero(got[lane]).tolist()) == expected


def test_a_round_is_of_whole_words_whether_they_are_halved_or_not():
    assert subsets._ROUND % 2 == 0
    # With 16 bits a position is below 32 * HALF_WORDS.
    assert 32 * subsets.HALF_WORDS == 1 << 16


def test_unpacked_words_are_their_bits_in_order():
    words = np.random.default_rng(1).integers(0, 2**32, (WORDS, 3), dtype=np.uint32)
    bits = [[int(words[e // 32, lane]) >> (e % 32) & 1 for lane in range(3)] for e in range(45)]
    np.testing.assert_array_equal(unpack(jnp.asarray(words), 45), np.array(bits, bool))


def cost(k, d, num, size):
    """What digits and repair cost in draws, as the plan counts them."""
    share, words = num / size, -(-size // 32)
    return d * words * 0.35 + 2 * abs(k / 2**d - share) * size / min(share, 1 - share)


def test_the_digits_are_the_cheapest_of_all():
    for num, size in ((1, 2), (1, 3), (2, 7), (100, 300), (999, 1000), (1, 70_000), (3, 96)):
        k, d = _digits(num, size)
        every = [(k, d) for d in range(1, 17) for k in (round(num / size * 2**d),)]
        assert cost(k, d, num, size) == min(cost(*pair, num, size) for pair in every)
        assert (k, d) in every


def test_a_plan_says_which_bits_are_elements_and_how_long_a_position_is():
    num, size = np.array([0, 1, 2, 5, 31, 40]), np.array([1, 1, 2, 32, 33, 64])
    plan = draw_plan(num, size)
    assert plan.num.tolist() == num.tolist()
    assert plan.size.tolist() == size.tolist()
    for word, kind in product(range(2), range(6)):
        count = min(max(int(size[kind]) - 32 * word, 0), 32)
        assert int(plan.valid[word, kind]) == (1 << count) - 1
    # The bits of the largest position, one at least.
    assert (32 - plan.shift).tolist() == [1, 1, 1, 5, 6, 6]
    # The digits of the probability, last one first; none where nothing is left to chance.
    value = (plan.digit * 2.0 ** (np.arange(len(plan.digit)) - len(plan.digit))[:, None]).sum(0)
    for kind in range(6):
        n, s = int(num[kind]), int(size[kind])
        expected = 0.0
        if 0 < n < s:
            k, d = _digits(n, s)
            expected = k / 2**d
        assert value[kind] == expected
    assert [part.dtype.name for part in plan] == ["int32", "int32", "bool", "uint32", "uint32"]
